"""The state of every random number generator of the process, as plain containers and tensors."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def capture() -> dict[str, Any]:
    """The states of python's, numpy's and torch's generators (CPU and, where CUDA is in use, every GPU).

    Numbers, strings, lists and tensors: `torch.load(weights_only=True)` reads it back.
    """
    version, words, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state()
    return {
        "python": {"version": version, "words": torch.tensor(words, dtype=torch.int64), "gauss": gauss},
        "numpy": {
            "kind": str(kind),
            "keys": torch.from_numpy(keys.astype(np.int64)),
            "position": int(position),
            "has_gauss": int(has_gauss),
            "cached": float(cached),
        },
        "torch": torch.get_rng_state(),
        # asking a GPU for its state would start CUDA, where nobody has used it yet
        "cuda": torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else [],
    }


def restore(state: dict[str, Any]) -> None:
    """Restore every generator to a captured state; GPUs that are not here are skipped."""
    python, numpy = state["python"], state["numpy"]
    random.setstate((python["version"], tuple(python["words"].tolist()), python["gauss"]))
    keys = numpy["keys"].numpy().astype(np.uint32)
    np.random.set_state((numpy["kind"], keys, numpy["position"], numpy["has_gauss"], numpy["cached"]))
    torch.set_rng_state(state["torch"].cpu())
    if torch.cuda.is_available():
        for device, gpu in zip(range(torch.cuda.device_count()), state["cuda"]):
            torch.cuda.set_rng_state(gpu.cpu(), device)


@contextmanager
def seeded(key: int) -> Iterator[None]:
    """Within the scope the CPU's generators are seeded with a key in [0, 2^63); afterwards as they were."""
    before = capture()
    random.seed(key)
    np.random.seed(key % 2**32)
    torch.default_generator.manual_seed(key)  # torch.manual_seed would seed GPUs, too
    try:
        yield
    finally:
        restore(before)
