"""What an analysis yields beside pictures and curves, on disk: its state and its files."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

log = logging.getLogger(__name__)

STATE = "state.safetensors"
TEXT, BYTES = (".csv", ".tsv", ".txt", ".obj", ".mtl"), (".png",)  # how the names of files end

_Value = TypeVar("_Value")


def write(folder: Path, files: Mapping[str, str | bytes], state: Mapping[str, Tensor]) -> None:
    """Write files, and the state if there is one, into an analysis' folder.

    Raises:
        ValueError: a name is not plain, or taken; or the state is not of dense tensors by name.
        OSError: the disk refused.
    """
    for name, content in files.items():
        endings = TEXT if isinstance(content, str) else BYTES
        if not re.fullmatch(r"\w[\w.-]{0,64}", name, re.ASCII) or not name.endswith(endings):
            expected = f"expected letters, digits and '._-', then {' or '.join(endings)}"
            raise ValueError(f"file is {name!r} of {type(content).__name__}, {expected}")
        if (folder / name).exists():
            raise ValueError(f"file {name!r} is there already, as the folder of a figure")
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)
    if not state:
        return
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
            came = type(tensor).__name__
            raise ValueError(f"state {name!r} is a {came}, expected dense tensors by name")
    # not `save_file`, whose errors and rights to read are its own
    (folder / STATE).write_bytes(save({name: _own(tensor) for name, tensor in state.items()}))


def read_file(file: Path) -> str | bytes:
    """A file that `write` has written."""
    content = file.read_bytes()
    return content.decode() if file.name.endswith(TEXT) else content


def read_state(folder: Path) -> dict[str, Tensor]:
    """The tensors of the state in an analysis' folder, on the CPU; empty, with a warning, if that is
    damaged."""
    try:
        return load_file(folder / STATE)
    except (OSError, SafetensorError) as error:
        log.warning("%s cannot be read (%s): the analysis begins anew", folder / STATE, error)
        return {}


class ReadOnAccess(Mapping[str, _Value], Generic[_Value]):
    """A mapping of known names whose values `read` reads, each time one is asked for."""

    def __init__(self, names: Iterable[str], read: Callable[[str], _Value]):
        self._names, self._read = dict.fromkeys(names), read

    def __getitem__(self, name: str) -> _Value:
        if name not in self._names:
            raise KeyError(name)
        return self._read(name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:  # without reading
        return name in self._names


class LatestState(Mapping[str, Mapping[str, Tensor]]):
    """By analysis, the state that it yielded at the latest of some steps at which it did; looked for and read
    each time it is asked for, in no more steps than need be.

    Args:
        folders: of the steps, the latest first.
        yielded: the analyses of a folder that yielded a state.
    """

    def __init__(self, folders: Sequence[Path], yielded: Callable[[Path], Iterable[str]]):
        self._folders, self._yielded = folders, yielded

    def __getitem__(self, name: str) -> Mapping[str, Tensor]:
        folder = next((folder for folder in self._folders if name in self._yielded(folder)), None)
        if folder is None:
            raise KeyError(name)
        return read_state(folder / name)

    def __iter__(self) -> Iterator[str]:
        return iter(dict.fromkeys(name for folder in self._folders for name in self._yielded(folder)))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _own(tensor: Tensor) -> Tensor:
    """The tensor on the CPU, in memory of its own: safetensors refuses tensors that share it."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
