"""Where in tar files the files of each sample are: a sample is the files of one name that follow each other.

The names are webdataset's: the sample's key up to the first dot of the file's name, then its extension. The
headers are read once, so that samples are indexed, shuffled and resumed like files in a folder.
"""

from __future__ import annotations

import re
import tarfile
from dataclasses import dataclass
from pathlib import Path

from vitrine.core.settings import SettingError

_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")
_NAME = re.compile(r"((?:.*/|)[^./]+)\.([^/]*)")
_MEMBER_OF_METADATA = re.compile(r"__[^/]*__($|/)")


@dataclass
class Sample:
    """A sample of a shard: of each extension (in lower case) the place and size of its bytes."""

    key: str
    places: dict[str, tuple[int, int]]


def read_shard(shard: Path, whole: bool = True) -> list[Sample]:
    """The samples of a tar file in their order.

    Args:
        whole: refuse a file that ends early; else give the samples before.

    Raises:
        SettingError: of `data.root`, if it is no tar file, is compressed, or ends early; or a sample has two
            files of an extension.
    """
    with open(shard, "rb") as file:
        if file.read(6).startswith(_COMPRESSED):
            problem = f"{shard} is compressed, but images are read by their place: unpack it to a .tar"
            raise SettingError("data.root", problem)
    samples: list[Sample] = []
    try:
        with tarfile.open(shard, "r:") as archive:
            while (member := archive.next()) is not None:
                if member.isreg():
                    _add(samples, shard, member)
                archive.members = []  # else they are all kept
            _check_end(shard, archive.offset)
    except tarfile.TarError as error:
        if whole or not samples:
            hint = "; data.skip_corrupt=true reads what is whole" if samples else ""
            problem = f"{shard} is cut off, or no tar file ({error}){hint}"
            raise SettingError("data.root", problem) from None
        samples.pop()  # it may be cut off itself
    return samples


def _check_end(shard: Path, offset: int) -> None:
    """Raise TarError unless a tar file ends at `offset`: at a damaged header tarfile stops without a word."""
    with open(shard, "rb") as file:
        file.seek(offset)
        rest = file.read()
    if len(rest) < tarfile.BLOCKSIZE:
        raise tarfile.ReadError("it has no end mark")
    if rest.strip(b"\0"):
        raise tarfile.ReadError(f"damaged at byte {offset:,}")


def _add(samples: list[Sample], shard: Path, member: tarfile.TarInfo) -> None:
    named = _NAME.fullmatch(member.name)
    if named is None or _MEMBER_OF_METADATA.match(member.name):
        return
    key, extension = named[1], named[2].lower()
    if not samples or samples[-1].key != key:
        samples.append(Sample(key, {}))
    places = samples[-1].places
    if extension in places:
        raise SettingError("data.root", f"{shard}: sample {key} has two files .{extension}")
    places[extension] = member.offset_data, member.size
