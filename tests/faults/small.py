"""A run from the command line to the page in a few seconds, and what has to be true of one on disk."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from vitrine.runs.metrics_csv import read_rows

ROOT = Path(__file__).resolve().parents[2]
if str(ROOT) not in sys.path:
    sys.path.insert(0, str(ROOT))

STEPS = [3, 6, 9, 12]  # that have a checkpoint
MADE = ("weights", "examples", "cam")  # analyses that are cheap
WORDS = [
    "data.train_size=64",
    "data.val_size=16",
    "data.image_size=32",
    "data.batch_size=16",
    "data.augment.flip=true",
    "model.options={widths: [4, 8]}",
    "trainer.max_epochs=3",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "checkpoint.every_steps=3",
    "logging.wandb.mode=disabled",
    "analysis.probes=2",
    "analysis.units=2",
]


def words(folder: Path, *more: str) -> list[str]:
    """The command line of a run in `folder` that goes on if it is there."""
    from vitrine.analyses import ANALYSES

    off = [f"analysis.{name}.enabled=false" for name in ANALYSES if name not in MADE]
    placed = [f"run.root={folder.parent}", f"run.name={folder.name}", "run.resume=true"]
    return [*WORDS, *off, *placed, *more]


def weights(folder: Path, step: int = STEPS[-1]) -> dict[str, torch.Tensor]:
    file = folder / "checkpoints" / f"step={step:08d}.ckpt"
    return torch.load(file, map_location="cpu", weights_only=True)["state_dict"]


def pictures(folder: Path) -> dict[str, bytes]:
    """Every file of the analyses by its path, but those that tell the time."""
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted((folder / "analysis").rglob("*"))
        if file.is_file() and file.name != "complete.json"
    }


def page(folder: Path) -> dict[str, Any]:
    """What the page's data says of the run; fails where a browser would."""
    assert "</html>" in (folder / "index.html").read_text(encoding="utf-8")
    text = (folder / "gallery.js").read_text(encoding="utf-8").strip()
    assert text.startswith("vitrine(") and text.endswith(");")
    return json.loads(text.removeprefix("vitrine(").removesuffix(");"))["runs"][0]


def nothing_half_made(folder: Path) -> None:
    """What a reader finds at any instant, also right after a kill: whole or absent."""
    for step in (folder / "analysis").glob("step=*"):
        complete = json.loads((step / "complete.json").read_text())
        assert f"step={complete['step']:08d}" == step.name
        for name, outcome in complete["analyses"].items():
            figures = json.loads((step / name / "figures.json").read_text())
            assert len(figures) == outcome["figures"]
            assert len({figure["key"] for figure in figures}) == len(figures)
            for figure in figures:
                with Image.open(step / name / figure["file"]) as image:
                    image.load()
    for file in (folder / "checkpoints").glob("step=*.ckpt"):
        assert torch.load(file, map_location="cpu", weights_only=True)["state_dict"]
    if (folder / "index.html").exists() and (folder / "gallery.js").exists():
        page(folder)
    if (folder / "run.json").exists():
        json.loads((folder / "run.json").read_text())


def as_unbroken(folder: Path, whole: Path) -> None:
    """A run that has ended is the same as one that nothing happened to."""
    nothing_half_made(folder)
    mine, theirs = weights(folder), weights(whole)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs), "other weights"
    assert pictures(folder) == pictures(whole), "other pictures"
    other = [(mine, theirs) for mine, theirs in zip(read_rows(folder), read_rows(whole)) if mine != theirs]
    assert not other and len(read_rows(folder)) == len(read_rows(whole)), f"other metrics: {other}"
    shown, expected = page(folder), page(whole)
    for part in ("analyses", "scalars", "metrics"):
        assert without_time(shown[part]) == without_time(expected[part]), f"the page has other {part}"
    assert [at["step"] for at in shown["steps"]] == STEPS
    other = sorted(set(files(folder)) ^ set(files(whole)))
    assert not other, f"left, or missing: {other}"


def without_time(told: Any) -> Any:
    """What the page tells, without what depends on the clock."""
    if isinstance(told, dict):
        return {k: without_time(v) for k, v in told.items() if "second" not in k.lower()}
    if isinstance(told, list):
        kept = [t for t in told if not (isinstance(t, dict) and "seconds" in str(t.get("key", "")))]
        return [without_time(t) for t in kept]
    return told


def files(folder: Path) -> list[str]:
    found = (str(f.relative_to(folder)) for f in folder.rglob("*") if not f.is_dir())
    return sorted(name for name in found if not name.startswith("wandb/"))
