"""Which networks there are, by name: our own, torchvision's classifiers, and forms of foreign names.

Nothing heavy is imported: settings are checked against these names.
"""

from __future__ import annotations

import functools
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vitrine.core.references import check_reference, is_reference
from vitrine.core.registry import Registry

TIMM, HF = "timm/", "hf/"
_LIBRARIES = {TIMM: "timm", HF: "transformers"}  # what names of its networks begin with -> the library
OURS = {
    "convnet": "vitrine.modules.convnet:ConvNet",
    "resnet20": "vitrine.modules.residual:CifarResNet",
    "quick_convnet": "vitrine.modules.quick_convnet:QuickConvNet",
    "preact_resnet18": "vitrine.modules.residual:preact_resnet18",
    "wide_resnet28_10": "vitrine.modules.residual:wide_resnet28_10",
    "vit_tiny_4": "vitrine.modules.vision_transformer:SmallVisionTransformer",
    "vit": "vitrine.modules.vision_transformer:vit",
    "perceptron": "vitrine.modules.perceptron:Perceptron",
}
_REGISTERED = re.compile(r"^@register_model\(\)(?:\n@.*)*\ndef (\w+)", re.MULTILINE)


def is_foreign(name: str) -> bool:
    """Whether a name is of a network that is not built here."""
    return is_reference(name) or name.startswith(tuple(_LIBRARIES))


def check_form(name: str) -> None:
    """Raise ValueError for a foreign name that cannot lead anywhere; imports neither code nor libraries."""
    prefix = next((prefix for prefix in _LIBRARIES if name.startswith(prefix)), None)
    if is_reference(name) or prefix is None:
        check_reference(name)
        return
    library = _LIBRARIES[prefix]
    if name == prefix:
        raise ValueError(f"{name!r}: expected {prefix}NAME")
    if importlib.util.find_spec(library) is None:
        raise ValueError(f"{name}: {library} is not installed: pip install 'vitrine[{library}]'")


class Networks(Registry):
    """Our own networks, then torchvision's classifiers; `NETWORKS[name]` is the builder. `check` knows the
    forms of foreign names, too."""

    def __getitem__(self, name: str) -> Any:
        if name in self.places:
            return super().__getitem__(name)
        self.check(name)
        import torchvision

        return torchvision.models.get_model_builder(name)

    def check(self, name: str) -> None:
        """Raise ValueError unless the name is known, or may be that of a foreign network."""
        if is_foreign(name):
            check_form(name)
        elif name not in self and (likely := _likely_reference(name)):
            raise ValueError(f"unknown network {name!r}: {likely}")
        else:
            super().check(name)

    def __iter__(self) -> Iterator[str]:
        return iter((*self.places, *torchvision_names()))

    def __contains__(self, name: object) -> bool:
        return name in self.places or name in torchvision_names()

    def __len__(self) -> int:
        return len(list(iter(self)))


NETWORKS = Networks("network", OURS)


@functools.cache
def torchvision_names() -> tuple[str, ...]:
    """What torchvision registers in its folder of classifiers; read, as importing it takes seconds."""
    folder = Path(importlib.util.find_spec("torchvision").origin).parent / "models"
    texts = [file.read_text(encoding="utf-8") for file in folder.glob("*.py")]
    return tuple(sorted(name for text in texts for name in _REGISTERED.findall(text)))


def _likely_reference(name: str) -> str | None:
    """What a name that leads nowhere was meant to be, if it looks like a place of code."""
    if name.endswith(".py"):
        return f"its class or function comes after a colon, {name}:Class"
    place, _, last = name.rpartition(".")
    if place and all(part.isidentifier() for part in name.split(".")):
        return f"a class or function of a module comes after a colon: did you mean {place}:{last}?"
    if "/" in name:
        return "expected a file of your own, path/to/file.py:Class, or timm/NAME, or hf/FOLDER_OR_ID"
    return None
