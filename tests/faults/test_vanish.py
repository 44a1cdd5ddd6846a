"""A file of the data set that vanishes while a run reads it."""

import shutil

import pytest
import small
import torch
from PIL import Image

from vitrine.cli import train
from vitrine.cli.command_line import run_cli
from vitrine.modules.classifier import Classifier
from vitrine.runs.checkpoint_files import last_good_checkpoint
from vitrine.runs.metrics_csv import read_rows
from vitrine.runs.store import Store

pytestmark = pytest.mark.slow


def ends(capsys, words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["train.py", *words])
        try:
            run_cli(train.main)
        except SystemExit as ended:
            return ended.code, capsys.readouterr().err
    return 0, capsys.readouterr().err


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    root = tmp_path_factory.mktemp("images")
    for split, count in (("train", 64), ("val", 16)):
        for i in range(count):
            file = root / split / f"class{i % 4}" / f"{i:02d}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(0, 256, (32, 32, 3), generator=torch.Generator().manual_seed(i))
            Image.fromarray(pixels.to(torch.uint8).numpy()).save(file)
    return root


def words(folder, root, name="folder"):
    own = [
        f"data.name={name}",
        f"data.root={root}",
        "data.workers=1",
        "data.cache=never",
        "data.image_size=32",
    ]
    signs = ("data.train_size", "data.val_size", "data.image_size")
    return [word for word in small.words(folder) if not word.startswith(signs)] + own


def gone_at(patch, step, files, aside):
    """The files are moved away before the batch after `step` optimizer steps is trained on."""
    real = Classifier.training_step

    def training_step(self, batch, batch_idx):
        if self.global_step == step:
            for file in files:
                if file.exists():
                    shutil.move(file, aside / file.name)
        return real(self, batch, batch_idx)

    patch.setattr(Classifier, "training_step", training_step)


def test_a_picture_that_vanishes_is_named_and_the_run_goes_on_when_it_is_back(
    images, tmp_path, monkeypatch, capsys
):
    root, aside, folder = tmp_path / "images", tmp_path / "aside", tmp_path / "runs" / "a"
    shutil.copytree(images, root)
    aside.mkdir()
    files = sorted((root / "train" / "class1").glob("*.png"))
    with monkeypatch.context() as patch:
        gone_at(patch, 5, files, aside)  # in the second epoch: the third cannot do without them
        status, said = ends(capsys, words(folder, root))
    last = [line for line in said.splitlines() if line.startswith("stopped: ")]
    assert status == 1 and len(last) == 1
    assert f"{root}/train/class1/" in last[0] and "cannot be read as an image" in last[0]
    assert "Traceback" not in last[0]
    assert last_good_checkpoint(folder) is not None
    small.nothing_half_made(folder)
    for file in files:
        shutil.move(aside / file.name, file)
    assert ends(capsys, words(folder, root))[0] == 0
    assert ends(capsys, words(tmp_path / "runs" / "whole", root))[0] == 0
    mine, theirs = small.weights(folder), small.weights(tmp_path / "runs" / "whole")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert read_rows(folder) == read_rows(tmp_path / "runs" / "whole")


@pytest.mark.slow
def test_a_chunk_that_vanishes_is_named_and_the_run_goes_on_when_it_is_back(
    images, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("litdata", reason="litdata is not installed")
    from vitrine.cli.convert import Settings, convert

    monkeypatch.setattr("vitrine.cli.convert._MIB", 1024)
    root, aside, folder = tmp_path / "chunks", tmp_path / "aside", tmp_path / "runs" / "a"
    convert(images, root, Settings(chunk_mib=16))
    aside.mkdir()
    files = sorted((root / "train").glob("*.bin"))
    assert len(files) > 4
    with monkeypatch.context() as patch:
        gone_at(patch, 3, files, aside)
        status, said = ends(capsys, words(folder, root, "streaming"))
    last = [line for line in said.splitlines() if line.startswith("stopped: ")]
    assert status == 1 and len(last) == 1
    assert f"{root}/train: chunk" in last[0] and ".bin" in last[0]
    assert last_good_checkpoint(folder) is not None
    for file in files:
        shutil.move(aside / file.name, file)
    assert ends(capsys, words(folder, root, "streaming"))[0] == 0
    assert ends(capsys, words(tmp_path / "runs" / "whole", root, "streaming"))[0] == 0
    mine, theirs = small.weights(folder), small.weights(tmp_path / "runs" / "whole")
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)


def test_a_picture_that_vanishes_under_an_analysis_is_that_analysis_failure(
    images, tmp_path, monkeypatch, capsys, caplog
):
    import contextlib

    root, folder = tmp_path / "images", tmp_path / "runs" / "a"
    shutil.copytree(images, root)
    lost, real = root / "val" / "class2" / "02.png", Store.writing
    content = lost.read_bytes()

    @contextlib.contextmanager
    def writing(self, step, **how):
        if step == 6:
            lost.unlink()
        with real(self, step, **how) as writer:
            yield writer
        lost.write_bytes(content)

    monkeypatch.setattr(Store, "writing", writing)
    assert ends(capsys, words(folder, root))[0] == 0
    errors = {step: Store(folder).results(step)["examples"].error for step in small.STEPS}
    assert [step for step, error in errors.items() if error] == [6]
    assert str(lost) in errors[6]
    assert Store(folder).results(6)["weights"].error is None
