"""Situations of public reports (docs/reports.md) that no other test is about."""

import gc
import io
import os
import struct
import zlib
from pathlib import Path

import lightning
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from vitrine.analyses import cam, pointing, saliency, visualization
from vitrine.analyses.layers import auto_layers
from vitrine.analyses.objectives import channel
from vitrine.attacks import APGD, FAB, FGSM, LBFGS, PGD, AutoAttack, Square, is_adversarial
from vitrine.datamodules.decoding import Decoding, UnreadableImage
from vitrine.datamodules.image_folders import list_images
from vitrine.examination.examiner import weights_hash
from vitrine.modules import Classifier, OptimizerSettings, load_checkpoint, load_network
from vitrine.modules.network_record import record_of
from vitrine.modules.objectives.standard import Standard

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
TARGETS = torch.tensor([1, 2])


def network() -> nn.Sequential:
    torch.manual_seed(0)
    first = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True)]
    second = [nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(inplace=True)]
    return nn.Sequential(*first, *second, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()


FUNCTIONS = {
    "grad_cam": lambda n: cam.grad_cam(n, IMAGES, TARGETS, "2"),
    "cam": lambda n: cam.cam(n, IMAGES, TARGETS),
    "input_gradient": lambda n: saliency.input_gradient(n, IMAGES, TARGETS),
    "guided_backprop": lambda n: saliency.guided_backprop(n, IMAGES, TARGETS),
    "guided_grad_cam": lambda n: saliency.guided_grad_cam(n, IMAGES, TARGETS, "2"),
    "occlusion": lambda n: saliency.occlusion(n, IMAGES, TARGETS, patch=8, stride=8),
    "deletion": lambda n: pointing.deletion(n, IMAGES, TARGETS, IMAGES[:, 0], steps=2)[1],
    "visualize": lambda n: visualization.visualize(n, [channel("2", 1)], size=16, steps=2, seed=0),
}
every = pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)


# networks


@every
@pytest.mark.parametrize(
    "convert", [torch.jit.script, lambda n: torch.jit.trace(n, IMAGES)], ids=["script", "trace"]
)
@pytest.mark.filterwarnings("ignore:`torch.jit:FutureWarning")
def test_torchscript_is_refused_in_one_line(function, convert):
    with pytest.raises(
        ValueError, match=r"^network: is TorchScript, .*; expected the module that it was made from$"
    ):
        function(convert(network()))


@every
def test_a_network_for_several_devices_is_examined_as_the_one_inside(function):
    made = function(nn.DataParallel(network()))
    assert torch.equal(torch.as_tensor(made), torch.as_tensor(function(network())))


def test_a_network_for_several_devices_has_the_names_and_weights_of_the_one_inside():
    assert auto_layers(nn.DataParallel(network()), IMAGES) == auto_layers(network(), IMAGES)
    assert weights_hash(nn.DataParallel(network())) == weights_hash(network())


@pytest.mark.parametrize(
    "name", ["grad_cam", "input_gradient", "guided_backprop", "guided_grad_cam", "occlusion"]
)
@pytest.mark.parametrize("shape", [[2, 6, 16, 16], [2]])
def test_an_output_that_is_no_logits_is_refused_in_one_line(name, shape):
    maps = network()[:4]
    wrong = maps if len(shape) == 4 else nn.Sequential(*network(), nn.Linear(4, 1), nn.Flatten(0))
    with pytest.raises(ValueError, match=r"^network: gives \[2.*\], expected logits \[N, K\]$") as refused:
        FUNCTIONS[name](wrong)
    assert str(shape) in str(refused.value)


@pytest.mark.slow
def test_nothing_stays_on_the_network_nor_in_memory():
    examined = network()

    def after() -> tuple[int, int]:
        for name in ("grad_cam", "guided_grad_cam", "visualize"):
            FUNCTIONS[name](examined)
        gc.collect()
        hooks = sum(len(m._forward_hooks) + len(m._backward_hooks) for m in examined.modules())
        return hooks, sum(type(thing) is Tensor for thing in gc.get_objects())

    first = after()
    assert first[0] == 0
    assert after() == first


# attacks


@pytest.mark.parametrize(
    ("images", "problem"),
    [
        (IMAGES * 4 - 2, "images lie between -2 and"),  # normalised
        (IMAGES * 255, "images lie between"),
        ((IMAGES * 255).byte(), "images are torch.uint8"),
    ],
)
def test_images_that_are_normalised_or_bytes_are_refused(images, problem):
    with pytest.raises(ValueError, match=rf"^{problem}.*expected .*\[0, 1\]"):
        PGD(eps=8 / 255, steps=1)(network(), images, TARGETS)


ATTACKS = [FGSM(eps=0.1), PGD(eps=0.1, steps=2), APGD(eps=0.1, steps=2), FAB(eps=0.1, steps=2)]
ATTACKS += [Square(eps=0.1, queries=3), AutoAttack(eps=0.1, steps=2, queries=3), LBFGS(searches=1, steps=2)]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: type(attack).__name__)
def test_images_that_are_all_misclassified_come_back(attack):
    labels = (network()(IMAGES).argmax(1) + 1) % 4
    adversarial = attack(network(), IMAGES, labels)
    assert is_adversarial(network(), adversarial, labels).all()
    assert (adversarial - IMAGES).abs().max() <= 0.1 + 1e-6


