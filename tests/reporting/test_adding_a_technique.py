"""docs/adding-a-technique.md, as it stands there."""

import re
from pathlib import Path

import pytest

from vitrine.analyses import ANALYSES
from vitrine.cli import train
from vitrine.reporting.page_data import run_data
from vitrine.reporting.ranking import ranking

TEXT = (Path(__file__).parents[2] / "docs" / "adding-a-technique.md").read_text(encoding="utf-8")
TECHNIQUE, REGISTRATION, TEST = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
SMALL = [
    "data.train_size=32",
    "data.val_size=16",
    "data.image_size=32",
    "data.batch_size=16",
    "trainer.max_steps=2",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "checkpoint.every_steps=2",
    "analysis.mirror.probes=2",
]


@pytest.fixture
def registered(tmp_path, monkeypatch):
    """The document's technique, registered as another project does it."""
    (tmp_path / "mirror.py").write_text(TECHNIQUE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(ANALYSES, "places", dict(ANALYSES.places))
    exec(REGISTRATION, {})


def test_the_technique_is_as_short_as_it_says():
    code = [
        line for line in TECHNIQUE.splitlines() if line.strip() and not line.startswith(("import", "from"))
    ]
    assert len(code) <= 30


def test_its_own_test_passes(registered):
    scope = {}
    exec(TEST, scope)
    scope["test_mirroring_changes_only_what_depends_on_left_and_right"]()


@pytest.mark.slow
@pytest.mark.usefixtures("registered", "offline_home")
def test_it_is_shown_in_its_own_section_on_the_page_and_on_wandb(tmp_path, history):
    off = [f"analysis.{name}.enabled=false" for name in ANALYSES if name != "mirror"]
    train.main([*SMALL, *off, f"run.root={tmp_path}", "run.name=run", "logging.wandb.mode=offline"])
    run = tmp_path / "run"

    page = run_data(run)
    (technique,) = page["analyses"]
    assert (technique["name"], technique["title"]) == ("mirror", "Mirror images")
    assert [figure[0] for figure in technique["figures"]] == ["probe-000/mirror", "probe-001/mirror"]
    assert [(s["analysis"], s["key"]) for s in page["scalars"]] == [("mirror", "change")]
    assert ranking(run)["last/change"] == page["scalars"][0]["points"][-1][1]

    keys = {key for row in history(run) for key in row}
    assert {"Mirror/change", "Time/mirror"} <= keys
    assert any(key.startswith("Mirror/mirror") for key in keys)
