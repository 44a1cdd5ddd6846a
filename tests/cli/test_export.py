"""`analyze.py export`: a file with which another program gets the network's logits from [0, 1] pixels."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from vitrine.analyses import ANALYSES
from vitrine.cli import analyze, train
from vitrine.core.settings import SettingError
from vitrine.examination.examiner import weights_hash
from vitrine.modules import Classifier, OptimizerSettings, export, load_checkpoint, load_network, record_of
from vitrine.modules.objectives.standard import Standard

CLASSES = ["a/b", 'naïve "cat"', "c"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


def checkpoint(folder: Path, name: str = "convnet", step: int = 7, **options) -> Path:
    """One of ours, of an untrained network."""
    torch.manual_seed(0)
    network = load_network(name, classes=CLASSES, **options)
    classifier = Classifier(network, Standard(), OptimizerSettings(), CLASSES)
    content = {"state_dict": classifier.state_dict(), "global_step": step}
    classifier.on_save_checkpoint(content)
    torch.save(content, folder / f"{step}.ckpt")
    return folder / f"{step}.ckpt"


def images(count: int, size: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def logits(file: Path, batch: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return load_checkpoint(file)(batch)


def test_safetensors_are_weights_that_are_loaded_with_their_normalisation(tmp_path, capsys):
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.6, 0.7]
    file = checkpoint(tmp_path, widths=[4, 8], mean=mean, std=std)
    analyze.main(["export", str(file), "format=safetensors", "image_size=32", "out=deep/net.safetensors"])
    assert "differ by at most 0.0e+00 from the network's on 8 random images" in capsys.readouterr().out
    again = load_network("convnet", classes=CLASSES, widths=[4, 8], weights="deep/net.safetensors").eval()
    with torch.no_grad():
        assert torch.equal(again(images(3)), logits(file, images(3)))
    with safe_open("deep/net.safetensors", "pt") as opened:
        known = opened.metadata()
    assert json.loads(known["classes"]) == CLASSES and json.loads(known["step"]) == 7
    assert json.loads(known["mean"]) == pytest.approx(mean) and json.loads(known["std"]) == pytest.approx(std)
    assert known["weights_sha256"] == weights_hash(load_checkpoint(file))


@pytest.mark.parametrize(
    "words, problem",
    [
        (["{file}", "format=onx"], "format: is 'onx', expected one of onnx, torch_export, safetensors"),
        (["{file}", "out=net.pt"], r"out: is net\.pt, expected a file that ends in \.onnx"),
        (["{file}", "format=safetensors"], "image_size: is not given, and cannot be told: this is no run"),
        (["{file}", "format=safetensors", "image_size=32", "out=7.ckpt/a.safetensors"], "out: .*cannot be"),
        (["{file}", "format=safetensors", "opset=18"], "opset: is 18, which is of format=onnx"),
        (["{file}", "checkpoint=last"], "checkpoint: is last, but .* is a checkpoint itself: give its run"),
        (["{file}", "opset=7"], "opset: is 7, expected at least 18"),
        (["nowhere"], "nowhere: "),
        ([], "nothing to analyze"),
        (["empty"], "empty: has no checkpoint"),
    ],
)
def test_what_cannot_be_exported_is_answered_by_one_line_and_leaves_nothing(tmp_path, words, problem):
    file = checkpoint(tmp_path, widths=[4])
    Path("empty").mkdir()
    Path("empty/config.yaml").write_text("run: {name: empty}\n")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(SettingError, match=problem) as caught:
        analyze.main(["export", *(word.format(file=file) for word in words)])
    assert "\n" not in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_file_that_gives_other_logits_is_not_written(tmp_path, monkeypatch):
    file = checkpoint(tmp_path, widths=[4])
    real = export.to_safetensors

    def broken(network, metadata):
        content, run = real(network, metadata)
        return content, lambda batch: run(batch) + 1e-3

    monkeypatch.setattr(export, "to_safetensors", broken)
    with pytest.raises(SettingError, match=r"logits differ by 1\.0e-03 from the network's, expected"):
        analyze.main(["export", str(file), "format=safetensors", "image_size=32"])
    assert not Path("7.safetensors").exists()


def test_without_the_packages_onnx_is_answered_with_what_to_install(tmp_path, monkeypatch):
    find = export.importlib.util.find_spec
    lacking = ("onnx", "onnxscript")
    monkeypatch.setattr(
        export.importlib.util, "find_spec", lambda name: None if name in lacking else find(name)
    )
    with pytest.raises(SettingError, match=r'needs onnx and onnxscript: pip install "vitrine\[onnx\]"'):
        analyze.main(["export", str(checkpoint(tmp_path, widths=[4])), "image_size=32"])


@pytest.fixture
def small_transformers(monkeypatch) -> None:
    """torchvision's vision transformers have two narrow blocks."""
    from torchvision.models import vision_transformer

    real, size = (
        vision_transformer._vision_transformer,
        {"num_layers": 2, "num_heads": 2, "hidden_dim": 32, "mlp_dim": 64},
    )
    monkeypatch.setattr(vision_transformer, "_vision_transformer", lambda **how: real(**how | size))


