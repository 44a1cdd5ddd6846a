"""Photographs on their way into networks of timm and transformers, as those libraries transform them."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from vitrine import assembly, config
from vitrine.datamodules.files import ImageFiles
from vitrine.modules.preprocessing import Preprocessing, of_processor, statistics_of_processor


@pytest.fixture
def photograph(tmp_path):
    """Smooth, wider than high, as `folder/c/0.png`, beside one of another class."""
    coarse = np.random.default_rng(0).integers(0, 256, (9, 13, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((400, 300), Image.Resampling.BICUBIC)
    for split, name in (("train", "a"), ("train", "b"), ("val", "a")):
        (tmp_path / "data" / split / name).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "data" / split / name / "0.png")
    return image


def ours(photograph, tmp_path, own):
    options = {"image_size": own.image_size, "fit": own.fit, "interpolation": own.interpolation}
    if own.fit == "crop":
        options["resize"] = own.resize
    return ImageFiles([tmp_path / "data/val/a/0.png"], torch.tensor([0]), **options)[0][0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("resnet10t", Preprocessing(176, 201, "crop", "bicubic")),
        ("vit_tiny_patch16_224", Preprocessing(224, 248, "crop", "bicubic")),
        ("resnet18", Preprocessing(224, 235, "crop", "bicubic")),
        ("inception_v3", None),
        ("coat_lite_medium_384", Preprocessing(384, 384, "stretch", "bicubic")),
        ("deepseek_vit_412m", None),
    ],
)
def test_images_are_those_of_timms_transform(photograph, tmp_path, name, expected):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    from timm.data import create_transform, resolve_data_config

    from vitrine.modules import timm_networks

    own = timm_networks.preprocessing(f"timm/{name}")
    assert expected is None or own == expected
    known = resolve_data_config({}, pretrained_cfg=timm.get_pretrained_cfg(name).to_dict(), verbose=False)
    theirs = create_transform(**{**known, "mean": (0, 0, 0), "std": (1, 1, 1)}, is_training=False)
    difference = (ours(photograph, tmp_path, own) / 255 - theirs(photograph)).abs()
    # letterboxes differ in their background, and by half a pixel in where they put the image
    inside = (
        difference[:, own.image_size // 3 : -(own.image_size // 3)] if own.fit == "letterbox" else difference
    )
    assert inside.max() < (0.1 if own.fit == "letterbox" else 1e-6)


SQUARE = {"height": 96, "width": 96}
PROCESSORS = {  # with the keys that files have; until 2022 sizes were one number
    "vit": ({"size": SQUARE, "resample": 2, "do_resize": True}, "ViTImageProcessor", 96, "stretch"),
    "convnext": (
        {"size": {"shortest_edge": 96}, "crop_pct": 0.875, "resample": 3},
        "ConvNextImageProcessor", 109, "crop",
    ),
    "deit": (
        {"size": {"shortest_edge": 112}, "do_center_crop": True, "crop_size": SQUARE, "resample": 3,
         "do_resize": True},
        "CLIPImageProcessor", 112, "crop",
    ),
    "old vit": (
        {"size": 96, "resample": 2, "feature_extractor_type": "ViTFeatureExtractor"},
        "ViTImageProcessor", 96, "stretch",
    ),
    "old resnet": (
        {"size": 96, "crop_pct": 0.875, "resample": 3, "feature_extractor_type": "ConvNextFeatureExtractor"},
        "ConvNextImageProcessor", 109, "crop",
    ),
    "old levit": (
        {"size": 96, "do_center_crop": True, "resample": 3,
         "feature_extractor_type": "LevitFeatureExtractor"},
        "LevitImageProcessor", 109, "crop",
    ),
    "levit": (
        {"size": {"shortest_edge": 96}, "do_center_crop": True, "crop_size": SQUARE, "resample": 3,
         "image_processor_type": "LevitImageProcessor"},
        "LevitImageProcessor", 109, "crop",
    ),
    "old poolformer": (
        {"size": 96, "crop_pct": 0.9, "do_center_crop": True, "resample": 3,
         "feature_extractor_type": "PoolFormerFeatureExtractor"},
        "PoolFormerImageProcessor", 106, "crop",
    ),
    "poolformer": (
        {"size": {"shortest_edge": 96}, "crop_pct": 0.9, "do_center_crop": True, "crop_size": SQUARE,
         "resample": 3, "image_processor_type": "PoolFormerImageProcessor"},
        "PoolFormerImageProcessor", 106, "crop",
    ),
    "old clip": (
        {"size": 96, "do_center_crop": True, "crop_size": 96, "resample": 3,
         "feature_extractor_type": "CLIPFeatureExtractor"},
        "CLIPImageProcessor", 96, "crop",
    ),
    "old mobilevit": (
        {"size": 108, "do_center_crop": True, "crop_size": 96, "resample": 2, "do_flip_channel_order": False,
         "feature_extractor_type": "MobileViTFeatureExtractor"},
        "MobileViTImageProcessor", 108, "crop",
    ),
    "of no kind": (
        {"size": 96, "do_center_crop": True, "crop_size": 96, "resample": 3}, "CLIPImageProcessor", 96, "crop"
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", PROCESSORS)
def test_images_are_resized_and_cropped_as_the_processor_does(kind):
    content, _, resize, fit = PROCESSORS[kind]
    own = of_processor(content)
    assert (own.image_size, own.resize, own.fit) == (96, resize, fit)


@pytest.mark.parametrize("kind", PROCESSORS)
def test_images_are_those_of_the_processor(photograph, tmp_path, kind):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    content, name, _, _ = PROCESSORS[kind]
    own = of_processor(content)
    content = {"crop_size": SQUARE, **content, "do_normalize": False, "do_rescale": False}
    processor = getattr(transformers, name)(**content)
    theirs = torch.as_tensor(processor(photograph, return_tensors="pt")["pixel_values"][0]).float()
    assert (ours(photograph, tmp_path, own).float() - theirs).abs().max() <= 2


HALVES = {"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5, 0.25, 0.5]}
NORMALISED = {  # by: keys of a file, what black and white of the first channels become
    "vit": ({**HALVES, "image_processor_type": "ViTImageProcessor"}, (-1, -2), (1, 2)),
    "efficientnet": ({**HALVES, "image_processor_type": "EfficientNetImageProcessor"}, (-2, -8), (2, 8)),
    "efficientnet's features": (
        {**HALVES, "image_processor_type": "EfficientNetImageProcessor", "include_top": False},
        (-1, -2), (1, 2),
    ),
    "offset": (
        {**HALVES, "image_processor_type": "EfficientNetImageProcessor", "include_top": False,
         "rescale_factor": 1 / 127.5, "rescale_offset": True, "do_normalize": False},
        (-1, -1), (1, 1),
    ),
    "another white": (
        {**HALVES, "image_processor_type": "ViTImageProcessor", "rescale_factor": 1 / 127.5}, (-1, -2), (3, 6)
    ),
    "bytes to 1": (
        {"do_normalize": False, "image_processor_type": "ViTImageProcessor"}, (0, 0), (1, 1)
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", NORMALISED)
def test_images_are_normalised_as_by_the_processor(kind):
    content, black, white = NORMALISED[kind]
    mean, std = statistics_of_processor(content, 3)
    assert [(0 - m) / s for m, s in zip(mean, std)][:2] == pytest.approx(black)
    assert [(1 - m) / s for m, s in zip(mean, std)][:2] == pytest.approx(white)
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    processor = getattr(transformers, content["image_processor_type"])(**content, do_resize=False)
    for level, expected in ((0, black), (255, white)):
        image = Image.new("RGB", (4, 4), (level,) * 3)
        theirs = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"][0])
        assert theirs[:2, 0, 0].tolist() == pytest.approx(expected)


def test_a_normalisation_for_other_channels_is_not_known():
    assert statistics_of_processor(HALVES, 4) is None
    assert statistics_of_processor({"do_normalize": False}, 4) == ([0.0] * 4, [1.0] * 4)


def test_what_cannot_be_followed_is_none():
    for content in (
        {"do_resize": False},
        {},
        {"size": {"height": 3, "width": 4}},
        {"size": 32, "resample": 4},
        {"size": 32, "do_center_crop": True, "crop_size": 24, "image_processor_type": "DeiTImageProcessor"},
        {"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": 36},
    ):
        assert of_processor(content) is None
    assert of_processor({"size": 32}) == Preprocessing(32, 32, "stretch", "bilinear")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], (224, 235, "crop", "bicubic")),
        (["data.image_size=64"], (64, 67, "crop", "bicubic")),
        (["data.resize=300", "data.interpolation=bilinear"], (224, 300, "crop", "bilinear")),
        (["data.fit=letterbox", "data.image_size=64"], (64, 0, "letterbox", "bicubic")),
        (["data.fit=stretch"], (224, 0, "stretch", "bicubic")),
        (["data.fit=crop", "data.image_size=64"], (64, 67, "crop", "bicubic")),
        (["data.fit=crop"], (224, 235, "crop", "bicubic")),
    ],
)
@pytest.mark.parametrize("library", ["timm", "stand-in"])
def test_a_run_adopts_what_its_settings_leave_open(
    photograph, tmp_path, monkeypatch, library, words, expected
):
    if library == "timm":
        pytest.importorskip("timm", reason="timm is not installed")
    else:
        zoo = SimpleNamespace(preprocessing=lambda name: Preprocessing(224, 235, "crop", "bicubic"))
        monkeypatch.setattr("vitrine.assembly.parts.zoo_of", lambda name: zoo)
    root = ["data.name=folder", f"data.root={tmp_path / 'data'}", f"run.root={tmp_path / 'runs'}"]
    network = "timm/resnet18" if library == "timm" else "convnet"
    settings = config.load_run([f"model.name={network}", *root, *words])
    data = assembly.build_data(settings)
    assert data.train[0][0].shape[-1] == expected[0]
    found = dataclasses.asdict(settings.data)
    assert tuple(found[key] for key in ("image_size", "resize", "fit", "interpolation")) == expected


def test_other_networks_change_nothing(photograph, tmp_path):
    root = ["data.name=folder", f"data.root={tmp_path / 'data'}", "data.image_size=32"]
    settings = config.load_run([*root, f"run.root={tmp_path / 'runs'}"])
    assembly.build_data(settings)
    assert (settings.data.resize, settings.data.fit, settings.data.interpolation) == (0, "auto", "auto")
    assert json.dumps(dataclasses.asdict(settings.data))
