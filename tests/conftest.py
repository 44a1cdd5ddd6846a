import os
from pathlib import Path

import pytest
import torch

# networks here are tiny: one thread is quicker than two, and the sums are those of any other process with one
torch.set_num_threads(1)

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("VITRINE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder} (set VITRINE_SHARED)")
    return folder
