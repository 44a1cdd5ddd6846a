"""Classes and labels from texts, as tables and archives have them: names, or integers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence

import torch
from torch import Tensor

from vitrine.core.registry import nearest
from vitrine.core.settings import SettingError

NO_MULTI_LABEL = "images with more than one label (multi-label) are not supported"
_INTEGER = re.compile(r"[+-]?\d+(\.0+)?")  # pandas writes 3.0 where a column had a gap
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")
_SEVERAL = re.compile(r"[;|]")


def number_labels(
    texts: Sequence[str], key: str, where: Callable[[int], str], given: Sequence[str] | None = None
) -> tuple[list[str], Tensor]:
    """Class names, and the label of each text.

    Names are sorted; where all labels are integers, their classes are in numerical order.

    Args:
        texts: a label for each image.
        key: the setting that errors name.
        where: says in a few words which image the text at an index belongs to.
        given: all classes in order; texts are their names, or their indices from 0.

    Returns:
        The names, and the labels, int64 [N].

    Raises:
        SettingError: a label is missing, unknown, out of range, or is several labels or a measurement.
    """
    texts = [text.strip() for text in texts]
    first = {text: i for i, text in reversed(list(enumerate(texts)))}  # of each text, where it occurs first
    for empty in ("", *_missing_numbers(first, given)):
        if empty in first:
            count = texts.count(empty)
            came = f", but {empty}" if empty else ""
            more = f", nor have {count - 1} others" if count > 1 else ""
            raise SettingError(key, f"{where(first[empty])} has no label{came}{more}")
    integers = all(_INTEGER.fullmatch(text) for text in first)
    if given is not None:
        names = [str(name) for name in given]
        if len(set(names)) < len(names):
            raise SettingError("data.classes", "has a name twice")
        label_of = {name: label for label, name in enumerate(names)}
        if integers and not set(first) <= set(names):
            label_of = {text: _in_range(text, len(names), key, where(i)) for text, i in first.items()}
    else:
        _refuse_what_is_no_class(first, key, where, integers)
        keys = {text: _as_integer(text) if integers else text for text in first}
        order = sorted(set(keys.values()))
        label = {value: i for i, value in enumerate(order)}
        names, label_of = [str(value) for value in order], {text: label[v] for text, v in keys.items()}
    for text, i in first.items():
        if text not in label_of:
            close = nearest(text, names, most=1)
            hint = f"; did you mean {close[0]!r}?" if close else f": {', '.join(names[:8])}"
            raise SettingError(key, f"{where(i)} has label {text!r}, which is none of data.classes{hint}")
    return names, torch.tensor([label_of[text] for text in texts], dtype=torch.int64)


def _as_integer(text: str) -> int:
    return int(text.partition(".")[0])  # exact: a float has 53 bits


def _missing_numbers(texts: Collection[str], given: Sequence[str] | None) -> list[str]:
    """What stands for a missing number where all other labels are numbers: nan."""
    missing = [text for text in texts if text.lower() == "nan" and text not in (given or ())]
    others = [text for text in texts if text not in missing]
    return missing if others and all(_NUMBER.fullmatch(text) for text in others) else []


def _in_range(text: str, count: int, key: str, place: str) -> int:
    label = _as_integer(text)
    if not 0 <= label < count:
        expected = f"expected 0 to {count - 1}, as data.classes has {count} names"
        raise SettingError(key, f"{place} has label {text}, which is out of range: {expected}")
    return label


def _refuse_what_is_no_class(
    first: dict[str, int], key: str, where: Callable[[int], str], integers: bool
) -> None:
    """Raise SettingError for labels that are below 0, fractions, or several classes at once."""
    if integers:
        for text, i in first.items():
            if _as_integer(text) < 0:
                problem = f"has label {text}, which is out of range: expected a name, or an integer from 0"
                raise SettingError(key, f"{where(i)} {problem}")
    elif all(_NUMBER.fullmatch(text) for text in first):
        text = next(text for text in first if not _INTEGER.fullmatch(text))
        problem = f"has label {text}: a measurement is no class, expected names or integers"
        raise SettingError(key, f"{where(first[text])} {problem}")
    # `a;b` are two labels where `a` stands elsewhere, too, alone or beside others; else a name with a ;
    texts_with = defaultdict(set)
    several = {text: [part.strip() for part in _SEVERAL.split(text)] for text in first}
    for text, parts in several.items():
        for part in parts:
            texts_with[part].add(text)
    for text, i in first.items():
        is_list = text[:1] + text[-1:] in ("[]", "()", "{}") and "," in text
        shared = len(several[text]) > 1 and any(len(texts_with[part]) > 1 for part in several[text])
        if is_list or shared:
            problem = f"has several labels, {text!r}: {NO_MULTI_LABEL}, expected one class an image"
            raise SettingError(key, f"{where(i)} {problem}")