@pytest.mark.filterwarnings("error")
def test_more_target_classes_than_there_are_mean_all():
    labels = network()(IMAGES).argmax(1)
    three, many = (AutoAttack(eps=0.1, steps=2, queries=3, targets=count) for count in (3, 9))
    assert torch.equal(many(network(), IMAGES, labels), three(network(), IMAGES, labels))


# checkpoints


def test_a_checkpoint_that_names_a_function_to_build_it_with_calls_none(tmp_path, monkeypatch):
    called: list[object] = []
    monkeypatch.setattr(os, "build", lambda *arguments: called.append(arguments), raising=False)
    saved = load_network("convnet", classes=["a", "b"], widths=[4])
    checkpoint = {
        "state_dict": {f"network.{name}": value for name, value in saved.state_dict().items()},
        "vitrine": {"spec": record_of(saved).spec, "classes": ["a", "b"], "step": 1},
        "hyper_parameters": {"_instantiator": "os.build", "_class_path": "os.build"},
        "pytorch-lightning_version": lightning.__version__,
    }
    torch.save(checkpoint, tmp_path / "a.ckpt")
    assert weights_hash(load_checkpoint(tmp_path / "a.ckpt")) == weights_hash(saved)
    assert called == []


# images


def encoded(image: Image.Image, kind: str, **options) -> io.BytesIO:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return io.BytesIO(buffer.getvalue())


COLOURS = np.array(
    [[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0], [0, 0, 0], [255, 255, 255]], np.uint8
)
PATCHES = COLOURS.repeat(16, 0).reshape(6, 16, 3).repeat(16, 0)  # six stripes


@pytest.mark.parametrize("kind", ["PNG", "GIF", "TIFF", "BMP"])
def test_a_palette_is_looked_up(kind):
    image = Image.fromarray(PATCHES).convert("P", palette=Image.Palette.ADAPTIVE, colors=6)
    assert np.array_equal(np.array(Decoding(3).decode(encoded(image, kind), "x")), PATCHES)


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_printing_colours_are_no_negative(kind):
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    decoded = Decoding(3).decode(encoded(Image.fromarray(PATCHES).convert("CMYK"), kind, **options), "x")
    assert abs(np.array(decoded).astype(int) - PATCHES).max() < 8


@pytest.mark.parametrize("mode", ["RGBA", "LA", "PA"])
def test_opaque_images_lose_their_alpha_channel_alone(mode):
    colours = Image.fromarray(PATCHES)
    image = {"RGBA": colours, "LA": colours.convert("L"), "PA": colours.quantize(6)}[mode].convert(mode)
    kind = "TIFF" if mode == "PA" else "PNG"
    expected = np.array(colours.convert("L").convert("RGB") if mode == "LA" else colours)
    assert np.array_equal(np.array(Decoding(3).decode(encoded(image, kind), "x")), expected)


def test_an_image_too_large_to_be_one_is_refused_by_name(tmp_path: Path):
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 1, 0, 0, 0, 0))
    file = tmp_path / "bomb.png"
    file.write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b""))
    with pytest.raises(UnreadableImage, match=r"bomb\.png cannot be read as an image"):
        Decoding(3).decode(file, file)


@pytest.mark.parametrize("empty", [False, True], ids=["absent", "empty"])
def test_a_class_that_validation_lacks_shifts_no_label(tmp_path: Path, empty: bool):
    for split, classes in (("train", "abc"), ("val", "ac")):
        for name in classes:
            (tmp_path / split / name).mkdir(parents=True)
            Image.fromarray(PATCHES).save(tmp_path / split / name / "x.png")
    if empty:
        (tmp_path / "val" / "b").mkdir()
    classes, splits = list_images(str(tmp_path))
    assert classes == ["a", "b", "c"]
    assert [(file.parent.name, label) for file, label in splits["val"]] == [("a", 0), ("c", 2)]


# metrics


class HalfPrecision(nn.Module):
    """Logits that are the images' first values, in bfloat16."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :2].bfloat16()


def test_means_over_a_validation_in_half_precision_are_taken_in_full():
    module = Classifier(HalfPrecision(), Standard(), OptimizerSettings(), ["a", "b"])
    generator = torch.Generator().manual_seed(0)
    losses = []
    for _ in range(400):  # a mean kept in bfloat16 would stay where an addend is below its last bit
        images, labels = (
            torch.rand(4, 3, 2, 2, generator=generator),
            torch.randint(2, (4,), generator=generator),
        )
        with torch.autocast("cpu", torch.bfloat16):
            module.validation_step((images, labels), 0)
        losses.append(F.cross_entropy(HalfPrecision()(images).double(), labels))
    assert float(module.metrics.loss.compute()) == pytest.approx(float(torch.stack(losses).mean()), rel=1e-5)
