"""How a network's library makes the network's input of a photograph, and how it normalises it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_NO_CROP_FROM = 384  # pixels: ConvNeXt's processor crops nothing of larger images
_BY_SHORTEST_EDGE = ("Bit", "CLIP", "ConvNext", "Levit", "MobileNet", "MobileViT", "PoolFormer", "Siglip")


@dataclass(frozen=True)
class Preprocessing:
    """The usual way to a network's input, with the words of `data.fit` and `data.interpolation`."""

    image_size: int  # pixels a side
    resize: int  # of the shorter side before the center crop to `image_size`; where nothing is cropped, that
    fit: str = "crop"
    interpolation: str = "bilinear"


def of_timm(config: Mapping[str, Any]) -> Preprocessing | None:
    """That of a data config of timm; None where images are no squares.

    Images that timm stretches and crops then (of NFNet-F alone) are stretched to their size without a crop.
    """
    _, height, width = config["input_size"]
    if height != width or config["interpolation"] not in _INTERPOLATIONS.values():
        return None
    fit = {"squash": "stretch", "border": "letterbox"}.get(config.get("crop_mode") or "center", "crop")
    resize = int(height / config["crop_pct"]) if fit == "crop" else height
    return Preprocessing(height, resize, fit, config["interpolation"])


def of_processor(config: Mapping[str, Any]) -> Preprocessing | None:
    """That of a preprocessor_config.json of transformers; None where it says nothing that can be followed."""
    size, crop_pct = config.get("size"), config.get("crop_pct")
    interpolation = _INTERPOLATIONS.get(config.get("resample", 2))
    if config.get("do_resize") is False or interpolation is None:
        return None
    crops = bool(config.get("do_center_crop"))
    shortest = _shortest_edge(config)
    side = _side(size) if shortest is None else shortest
    crop = _side(config["crop_size"]) if crops and config.get("crop_size") is not None else side
    if side is None or crop is None:
        return None
    if shortest is None:
        return Preprocessing(side, side, "stretch", interpolation) if crop == side else None
    if crop_pct and not crops and shortest >= _NO_CROP_FROM:
        return Preprocessing(shortest, shortest, "stretch", interpolation)
    resize = shortest
    if crop_pct:
        resize = int(shortest / crop_pct)
    elif _kind(config).startswith("Levit"):
        resize = int(256 / 224 * shortest)
    return Preprocessing(crop, resize, "crop", interpolation) if resize >= crop else None


def statistics_of_processor(
    config: Mapping[str, Any], channels: int
) -> tuple[list[float], list[float]] | None:
    """The mean and std of [0, 1] pixels by which a processor normalises; None where they are not known."""
    found = config.get("image_mean"), config.get("image_std")
    known = all(isinstance(values, list) and len(values) == channels for values in found)
    normalises = config.get("do_normalize") is not False
    efficient = _kind(config).startswith("EfficientNet")
    twice = efficient and config.get("include_top", True)  # divided by the std
    if (normalises or twice) and not known:
        return None
    mean, std = found if normalises else ([0.0] * channels, [1.0] * channels)
    if twice:
        std = [value * again for value, again in zip(std, found[1])]
    if config.get("do_rescale") is False:
        return mean, std
    white = 255 * (config.get("rescale_factor") or 1 / 255)
    offset = bool(efficient and config.get("rescale_offset"))
    if math.isclose(white, 1, rel_tol=1e-6) and not offset:
        return mean, std
    return [(value + offset) / white for value in mean], [value / white for value in std]


def takes_bgr(config: Mapping[str, Any]) -> bool:
    """Whether a processor gives the network blue, green and red instead of red, green and blue."""
    kind = _kind(config)
    flips = config.get("do_flip_channel_order") is not False
    return kind.startswith("PPLCNet") or (kind.startswith("MobileViT") and flips)


def _shortest_edge(config: Mapping[str, Any]) -> int | None:
    """The pixels of the shorter side after resizing; None where both sides are given.

    In files before 2022 a size is one number, which is a square's side for some kinds of processor.
    """
    size, kind = config.get("size"), _kind(config)
    if isinstance(size, Mapping):
        return size.get("shortest_edge")
    if kind:
        return size if kind.startswith(_BY_SHORTEST_EDGE) else None
    return size if config.get("crop_pct") or config.get("do_center_crop") else None


def _kind(config: Mapping[str, Any]) -> str:
    return str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")


def _side(size: Any) -> int | None:
    """The side of a square that a processor's size describes."""
    if isinstance(size, int):
        return size
    if isinstance(size, Mapping) and size.get("height") == size.get("width"):
        return size.get("height")
    return None
