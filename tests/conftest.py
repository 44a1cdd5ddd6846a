import os
from collections import Counter
from pathlib import Path

import pytest

# networks here are tiny: one thread is quicker than two, and sums are those of any other process with one;
# set before torch is imported, for which the process that deals out the tests has no use
os.environ["OMP_NUM_THREADS"] = "1"

ROOT = Path(__file__).resolve().parent.parent
# whose slow tests take longest, longest first: a file that begins last is waited for by all others; not those
# of the page, as processes that other tests fork and leave would keep the browser's driver from ending
LONGEST = (
    "test_wandb_faults.py",
    "test_packaging.py",
    "test_wandb_resume.py",
    "test_object_store.py",
    "test_wandb_programs.py",
    "test_wandb_followers.py",
    "test_train.py",
    "test_sources.py",
    "test_own_network.py",
    "test_examples.py",
    "test_requeue.py",
    "test_processes.py",
    "test_export.py",
    "test_measure_test.py",
    "test_wandb.py",
    "test_wandb_hang.py",
    "test_fuzz.py",
    "test_full.py",
    "test_follow.py",
    "test_analyze_on_ranks.py",
)
# what a test may lack -> the command that brings it; the words are looked for in the reason of a skip
INSTALL = {
    "chromium": "apt-get install chromium",
    "axe-core": "npm install axe-core",
    "playwright": 'pip install -e ".[test]"',
    "tensorboard": 'pip install -e ".[test]"',
    "SLURM": "apt-get install slurm-wlm munge, as root",
    "moto": 'pip install -e ".[test]"',
    "datasets": 'pip install -e ".[test]"',
    "webdataset": 'pip install -e ".[test]"',
    "litdata": 'pip install -e ".[streaming]"',
    "wandb_workspaces": 'pip install -e ".[report]"',
    "timm": 'pip install -e ".[zoos]"',
    "transformers": 'pip install -e ".[zoos]"',
    "torchattacks": "pip install --no-deps torchattacks",
    "shared data": "set VITRINE_SHARED to the folder of real images and weights",
}


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real images and weights; tests that need it are skipped where it is absent."""
    folder = Path(os.environ.get("VITRINE_SHARED", ROOT.parent / "shared"))
    if not (folder / "data").is_dir():
        pytest.skip(f"no shared data at {folder}")
    return folder


@pytest.fixture(scope="session")
def timm():
    return pytest.importorskip("timm", reason="timm is not installed")


@pytest.fixture(scope="session")
def transformers():
    return pytest.importorskip("transformers", reason="transformers is not installed")


def pytest_collection_modifyitems(items: list) -> None:
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.name, len(places)))


def pytest_terminal_summary(terminalreporter) -> None:
    """One line for each thing that is missing here: how many tests it costs, and what brings it."""
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", []))
    for reason, count in sorted(reasons.items()):
        command = next((command for word, command in INSTALL.items() if word in reason), None)
        terminalreporter.write_line(
            f"{count} skipped: {reason}" + (f" ({command})" if command else ""), yellow=True
        )


def _reason(report) -> str:
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    return reason.removeprefix("Skipped: ")