@pytest.mark.slow
@pytest.mark.usefixtures("small_transformers")
@pytest.mark.parametrize(
    "name, options",
    [
        ("convnet", {"widths": [4, 8]}),
        ("resnet18", {}),
        ("vit_b_16", {}),
        ("squeezenet1_0", {}),
    ],
)
def test_an_onnx_file_gives_the_same_logits_for_any_number_of_images(tmp_path, capsys, name, options):
    onnxruntime = pytest.importorskip("onnxruntime")
    file = checkpoint(tmp_path, name, image_size=32, **options)
    analyze.main(["export", str(file), "image_size=32", "out=net.onnx"])
    assert "from the network's on 8 random images" in capsys.readouterr().out
    session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
    for count in (1, 3, 11):
        found = session.run(None, {"images": images(count).numpy()})[0]
        torch.testing.assert_close(torch.from_numpy(found), logits(file, images(count)), atol=1e-4, rtol=1e-4)
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["classes"]) == CLASSES and json.loads(known["step"]) == 7
    assert json.loads(known["mean"]) == pytest.approx([0.485, 0.456, 0.406])


@pytest.mark.slow
def test_a_torch_export_gives_the_same_logits_for_any_number_of_images(tmp_path):
    file = checkpoint(tmp_path, "resnet18", image_size=32)
    analyze.main(["export", str(file), "format=torch_export", "image_size=32", "out=net.pt2"])
    extra = {export.METADATA_FILE: ""}
    module = torch.export.load("net.pt2", extra_files=extra).module()
    for count in (1, 3, 11):
        torch.testing.assert_close(module(images(count)), logits(file, images(count)), atol=1e-4, rtol=1e-4)
    assert json.loads(json.loads(extra[export.METADATA_FILE])["classes"]) == CLASSES


@pytest.mark.slow
def test_a_run_is_exported_at_its_best_checkpoint_and_compared_on_its_validation_images(tmp_path, capsys):
    pytest.importorskip("onnxruntime")
    small = [
        "data.train_size=64", "data.val_size=32", "data.image_size=32", "data.batch_size=32",
        "trainer.max_steps=3", "trainer.val_check_interval=1", "trainer.accelerator=cpu",
        "trainer.enable_progress_bar=false", "checkpoint.every_steps=1", "checkpoint.monitor=val/accuracy",
        "logging.wandb.mode=disabled", *(f"analysis.{name}.enabled=false" for name in ANALYSES),
    ]  # fmt: skip
    train.main([*small, f"run.root={tmp_path}", "run.name=run"])
    run = tmp_path / "run"
    best = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["global_step"]
    capsys.readouterr()
    for words, name, step in (
        ([], "best.onnx", best),
        (["checkpoint=last", "batch=1", "opset=18"], "step=00000003.onnx", 3),
        (["checkpoint=2"], "step=00000002.onnx", 2),
    ):
        analyze.main(["export", str(run), *words])
        out = capsys.readouterr().out
        assert "validation images" in out and out.endswith(f"the file: {run}/export/{name}\n")
        import onnx

        model = onnx.load(run / "export" / name)
        known = {prop.key: prop.value for prop in model.metadata_props}
        assert json.loads(known["step"]) == step and json.loads(known["image_size"]) == 32
        shape = model.graph.input[0].type.tensor_type.shape.dim
        assert (shape[0].dim_value, shape[0].dim_param) == ((1, "") if "batch=1" in words else (0, "batch"))
    assert model.opset_import[0].version > 18
    with pytest.raises(SettingError, match="checkpoint: is 9, expected one of best, last, 1, 2, 3"):
        analyze.main(["export", str(run), "checkpoint=9"])


NET = """
from torch import nn

class Net(nn.Module):
    def __init__(self, n_classes):
        super().__init__()
        self.conv, self.classes = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, n_classes)
    def forward(self, images):
        return {"logits": self.classes(self.conv(images).relu().mean((2, 3)))}
"""


EXPANDED = """
import torch
from torch import nn
class Net(nn.Module):
    def __init__(self, num_classes, dtype="float32"):
        super().__init__()
        self.conv, self.dtype = nn.Conv2d(3, 4, 3, 2), getattr(torch, dtype)
        self.scale = nn.Parameter(torch.full((1,), 0.5).expand(num_classes, 4))
        self.register_buffer("table", torch.arange(4.0).to(self.dtype).expand(num_classes, 4))
    def forward(self, images):
        return self.conv(images).mean((2, 3)) @ (self.table.real.float() + self.scale).T
"""


