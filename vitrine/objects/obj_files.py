"""Meshes with a texture in files: Wavefront `.obj` with `.mtl` and `.png`, and what trimesh reads."""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vitrine.core import atomic
from vitrine.objects.mesh import Mesh

INSTALL = "pip install 'vitrine[physical]'"


class UnreadableMesh(ValueError):
    """A file is no mesh with UV coordinates; the message says where and why."""


def read_mesh(file: Path) -> Mesh:
    """The mesh in a file, as it is (see `Mesh.fitted`): an `.obj`, or another format through trimesh.

    Raises:
        UnreadableMesh: it holds no mesh with UV coordinates; or trimesh is needed and is not installed.
    """
    if not file.is_file():
        raise UnreadableMesh(f"there is no file {file}")
    if file.suffix.lower() == ".obj":
        try:
            return parse_obj(read_text(file))
        except UnreadableMesh as error:
            raise UnreadableMesh(f"{file}: {error}") from None
    return _read_by_trimesh(file)


def parse_obj(text: str) -> Mesh:
    """The mesh of an `.obj`'s text: its `v`, `vt` and `f`, polygons as fans; all else is about other things.

    Raises:
        UnreadableMesh: a line is malformed, a face has no UV coordinates, or there is no face.
    """
    vertices: list[list[float]] = []
    uvs: list[list[float]] = []
    faces: list[list[tuple[int, int]]] = []
    for number, line in joined_lines(text):
        words = line.split("#")[0].split()
        try:
            match words[:1]:
                case ["v"]:
                    x, y, z = map(float, words[1:4])
                    vertices.append([x, y, z])
                case ["vt"]:
                    u, v = map(float, words[1:3])
                    uvs.append([u, v])
                case ["f"]:
                    corners = [_corner(word, len(vertices), len(uvs)) for word in words[1:]]
                    if len(corners) < 3:
                        raise UnreadableMesh(f"a face has {len(corners)} corners, expected at least 3")
                    faces += [[corners[0], *pair] for pair in itertools.pairwise(corners[1:])]
        except UnreadableMesh as error:
            raise UnreadableMesh(f"line {number}: {error}") from None
        except ValueError:
            raise UnreadableMesh(f"line {number} is malformed: {line.strip()[:60]!r}") from None
    if not faces:
        raise UnreadableMesh("has no face (f), expected a mesh")
    indices = torch.tensor(faces)
    try:
        places = torch.tensor(vertices, dtype=torch.float64), torch.tensor(uvs, dtype=torch.float64)
        return Mesh(places[0], indices[..., 0].contiguous(), places[1], indices[..., 1].contiguous())
    except ValueError as error:
        raise UnreadableMesh(str(error)) from None


def read_text(file: Path) -> str:
    """The text of an `.obj` or `.mtl`; a byte order mark is no part of its first line."""
    return file.read_text(encoding="utf-8-sig", errors="replace")


def joined_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines with the number of each, from 1; one that ends in a backslash goes on in the next."""
    start, parts = 1, []
    for number, line in enumerate(text.splitlines(), 1):
        start = start if parts else number
        # a comment ends with its line: it may be a path of Windows
        if line.endswith("\\") and "#" not in line:
            parts.append(line[:-1])
        else:
            yield start, " ".join([*parts, line])
            parts = []
    if parts:
        yield start, " ".join(parts)


def _corner(word: str, vertices: int, uvs: int) -> tuple[int, int]:
    """The vertex and the UV coordinates, counted from 0, of a corner such as 3/5/2, 3/5 or -1/-1."""
    parts = word.split("/")
    if len(parts) < 2 or not parts[1]:
        raise UnreadableMesh(f"corner {word} has no UV coordinates (v/vt), expected a mesh that is unwrapped")
    numbers = []
    for part, count, what in ((parts[0], vertices, "vertex"), (parts[1], uvs, "vt")):
        number = int(part)
        if not 1 <= abs(number) <= count:
            raise UnreadableMesh(f"corner {word} names {what} {number} of {count}")
        numbers.append(number - 1 if number > 0 else count + number)
    return numbers[0], numbers[1]


def _read_by_trimesh(file: Path) -> Mesh:
    try:
        import trimesh
    except ImportError:
        reason = f"{file.suffix or 'a file without a suffix'} needs trimesh: {INSTALL}, or save it as .obj"
        raise UnreadableMesh(f"{file}: {reason}") from None
    try:
        loaded = trimesh.load(file, force="mesh", process=False)
    except Exception as error:  # whatever its readers of a score of formats raise
        raise UnreadableMesh(f"{file}: trimesh cannot read it: {str(error).splitlines()[:1]}") from None
    uv = getattr(getattr(loaded, "visual", None), "uv", None)
    if uv is None or not len(getattr(loaded, "faces", ())):
        raise UnreadableMesh(
            f"{file}: has no triangles with UV coordinates, expected a mesh that is unwrapped"
        )
    faces = torch.from_numpy(np.asarray(loaded.faces, dtype=np.int64).copy())
    places = (
        torch.from_numpy(np.asarray(of, dtype=np.float64).copy()) for of in (loaded.vertices, uv[:, :2])
    )
    return Mesh(next(places), faces, next(places), faces)


def write_obj(file: Path, mesh: Mesh, texture: Tensor) -> list[Path]:
    """Write the files of `obj_contents` beside each other, the `.obj` under this name.

    Returns:
        The three files.
    """
    written = [(file.with_name(name), content) for name, content in obj_contents(file.stem, mesh, texture)]
    for place, content in reversed(written):  # the .obj last, as it names the others
        atomic.write_bytes(place, content.encode() if isinstance(content, str) else content)
    return [place for place, _ in written]


def obj_contents(stem: str, mesh: Mesh, texture: Tensor) -> list[tuple[str, str | bytes]]:
    """A mesh as `.obj`, its `.mtl`, and the texture [3, T, T] as `.png`, for any viewer: each by name."""
    material, image = f"{stem}.mtl", f"{stem}.png"
    content = io.BytesIO()
    pixels = texture.detach().float().cpu().clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    Image.fromarray(pixels.contiguous().numpy()).save(content, "PNG")
    lines = [f"mtllib {material}", "usemtl surface"]
    lines += ["v " + " ".join(f"{x:.9g}" for x in row) for row in mesh.vertices.tolist()]
    lines += ["vt " + " ".join(f"{x:.9g}" for x in row) for row in mesh.uvs.tolist()]
    for corners, places in zip((mesh.faces + 1).tolist(), (mesh.face_uvs + 1).tolist()):
        lines.append("f " + " ".join(f"{v}/{vt}" for v, vt in zip(corners, places)))
    surface = ["newmtl surface", "Ka 1 1 1", "Kd 1 1 1", "Ks 0 0 0", "illum 1", f"map_Kd {image}"]
    return [
        (f"{stem}.obj", "\n".join(lines) + "\n"),
        (material, "\n".join(surface) + "\n"),
        (image, content.getvalue()),
    ]
