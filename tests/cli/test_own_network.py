"""A network of somebody's own through train.py and analyze.py, and a project beside which nothing clashes."""

import shutil
import subprocess
import sys
from pathlib import Path

import forked
import pytest
import torch

from vitrine import assembly, config
from vitrine.analyses import ANALYSES
from vitrine.cli import analyze, train

ROOT = Path(__file__).parents[2]
NET = """
from torch import nn
from blocks import block

class Net(nn.Module):
    def __init__(self, n_classes, width=4, act=nn.ReLU):
        super().__init__()
        self.stem, self.stage = block(3, width, act), block(width, 2 * width, act)
        self.normalize, self.classes = nn.BatchNorm2d(3), nn.Linear(2 * width, n_classes)
    def forward(self, images):
        return {"logits": self.classes(self.stage(self.stem(self.normalize(images))).mean((2, 3)))}
"""
BLOCKS = """
from torch import nn

def block(before, after, act):
    return nn.Sequential(nn.Conv2d(before, after, 3, 2, 1), act())
"""
SMALL = [
    "data.train_size=64",
    "data.val_size=16",
    "data.image_size=32",
    "data.batch_size=16",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "checkpoint.every_steps=2",
    "logging.wandb.mode=disabled",
    "analysis.probes=1",
    "analysis.units=1",
    *(f"analysis.{name}.enabled=false" for name in ANALYSES if name not in ("weights", "cam", "examples")),
]


def last_weights(run: Path) -> dict:
    return torch.load(run / "checkpoints/last.ckpt", weights_only=True)["state_dict"]


@pytest.mark.slow
def test_a_file_of_one_s_own_is_trained_resumed_and_analyzed(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "blocks.py").write_text(BLOCKS)
    monkeypatch.chdir(tmp_path)
    words = [*SMALL, "model.name=net.py:Net", "model.options={width: 6}", "run.root=runs"]
    train.main([*words, "run.name=whole", "trainer.max_steps=4"])
    shutil.copytree("runs/whole", "runs/cut")  # as a kill after step 2 would have left it
    for file in ("checkpoints/step=00000004.ckpt", "checkpoints/last.ckpt"):
        Path("runs/cut", file).unlink(missing_ok=True)
    train.main(["run.root=runs", "run.name=cut", "run.resume=true"])
    whole, cut = last_weights(Path("runs/whole")), last_weights(Path("runs/cut"))
    assert whole.keys() == cut.keys() and all(torch.equal(whole[key], cut[key]) for key in whole)
    files = list(Path("runs/whole/analysis").rglob("*.*"))
    pictures = {file: file.read_bytes() for file in files if file.suffix in (".png", ".webp")}
    assert any("cam" in str(file) for file in pictures)
    shutil.rmtree("runs/whole/analysis")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    analyze.main([str(tmp_path / "runs/whole")])
    monkeypatch.chdir(tmp_path)
    assert {file: file.read_bytes() for file in pictures} == pictures


def test_code_and_weights_are_found_again_from_everywhere(tmp_path, monkeypatch):
    (tmp_path / "net.py").write_text("Net = dict")
    (tmp_path / "net.pt").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    settings = config.load(["model.name=net.py:Net", "model.weights=net.pt"])
    assembly.check_network(settings)
    assert (settings.model.name, settings.model.weights) == (f"{tmp_path}/net.py:Net", f"{tmp_path}/net.pt")
    settings = config.load(["model.weights=IMAGENET1K_V1", "model.name=resnet18"])
    assembly.check_network(settings)
    assert settings.model.weights == "IMAGENET1K_V1"


@pytest.mark.slow
@pytest.mark.parametrize(
    "wrong", ["model.name=net.py:Nett", "model.name=net.py:Net model.options={widht: 3}"]
)
def test_a_wrong_reference_ends_with_status_2_before_anything_is_made(tmp_path, wrong):
    (tmp_path / "net.py").write_text(NET)
    (tmp_path / "blocks.py").write_text(BLOCKS)
    words = [*SMALL, *f"model.{wrong}".split(" ", 1), "run.root=runs"]
    program = forked.Program([ROOT / "train.py", *words], cwd=tmp_path)
    _, said = program.communicate(timeout=200)
    assert program.returncode == 2 and not (tmp_path / "runs").exists()
    assert "did you mean" in said and "Traceback" not in said
    assert len(said.strip().splitlines()) == 1


@pytest.mark.slow
def test_a_project_with_modules_callbacks_and_config_of_its_own_meets_no_clash(tmp_path):
    for package in ("modules", "callbacks", "datamodules"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise_if_ours = 1\n")
    (tmp_path / "config.py").write_text("width = 6\n")
    (tmp_path / "modules/blocks.py").write_text(BLOCKS)
    own = NET.replace("from blocks", "import config\nfrom modules.blocks").replace("=4", "=config.width")
    (tmp_path / "modules/net.py").write_text(own)
    words = [*SMALL, "model.name=modules.net:Net", "run.root=runs", "run.name=own", "trainer.max_steps=2"]
    for program in ([str(ROOT / "train.py"), *words], [str(ROOT / "analyze.py"), "runs/own"]):
        ended = subprocess.run(
            [sys.executable, *program], cwd=tmp_path, capture_output=True, text=True, timeout=250
        )
        assert ended.returncode == 0, ended.stderr[-2000:]
    assert (tmp_path / "runs/own/index.html").is_file()
