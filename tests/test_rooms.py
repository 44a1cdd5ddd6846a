"""Imports run one way: from the programs down to what every room needs."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "vitrine"
# from the top; rooms of one line do not import each other
ORDER = [
    ["cli"],
    ["assembly", "preflight", "standalone"],
    ["config"],
    ["callbacks"],
    ["reporting"],
    ["examination"],
    ["runs"],
    ["analyses", "modules", "datamodules"],
    ["lidar"],
    ["attacks"],
    ["objects"],
    ["distributed"],
    ["core"],
]
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}


def imports(file: Path):
    """Every module of ours that a file imports, wherever in it, with the line."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 0:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            if name.startswith("vitrine."):
                yield name, node.lineno


def room_of(file: Path) -> str:
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def climbing(file: Path) -> list[str]:
    own = room_of(file)
    found = {(name.split(".")[1], line) for name, line in imports(file)}
    return [
        f"{file.name}:{line} in {own} imports {room}"
        for room, line in sorted(found)
        if room in LEVEL and room != own and LEVEL[room] <= LEVEL[own]
    ]


FILES = sorted(file for file in PACKAGE.rglob("*.py") if file.parent != PACKAGE or file.stem != "__init__")


def test_every_room_has_its_place_in_the_order():
    assert {room_of(file) for file in FILES} - {"__main__"} == set(LEVEL)


@pytest.mark.parametrize("room", LEVEL)
def test_no_import_climbs(room):
    assert not [line for file in FILES if room_of(file) == room for line in climbing(file)]
