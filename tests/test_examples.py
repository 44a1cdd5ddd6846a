"""The scripts in examples/ do what they say, in a folder of their own."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from vitrine.runs.store import Store

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.timeout(900)  # they make every picture of the default run
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


def run(example: str, folder: Path, *arguments: str) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "examples" / example, *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=850)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def page_of(output: str, folder: Path) -> Path:
    (page,) = set(re.findall(r"\S+index\.html", output))
    return folder / page


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_shorter_than_sixty_lines(example):
    assert len(example.read_text().splitlines()) < 60


@pytest.mark.slow
def test_a_script_gets_pictures_at_every_checkpoint_by_one_line(tmp_path):
    page = page_of(run("lightning_callback.py", tmp_path, "2"), tmp_path)
    assert Store(page.parent).steps() == [16, 32]
    lines = (ROOT / "examples" / "lightning_callback.py").read_text().splitlines()
    assert len([line for line in lines if "AnalyzeCheckpoints(" in line and "`" not in line]) == 1


@pytest.mark.slow
def test_a_plain_loop_gets_pictures_at_every_epoch(tmp_path):
    page = page_of(run("plain_loop.py", tmp_path, "2"), tmp_path)
    assert Store(page.parent).steps() == [16, 32]


@pytest.mark.slow
@pytest.mark.skipif(
    importlib.util.find_spec("timm") is None, reason='timm is not installed (pip install -e ".[zoos]")'
)
def test_a_network_of_timm_is_fine_tuned(tmp_path):
    page = page_of(run("timm_finetune.py", tmp_path), tmp_path)
    assert Store(page.parent).steps() == [16, 32]


@pytest.mark.slow
def test_the_cells_of_the_notebook_run_and_show_pictures(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cells = json.loads((ROOT / "examples" / "notebook.ipynb").read_text())["cells"]
    scope = {}
    for cell in cells:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), scope)
    assert "<img " in scope["report"]._repr_html_()
    assert Store(tmp_path / "runs" / "notebook").steps() == [0, 1]