def test_a_network_with_expanded_tensors_is_loaded_and_exported(tmp_path):
    Path("net.py").write_text(EXPANDED)
    file = checkpoint(tmp_path, "net.py:Net", mean=[0.2, 0.3, 0.4], std=[0.5, 0.6, 0.7])
    words = ["model.name=net.py:Net", "format=safetensors", "image_size=32", "out=net.safetensors"]
    analyze.main(["export", str(file), *words])
    with torch.no_grad():
        expected = load_checkpoint(file, "net.py:Net")(images(3))
        again = load_network("net.py:Net", classes=CLASSES, weights="net.safetensors").eval()
        assert expected.std() > 0 and torch.equal(again(images(3)), expected)


EXTRA = """
from torch import nn
class Net(nn.Sequential):
    def __init__(self, num_classes):
        super().__init__(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, num_classes))
    def get_extra_state(self): return {"calls": 1}
    def set_extra_state(self, state): pass
"""


def test_a_network_that_keeps_more_than_tensors_is_exported_without_and_that_is_said(tmp_path, caplog):
    Path("net.py").write_text(EXTRA)
    file = checkpoint(tmp_path, "net.py:Net", mean=[0.2, 0.3, 0.4], std=[0.5, 0.6, 0.7])
    words = ["model.name=net.py:Net", "format=safetensors", "image_size=32", "out=net.safetensors"]
    analyze.main(["export", str(file), *words])
    assert "the network's _extra_state is not in the file" in caplog.text
    with torch.no_grad():
        again = load_network("net.py:Net", classes=CLASSES, weights="net.safetensors").eval()
        assert torch.equal(again(images(3)), load_checkpoint(file, "net.py:Net")(images(3)))


def test_a_state_that_safetensors_cannot_hold_is_answered_by_one_line(tmp_path):
    Path("net.py").write_text(EXPANDED)
    file = checkpoint(tmp_path, "net.py:Net", mean=[0] * 3, std=[1] * 3, options={"dtype": "complex128"})
    with pytest.raises(SettingError, match=r"export: the network cannot be exported: KeyError: .*complex128"):
        analyze.main(["export", str(file), "model.name=net.py:Net", "format=safetensors", "image_size=32"])
    assert not Path("7.safetensors").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "format, suffix", [("onnx", "onnx"), ("torch_export", "pt2"), ("safetensors", "safetensors")]
)
@pytest.mark.parametrize("name", ["net.py:Net", "timm/vit_tiny_patch16_224", "timm/convnext_atto", "hf"])
def test_networks_of_others_are_exported_with_the_normalisation_beside_them(tmp_path, name, format, suffix):
    if name == "hf":
        transformers = pytest.importorskip("transformers")
        config = transformers.ViTConfig(
            image_size=32, patch_size=8, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
            intermediate_size=32,
        )  # fmt: skip
        config.save_pretrained(tmp_path / "vit")
        name = f"hf/{tmp_path}/vit"
    elif name.startswith("timm/"):
        pytest.importorskip("timm")
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    Path("net.py").write_text(NET)
    file = checkpoint(tmp_path, name, image_size=32, mean=[0.2, 0.3, 0.4], std=[0.5, 0.6, 0.7])
    named = [f"model.name={name}"] if name == "net.py:Net" else []
    analyze.main(["export", str(file), *named, f"format={format}", "image_size=32", f"out=net.{suffix}"])
    with torch.no_grad():
        expected = load_checkpoint(file, "net.py:Net" if named else None)(images(3))
        if format == "safetensors":
            again = load_network(name, classes=CLASSES, weights="net.safetensors", image_size=32).eval()
            assert record_of(again).mean == pytest.approx([0.2, 0.3, 0.4])
            found = again(images(3))
        elif format == "torch_export":
            found = torch.export.load("net.pt2").module()(images(3))
        else:
            import onnxruntime

            session = onnxruntime.InferenceSession("net.onnx", providers=["CPUExecutionProvider"])
            found = torch.from_numpy(session.run(None, {"images": images(3).numpy()})[0])
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("wanted", "step"), [("0", 0), ("00000000", 0), ("00000007", 7)])
def test_a_checkpoint_is_chosen_by_its_step_the_untrained_networks_too(tmp_path, capsys, wanted, step):
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "config.yaml").write_text("run:\n  name: run\n")
    for at in (0, 7):
        checkpoint(tmp_path, widths=[4, 8], step=at).rename(f"run/checkpoints/step={at:08d}.ckpt")
    analyze.main(
        ["export", "run", f"checkpoint={wanted}", "format=safetensors", "image_size=32", "out=a.safetensors"]
    )
    with safe_open("a.safetensors", "pt") as opened:
        assert json.loads(opened.metadata()["step"]) == step
