"""The normalisation that somebody's data set applies to its images, found in its transforms."""

from __future__ import annotations

import contextlib
import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

MeanStd = tuple[tuple[float, ...], tuple[float, ...]]

_DEPTH = 8  # of objects within objects: a Subset of a ConcatDataset of a data set, its transforms, their list
_READS = ("__getitem__", "__getitems__", "__iter__", "__call__")  # whose global variables may be transforms
_PLAIN = (str, bytes, int, float, bool, complex, type, types.ModuleType, Tensor)


def find_normalizations(*places: Any) -> list[MeanStd]:
    """The different (mean, std) of [0, 1] pixels, per channel, by which images are normalised.

    Read from objects of a class `Normalize` (torchvision's transforms v1 and v2, albumentations, Kornia) and
    from image processors of Hugging Face, wherever they lie in these places: in attributes and containers, in
    a class, in a function's closure, or in the global variables that a function or a data set's method names.

    Args:
        places: a data set, a collate function, ...

    Raises:
        ValueError: each image is normalised by its own statistics, which nothing can undo.
    """
    found: list[MeanStd] = []
    for candidate in reachable(places):
        statistics = _statistics(candidate)
        if statistics is not None and statistics not in found:
            found.append(statistics)
    return found


def _statistics(candidate: Any) -> MeanStd | None:
    kind = type(candidate).__name__
    if kind == "Normalize" and hasattr(candidate, "mean") and hasattr(candidate, "std"):
        if (by := getattr(candidate, "normalization", "standard")) in ("image", "image_per_channel"):
            problem = "normalises each image by its own statistics, which cannot be undone"
            raise ValueError(f"data: Normalize(normalization={by!r}) {problem}: expected fixed mean and std")
        if by != "standard":  # albumentations' to [0, 1]
            return None
        mean, std = _numbers(candidate.mean), _numbers(candidate.std)
        if max(mean, default=0) > 1 and getattr(candidate, "max_pixel_value", None) == 1:  # of bytes
            return tuple(m / 255 for m in mean), tuple(s / 255 for s in std)
        return mean, std
    flags = getattr(candidate, "flags", None)
    if kind == "Normalize" and isinstance(flags, Mapping) and {"mean", "std"} <= flags.keys():  # Kornia's
        return _numbers(flags["mean"]), _numbers(flags["std"])
    if getattr(candidate, "do_normalize", False) and hasattr(candidate, "image_mean"):
        return _numbers(candidate.image_mean), _numbers(candidate.image_std)
    return None


def _numbers(values: Any) -> tuple[float, ...]:
    if isinstance(values, Tensor):
        values = values.flatten().tolist()
    return tuple(float(v) for v in (values if hasattr(values, "__iter__") else [values]))


def reachable(places: Any) -> Iterator[Any]:
    """All objects in `places` and within them, each once, nearest first."""
    seen: set[int] = set()
    level = list(places)
    for _ in range(_DEPTH):
        below: list[Any] = []
        for thing in level:
            if id(thing) in seen or thing is None or isinstance(thing, _PLAIN):
                continue
            seen.add(id(thing))
            yield thing
            below += _within(thing)
        level = below


def _is_object(value: Any) -> bool:
    """Whether an attribute of a class may be a transform, and is no method or constant of it."""
    return hasattr(value, "__dict__") and not isinstance(
        value, (*_PLAIN, types.FunctionType, staticmethod, classmethod, property)
    )


def _global_names(code: types.CodeType) -> Iterator[str]:
    """The names that a function's code may read from its module; that of its comprehensions and inner
    functions too, which are code objects of their own."""
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _global_names(constant)


def _within(thing: Any) -> list[Any]:
    if isinstance(thing, Mapping):
        return list(thing.values())[:100]
    if isinstance(thing, (list, tuple)):
        return list(thing)[:100]  # more are data, not transforms
    if isinstance(thing, functools.partial):
        return [thing.func, *thing.args, *thing.keywords.values()]
    if isinstance(thing, types.MethodType):
        return [thing.__func__, thing.__self__]
    if isinstance(thing, types.FunctionType):
        cells = []
        for cell in thing.__closure__ or ():
            with contextlib.suppress(ValueError):  # not assigned yet
                cells.append(cell.cell_contents)
        named = [thing.__globals__.get(name) for name in _global_names(thing.__code__)]
        return [*cells, *named, *(thing.__defaults__ or ())]
    of_class = [value for kind in type(thing).__mro__ for name, value in vars(kind).items() if name in _READS]
    of_class += [
        value for kind in type(thing).__mro__[:-1] for value in vars(kind).values() if _is_object(value)
    ]
    inner = [*getattr(thing, "__dict__", {}).values(), *of_class]
    # the transform of a Hugging Face data set, which `set_transform` was given
    return (
        [*inner, getattr(thing, "format", None)] if type(thing).__module__.startswith("datasets") else inner
    )
