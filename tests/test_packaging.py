import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_an_installation_carries_every_room_and_file():
    packed = SETTINGS["tool"]["setuptools"]
    rooms = {
        str(room.parent.relative_to(ROOT)).replace("/", ".")
        for room in ROOT.rglob("__init__.py")
        if room.relative_to(ROOT).parts[0] not in ("tests", "benchmarks", "build", "dist")
        and not any(part.startswith(".") for part in room.relative_to(ROOT).parts)
    }
    assert set(packed["packages"]) == rooms
    assert set(packed["py-modules"]) == {file.stem for file in ROOT.glob("*.py")}


def test_the_pinned_versions_name_what_the_project_asks_for():
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {pin.split("==")[0].lower() for pin in pins}
    asked = sum(
        SETTINGS["project"]["optional-dependencies"].values(), start=SETTINGS["project"]["dependencies"]
    )
    assert {name.split(">=")[0].lower() for name in asked} <= pinned
