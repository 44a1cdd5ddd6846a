"""Class names: as keys, each of another class, and compared with those that a network was trained with."""

from collections import Counter
from collections.abc import Sequence

from vitrine.core.settings import SettingError


def unique_names(classes: Sequence[str]) -> list[str]:
    """The class names, with the label behind each that another class has too (ImageNet has two cranes)."""
    counts = Counter(map(str, classes))
    return [
        str(name) if counts[str(name)] == 1 else f"{name} ({label})" for label, name in enumerate(classes)
    ]


def first_moved(names: Sequence[str], known: Sequence[str]) -> int | None:
    """The first label in `names` whose name has another label in `known`; None: no class has moved.

    Names that occur twice do not count, and numbers, which may be no more than labels, only if both have the
    same.
    """
    same = set(names) == set(known)
    if not same and (_are_numbers(names) or _are_numbers(known)):
        return None
    once = {name for name, count in Counter(known).items() if count == 1}
    once &= {name for name, count in Counter(names).items() if count == 1}
    pairs = enumerate(zip(names, known))
    return next((i for i, (name, other) in pairs if name != other and name in once), None)


def first_renamed(names: Sequence[str], known: Sequence[str]) -> int | None:
    """The first label that has another name in `known`; None: none has, or one of both has numbers alone."""
    if _are_numbers(names) or _are_numbers(known):
        return None
    return next((i for i, (name, other) in enumerate(zip(names, known)) if name != other), None)


def refuse_other_classes(names: Sequence[str], trained: Sequence[str] | None, source: object) -> None:
    """Raise SettingError if classes of data are not those that a network of ours was trained with.

    Args:
        trained: as its checkpoint has them; None or empty: unknown.
        source: the checkpoint, for messages.
    """
    if not trained or list(names) == list(trained):
        return
    if len(names) != len(trained):
        raise SettingError("data", f"has {len(names)} classes, but {source} was trained on {len(trained)}")
    label = first_moved(names, trained)
    label = first_renamed(names, trained) if label is None else label
    if label is not None:
        problem = f"has other classes than {source} was trained on: label {label} is {names[label]!r}"
        raise SettingError(
            "data", f"{problem}, and was {trained[label]!r}; expected the same names and order"
        )


def _are_numbers(names: Sequence[str]) -> bool:
    return all(name.isdecimal() for name in names)
