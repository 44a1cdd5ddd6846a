"""Traffic signs drawn into cluttered scenes, with masks of the signs: the splits of `signs`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from vitrine.core.random_numbers import fold_in, make_key, uniform
from vitrine.datamodules.drawing.faces import CLASSES
from vitrine.datamodules.drawing.parts import CLASS_PARTS, PARTS, part_masks, with_other_parts, without_parts
from vitrine.datamodules.drawing.scene import Drawing, Scene, compose, render
from vitrine.datamodules.drawn_images import DrawnImages, map_in_threads

if TYPE_CHECKING:
    from vitrine.datamodules.signs import SignsSettings

_TRAIN, _VAL, _STICKERS, _TEST = range(4)  # purposes of random numbers
_PIXELS = 2**20  # drawn at once by a thread: about 150 MB of intermediate results

Result = TypeVar("Result", Tensor, tuple[Tensor, ...])


def make_split(settings: SignsSettings, seed: int, name: str) -> SignImages:
    """The split "train", "val" or "test"."""
    size = settings.image_size
    match name:
        case "train":
            key, altered = make_key(seed, _TRAIN), (settings.shortcut, settings.contrast)
            return SignImages(key, settings.train_size, size, *altered)
        case "val":
            return SignImages(make_key(seed, _VAL), settings.val_size, size)
        case _:
            return SignImages(make_key(seed, _TEST), settings.test_size, size)


class SignImages(DrawnImages):
    """A split of `size` scenes.

    Args:
        shortcut: fraction of the scenes with the sticker of their class.
        contrast: of the signs' colours; 1: as they are, 0: gray.
    """

    parts = PARTS
    class_parts = CLASS_PARTS
    shortcuts = ("sticker",)

    def __init__(
        self, seed: int, size: int, image_size: int = 64, shortcut: float = 0.0, contrast: float = 1.0
    ):
        super().__init__(seed, torch.arange(size) % len(CLASSES), image_size)
        self.shortcut, self.contrast = shortcut, contrast
        chance = uniform(fold_in(torch.tensor(make_key(seed, _STICKERS)), torch.arange(size)), 1)[:, 0]
        self.stickers = chance < shortcut  # bool, [size]

    def draw_images(self, indices: Tensor) -> Tensor:
        return self.draw(indices).images

    def masks(self, indices: Tensor) -> dict[str, Tensor]:
        """The pixels that show the sign (without what occludes it) and the sticker: bool [n, H, W] each."""
        drawing = self.draw(torch.as_tensor(indices))
        return {"sign": drawing.sign, "sticker": drawing.sticker}

    def part_masks(self, indices: Tensor) -> dict[str, Tensor]:
        """The pixels that show each part of the scene, without what occludes it: bool [n, H, W] by name."""
        masks = self._map(lambda some: part_masks(self._scene(some), self.image_size), indices)
        return dict(zip(PARTS, masks.unbind(1)))

    def without_parts(self, indices: Tensor, left_out: Tensor) -> Tensor:
        """The images, uint8 [n, 3, H, W], without some of PARTS (bool [n, parts]): what is behind shows."""

        def draw(some: Tensor, parts: Tensor) -> Tensor:
            return without_parts(self._scene(some), self.image_size, parts)

        return self._map(draw, indices, _expect_parts("left_out", left_out, indices))

    def with_other_parts(self, indices: Tensor, replaced: Tensor) -> Tensor:
        """The images, uint8 [n, 3, H, W], with some of CLASS_PARTS of another class (bool [n, parts], in the
        order of PARTS)."""

        def draw(some: Tensor, parts: Tensor) -> Tensor:
            scene = self._scene(some)
            drawn = self.drawn[some]
            return with_other_parts(scene, self.image_size, self.seed, some, drawn, parts, self.contrast)

        return self._map(draw, indices, _expect_parts("replaced", replaced, indices, CLASS_PARTS))

    def draw(self, indices: Tensor) -> Drawing:
        """Draws the scenes at `indices`: images and masks."""
        fields = self._map(lambda some: render(self._scene(some), self.image_size), indices)
        return Drawing(*fields)

    def with_stickers(self, shortcut: float = 1.0) -> SignImages:
        """The same scenes, that fraction of them with stickers."""
        copy = SignImages(self.seed, len(self), self.image_size, shortcut, self.contrast)
        copy.labels, copy.mislabeled = self.labels, self.mislabeled
        return copy

    def _scene(self, indices: Tensor) -> Scene:
        return compose(self.seed, indices, self.drawn[indices], self.stickers[indices], self.contrast)

    def _map(self, draw: Callable[..., Result], *of_scenes: Tensor) -> Result:
        """What is drawn of scenes, chunk by chunk: of tensors that have a row a scene, the indices first."""
        pixels = max(_PIXELS // self.image_size**2, 1)
        chunks = list(zip(*(torch.as_tensor(rows).split(pixels) for rows in of_scenes)))
        return _joined(map_in_threads(lambda chunk: draw(*chunk), chunks))


def _expect_parts(name: str, chosen: Tensor, indices: Tensor, allowed: Sequence[str] = PARTS) -> Tensor:
    """Parts [n, parts] that are chosen of scenes.

    Raises:
        ValueError: they are not bool of that shape, or other parts are chosen than are allowed.
    """
    if chosen.dtype != torch.bool or chosen.shape != (len(indices), len(PARTS)):
        actual = f"{chosen.dtype} {list(chosen.shape)}"
        raise ValueError(f"{name}: is {actual}, expected bool {[len(indices), len(PARTS)]}")
    for part, some in zip(PARTS, chosen.any(0).tolist()):
        if some and part not in allowed:
            raise ValueError(f"{name}: {part!r} is no class's own, expected {', '.join(allowed)}")
    return chosen


def _joined(results: list[Result]) -> Result:
    """Tensors, or tuples of tensors, one behind the other."""
    if isinstance(results[0], Tensor):
        return torch.cat(results)
    return tuple(torch.cat(fields) for fields in zip(*results))
