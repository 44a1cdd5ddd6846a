"""How a network's library makes the network's input of a photograph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

_INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers
_NO_CROP_FROM = 384  # pixels: ConvNeXt's processor crops nothing of larger images


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
    size, crop = config.get("size"), config.get("crop_size")
    interpolation = _INTERPOLATIONS.get(config.get("resample", 2))
    if config.get("do_resize") is False or interpolation is None:
        return None
    crops = bool(config.get("do_center_crop")) and crop is not None
    crop = _side(crop) if crops else None
    shortest = size.get("shortest_edge") if isinstance(size, Mapping) else None
    if shortest is not None and not crops:
        if config.get("crop_pct") and shortest < _NO_CROP_FROM:
            return Preprocessing(shortest, int(shortest / config["crop_pct"]), "crop", interpolation)
        return Preprocessing(
            shortest, shortest, "stretch" if config.get("crop_pct") else "crop", interpolation
        )
    if shortest is not None:
        return None if crop is None else Preprocessing(crop, shortest, "crop", interpolation)
    side = _side(size)
    if side is None or (crops and crop != side):
        return None
    return Preprocessing(side, side, "stretch", interpolation)


def _side(size: Any) -> int | None:
    """The side of a square that a processor's size describes."""
    if isinstance(size, int):
        return size
    if isinstance(size, Mapping) and size.get("height") == size.get("width"):
        return size.get("height")
    return None
