"""Every source of people's own images: train.py, cut off and resumed, and analyze.py from elsewhere."""

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from quick_settings import QUICK

from vitrine.cli import analyze, train
from vitrine.core.settings import SettingError

pytestmark = pytest.mark.slow
CLASSES = ["a dog/..", '<猫> "q"', "con"]
OWN = """
import torch
from lightning.pytorch import LightningDataModule
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

normalize = v2.Normalize([0.5] * 3, [0.25] * 3)
to_tensor = v2.Compose([v2.ToImage(), v2.ToDtype(torch.float32, scale=True), normalize])

class Mine(LightningDataModule):
    def __init__(self, root, size=8, workers=0):
        super().__init__()
        self.root, self.loading = root, {"batch_size": size, "num_workers": workers}
    def train_dataloader(self):
        flipped = v2.Compose([v2.RandomHorizontalFlip(), to_tensor])
        return DataLoader(ImageFolder(self.root + "/train", flipped), shuffle=True, **self.loading)
    def val_dataloader(self):
        return DataLoader(ImageFolder(self.root + "/val", to_tensor), **self.loading)
"""
SMALL = [
    *QUICK,
    "model.options={widths: [4, 8]}",
    "trainer.max_steps=8",
    "checkpoint.every_steps=3",
    "analysis.probes=1",
]


def images():
    """(number, label, image of 16 x 16 pixels, split)."""
    for i in range(52):
        draw = torch.Generator().manual_seed(i)
        pixels = torch.randint(0, 256, (16, 16, 3), generator=draw).to(torch.uint8)
        yield i, i % 3, Image.fromarray(pixels.numpy()), "train" if i < 40 else "val"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """The same images as every source wants them, in one folder; gives the words of each source."""
    import datasets
    import webdataset

    root = tmp_path_factory.mktemp("data")
    lines, rows = ["file;label;split"], {"train": [], "val": []}
    writers = {
        name: webdataset.TarWriter(str(root / f"{name}.tar")) for name in ("train-0", "train-1", "val-0")
    }
    for i, label, image, split in images():
        file = root / "files" / split / f"class{label}" / f"{i:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        image.save(file)
        name = CLASSES[label].replace('"', '""')
        lines.append(f'{file.relative_to(root)};"{name}";{split}')
        rows[split].append({"image": str(file), "label": label})
        shard = writers[f"{split}-{i // 20 if split == 'train' else 0}"]
        shard.write({"__key__": f"{i:02d}", "png": file.read_bytes(), "txt": CLASSES[label]})
    for writer in writers.values():
        writer.close()
    (root / "labels.csv").write_text("\n".join(lines), encoding="utf-8")
    features = datasets.Features(image=datasets.Image(), label=datasets.ClassLabel(names=CLASSES))
    datasets.DatasetDict(
        {name: datasets.Dataset.from_list(some, features) for name, some in rows.items()}
    ).save_to_disk(str(root / "saved"))
    (root / "mine.py").write_text(OWN)
    return root


def command_line(root, name):
    own = {
        "csv": ["data.name=csv", "data.file=labels.csv"],
        "hf": ["data.name=hf", "data.root=saved"],
        "webdataset": ["data.name=webdataset", "data.root={train-{0..1},val-0}.tar"],
        "own": ["data.name=mine.py:Mine", f"data.options={{root: {root}/files, workers: 1}}"],
    }[name]
    if name != "own":
        own += ["data.batch_size=8", "data.cache=never", "data.workers=1", "data.augment.flip=true"]
    return [*SMALL, *own, f"run.root={root}/runs-{name}"]


def last_weights(run: Path) -> dict:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.parametrize("name", ["csv", "hf", "webdataset", "own"])
def test_a_run_is_resumed_exactly_and_analyzed_from_elsewhere(data, tmp_path, monkeypatch, name):
    monkeypatch.chdir(data)
    runs = data / f"runs-{name}"
    train.main([*command_line(data, name), "run.name=whole"])
    shutil.copytree(runs / "whole", runs / "cut")  # as a kill after step 3 would have left it
    for file in ("step=00000006.ckpt", "step=00000008.ckpt", "last.ckpt"):
        (runs / "cut" / "checkpoints" / file).unlink(missing_ok=True)
    train.main([f"run.root={runs}", "run.name=cut", "run.resume=true"])
    whole, cut = last_weights(runs / "whole"), last_weights(runs / "cut")
    assert whole.keys() == cut.keys() and all(torch.equal(whole[key], cut[key]) for key in whole)
    files = list((runs / "whole" / "analysis").rglob("*.*"))
    pictures = {file: file.read_bytes() for file in files if file.suffix in (".png", ".webp")}
    assert {"examples", "cam", "adversarial"} <= {part for file in pictures for part in file.parts}
    shutil.rmtree(runs / "whole" / "analysis")
    monkeypatch.chdir(tmp_path)
    analyze.main([str(runs / "whole")])
    assert {file: file.read_bytes() for file in pictures} == pictures


@pytest.mark.parametrize("name", ["csv", "hf", "webdataset", "own"])
def test_caching_changes_nothing_and_a_mistake_makes_nothing(data, monkeypatch, name):
    monkeypatch.chdir(data)
    how = [*command_line(data, name), "trainer.max_steps=2", "analysis.mode=off"]
    train.main([*how, "run.name=disk"])
    if name in ("csv", "hf"):  # shards in memory are shuffled together, and not window by window
        train.main(
            [
                *how,
                "run.name=memory",
                "data.cache=always",
                "model.mean=[0.485,0.456,0.406]",
                "model.std=[0.229,0.224,0.225]",
            ]
        )
        disk, memory = (last_weights(data / f"runs-{name}" / run) for run in ("disk", "memory"))
        assert all(torch.equal(disk[key], memory[key]) for key in disk)
    wrong = {"csv": "data.label_column=no", "hf": "data.label=no", "webdataset": "data.label=no"}
    with pytest.raises(SettingError):
        train.main([*how, "run.name=wrong", wrong.get(name, "data.options={rot: x}")])
    assert not (data / f"runs-{name}" / "wrong").exists()
