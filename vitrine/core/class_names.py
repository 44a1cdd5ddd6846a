"""Class names as keys: each of another class."""

from collections import Counter
from collections.abc import Sequence


def unique_names(classes: Sequence[str]) -> list[str]:
    """The class names, with the label behind each that another class has too (ImageNet has two cranes)."""
    counts = Counter(map(str, classes))
    return [
        str(name) if counts[str(name)] == 1 else f"{name} ({label})" for label, name in enumerate(classes)
    ]
