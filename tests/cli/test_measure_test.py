"""The test split: read once, on the best checkpoint, and never in training."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from quick_settings import QUICK

from vitrine.cli import analyze, train
from vitrine.core.settings import SettingError
from vitrine.datamodules.files import ImageFiles
from vitrine.modules import load_checkpoint

COUNTS = {"train": 8, "val": 3, "test": 5}  # images a class
SMALL = [
    *QUICK,
    "data.name=folder",
    "data.image_size=16",
    "data.batch_size=4",
    "data.workers=0",
    "data.cache=never",
    "trainer.max_epochs=2",
    "analysis.mode=off",
]
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def images(tmp_path_factory) -> Path:
    root, draw = tmp_path_factory.mktemp("images"), np.random.default_rng(0)
    for split, count in COUNTS.items():
        for label, name in enumerate(("cat", "dog")):
            (root / split / name).mkdir(parents=True)
            for i in range(count):
                pixels = draw.integers(0, 160, (16, 16, 3), dtype=np.uint8)
                pixels[..., label] += 90
                Image.fromarray(pixels).save(root / split / name / f"{i}.png")
    return root


@pytest.fixture
def reads(monkeypatch) -> list[Path]:
    """Every file that is decoded, in order."""
    found, encoded = [], ImageFiles.encoded
    monkeypatch.setattr(
        ImageFiles, "encoded", lambda split, i: found.append(Path(split.files[i])) or encoded(split, i)
    )
    return found


def of_test(reads) -> list[Path]:
    return [file for file in reads if "test" in file.parts]


def trained(images, tmp_path, name="run", *more) -> Path:
    train.main([*SMALL, f"data.root={images}", f"run.root={tmp_path}", f"run.name={name}", *more])
    return tmp_path / name


def measurements(run) -> list[dict]:
    return json.loads((run / "test.json").read_text())["measurements"]


def test_it_is_read_once_and_never_in_training(images, tmp_path, reads, capsys):
    run = trained(images, tmp_path, "run", "analysis.mode=train")
    analyze.main([str(run)])
    assert reads and not of_test(reads)
    analyze.main([str(run), "test=true"])
    assert sorted(of_test(reads)) == sorted((images / "test").rglob("*.png"))  # each, and each once
    (measured,) = measurements(run)
    said = f"test accuracy {measured['metrics']['test/accuracy']:.1%}"
    assert said in capsys.readouterr().out
    page = (run / "gallery.js").read_text()
    assert measured["weights_hash"] in page

    reads.clear()
    analyze.main([str(run), "test=true"])
    assert not reads and measurements(run) == [measured]
    assert (
        f"measured already: test accuracy {measured['metrics']['test/accuracy']:.1%}"
        in capsys.readouterr().out
    )
    analyze.main([str(run), "test=true", "again=true"])
    assert len(of_test(reads)) == 10 and len(measurements(run)) == 2
    other = next(file for file in (run / "checkpoints").glob("step=*") if file.name != measured["checkpoint"])
    analyze.main([str(other), "test=true"])
    assert measurements(run)[-1]["checkpoint"] == other.name and len(of_test(reads)) == 20


def test_its_numbers_are_those_of_the_best_checkpoint_by_hand(images, tmp_path):
    run = trained(images, tmp_path, "run", "checkpoint.monitor=val/loss", "checkpoint.mode=min")
    analyze.main([str(run), "test=true"])
    (measured,) = measurements(run)
    file = run / "checkpoints" / "best.ckpt"
    assert measured["checkpoint"] == "best.ckpt"
    assert measured["step"] == torch.load(file, weights_only=True)["global_step"]
    files = sorted((images / "test").rglob("*.png"))
    pixels = np.stack([np.asarray(Image.open(file)) for file in files])
    labels = torch.tensor([file.parent.name == "dog" for file in files]).long()
    with torch.no_grad():
        logits = load_checkpoint(file).eval()(torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255)
    correct = (logits.argmax(1) == labels).float()
    assert measured["images"] == 10
    assert measured["metrics"]["test/accuracy"] == pytest.approx(correct.mean().item())
    loss = F.cross_entropy(logits, labels).item()
    assert measured["metrics"]["test/loss"] == pytest.approx(loss, rel=1e-4)
    by_class = {one["name"]: one["accuracy"] for one in measured["classes"]}
    expected = {name: correct[labels == label].mean().item() for label, name in enumerate(("cat", "dog"))}
    assert by_class == pytest.approx(expected)


def test_training_may_end_with_it_and_is_the_same(images, tmp_path, reads, capsys):
    plain = trained(images, tmp_path, "plain")
    assert not (plain / "test.json").exists() and not of_test(reads)
    run = trained(images, tmp_path, "run", "run.test=true")
    assert len(of_test(reads)) == 10 and len(measurements(run)) == 1
    assert "test accuracy" in capsys.readouterr().out
    weights = [torch.load(r / "checkpoints" / "last.ckpt", weights_only=True) for r in (plain, run)]
    for name, tensor in weights[0]["state_dict"].items():
        assert torch.equal(tensor, weights[1]["state_dict"][name]), name
    assert "test/" not in (run / "metrics.csv").read_text()
    trained(images, tmp_path, "run", "run.test=true", "run.resume=true")  # nothing is left to do
    assert len(of_test(reads)) == 10 and "test accuracy" in capsys.readouterr().out
    trained(images, tmp_path, "run", "run.test=true", "run.resume=true", "trainer.max_epochs=3")
    assert 1 <= len(measurements(run)) <= 2


def test_several_ranks_measure_each_image_once(images, tmp_path):
    more = ["run.name=run", "run.test=true", "trainer.devices=2", "optimizer.ema=0.5"]
    words = [sys.executable, "train.py", *SMALL, f"data.root={images}", f"run.root={tmp_path}", *more]
    subprocess.run(words, cwd=Path(__file__).parents[2], check=True, timeout=300, capture_output=True)
    (together,) = measurements(tmp_path / "run")
    analyze.main([str(tmp_path / "run"), "test=true", "again=true"])
    alone = measurements(tmp_path / "run")[-1]
    assert together["images"] == alone["images"] == 10 and together["weights_hash"] == alone["weights_hash"]
    assert together["metrics"] == pytest.approx(alone["metrics"], rel=1e-4)


def test_data_without_a_test_split_are_refused(images, tmp_path, capsys):
    with pytest.raises(SettingError, match=r"run\.test: is true, but the data have no test split"):
        trained(images / "train", tmp_path, "run", "run.test=true")
    assert not (tmp_path / "run").exists()
    run = trained(images / "train", tmp_path)
    with pytest.raises(SettingError, match="test: the data have no test split: a folder test/"):
        analyze.main([str(run), "test=true"])
    with pytest.raises(SettingError, match=r"data\.test_fraction: is 0\.25, and was 0\.0 in training, which"):
        analyze.main([str(run), "test=true", "data.test_fraction=0.25"])
    with pytest.raises(SettingError, match=r"data\.test_fraction: is 0\.25, and was 0\.0 in training, which"):
        trained(images / "train", tmp_path, "run", "run.resume=true", "data.test_fraction=0.25")
    assert not (run / "test.json").exists()


def test_what_cannot_be_meant_is_refused(tmp_path):
    with pytest.raises(SettingError, match="again: is true, which goes with test=true"):
        analyze.main([str(tmp_path), "again=true"])
    with pytest.raises(SettingError, match="test: 0 runs came; expected one run"):
        analyze.main(["test=true"])
    with pytest.raises(SettingError, match="test: is 'maybe', expected bool"):
        analyze.main([str(tmp_path), "test=maybe"])
