import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # for `import cluster`, `import trial`
sys.path.insert(0, str(Path(__file__).parents[1] / "faults"))  # for `import small`


@pytest.fixture(scope="session")
def cluster() -> Iterator:
    """SLURM, with two nodes of its own."""
    import os

    from cluster import Cluster, missing_program

    if (missing := missing_program()) or os.getuid() != 0:
        pytest.skip(f"SLURM cannot be started: {f'no {missing}' if missing else 'not root'}")
    with tempfile.TemporaryDirectory(prefix="slurm-") as folder, Cluster(Path(folder)) as started:
        yield started


@pytest.fixture(scope="session")
def whole(cluster, tmp_path_factory) -> Path:
    """The run to which nothing happens, without SLURM."""
    from trial import uninterrupted

    return uninterrupted(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="session")
def whole_of_two(cluster, tmp_path_factory) -> Path:
    """The same of two ranks."""
    from trial import uninterrupted

    return uninterrupted(tmp_path_factory.mktemp("whole-of-two"), 2)


@pytest.fixture
def trial(cluster, tmp_path):
    from trial import Trial

    return Trial(tmp_path, cluster)
