"""The texture that an `.obj` names: `mtllib`, `usemtl`, and `map_Kd` of the `.mtl`."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

from vitrine.objects.obj_files import UnreadableMesh, joined_lines, read_text

# what may stand between map_Kd and its file: how many words follow each, at most
_OPTIONS = {"-o": 3, "-s": 3, "-t": 3, "-mm": 2}
_OPTIONS |= dict.fromkeys(("-blendu", "-blendv", "-bm", "-boost", "-cc", "-clamp"), 1)
_OPTIONS |= dict.fromkeys(("-imfchan", "-texres", "-type"), 1)
# of those that would show another texture, the numbers with which they do not
_WITHOUT_EFFECT = {"-o": (0, 0, 0), "-s": (1, 1, 1), "-t": (0, 0, 0), "-mm": (0, 1)}
log = logging.getLogger(__name__)


@dataclass
class _Naming:
    """What an `.obj` says about materials; None is that of faces before any `usemtl`."""

    libraries: list[str] = field(default_factory=list)
    used: dict[str | None, None] = field(default_factory=dict)  # by a face, in this order


def find_texture(file: Path) -> Path | None:
    """The image of the material that an `.obj`'s faces use; None where it names none.

    Of faces without a `usemtl`, every material may be meant.

    Raises:
        UnreadableMesh: a file that is named is not there, the faces have different textures, or the texture
            is changed in a way that is not followed.
    """
    if file.suffix.lower() != ".obj" or not file.is_file():
        return None
    naming = _naming(file)
    maps: dict[str | None, str] = {}
    for place in (place for library in naming.libraries for place in _library_files(file, library)):
        for material, words in _maps(place).items():
            if set(naming.used) <= {None} or material in naming.used:
                maps[material] = _image(place, words)
    if len(set(maps.values())) > 1:
        named = ", ".join(f"{Path(image).name} of {material}" for material, image in maps.items())
        raise UnreadableMesh(f"{file} has several textures ({named}), expected a mesh with one")
    if not maps:
        return None
    image = Path(next(iter(maps.values())))
    if plain := [name for name in naming.used if name is not None and name not in maps]:
        log.warning("%s: the faces of %s, which has no texture, get %s too", file, ", ".join(plain), image)
    return image


def _naming(file: Path) -> _Naming:
    found, material = _Naming(), None
    for _, line in joined_lines(read_text(file)):
        match line.split(None, 1):
            case ["mtllib", rest]:
                found.libraries.append(rest)
            case ["usemtl", rest]:
                material = rest.strip()
            case ["f", _]:
                found.used[material] = None
    return found


def _library_files(file: Path, named: str) -> list[Path]:
    """The files of an `mtllib`, which names one, maybe with spaces, or several."""
    whole = _beside(file, named)
    parts = [whole] if whole else [_beside(file, word) for word in named.split()]
    if None in parts:
        raise UnreadableMesh(f"{file} names the materials {named.strip()}, and there is no such file")
    return parts


def _maps(library: Path) -> dict[str | None, str]:
    """What stands behind `map_Kd` in each material of a `.mtl` that has one."""
    found, material = {}, None
    for _, line in joined_lines(read_text(library)):
        words = line.split(None, 1)
        match [words[0].lower(), *words[1:]] if words else []:
            case ["newmtl", rest]:
                material = rest.strip()
            case ["map_kd", rest]:
                found[material] = rest.strip()
    return found


def _image(library: Path, words: str) -> str:
    """The file that is named behind options, if any."""
    option, *rest = words.split(None, 1)
    if option.lower() in _OPTIONS:
        values, rest = [], "".join(rest)
        while rest and len(values) < _OPTIONS[option.lower()]:
            value, *after = rest.split(None, 1)
            if option.lower() in _WITHOUT_EFFECT and not _is_number(value):
                break  # the last of the numbers may be left out
            values.append(value)
            rest = "".join(after)
        if _has_effect(option.lower(), values):
            problem = f"is changed by {' '.join([option, *values])}, which is not followed"
            raise UnreadableMesh(f"its texture in {library} {problem}: apply it to the UV or the image")
        if not rest:
            raise UnreadableMesh(f"{library} names no file in map_Kd {words}")
        return _image(library, rest)
    place = _beside(library, words) or _beside(library, words.split(" #")[0])
    if place is None:
        raise UnreadableMesh(f"{library} names the texture {words}, and there is no such file")
    return str(place)


def _has_effect(option: str, values: list[str]) -> bool:
    if option == "-clamp":
        return values == ["on"]
    return any(float(value) != plain for value, plain in zip(values, _WITHOUT_EFFECT.get(option, ())))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _beside(file: Path, named: str) -> Path | None:
    """The file of a name, as seen from another's folder, or else of its last part in that folder itself,
    as paths are often those of the machine where it was saved; None where there is neither."""
    named = named.strip().strip('"').replace("\\", "/")
    for place in (file.parent / named, file.parent / named.rpartition("/")[2]):
        if named and place.is_file():
            return place
    return None
