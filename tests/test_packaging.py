import os
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_an_installation_carries_every_room_and_file():
    rooms = {".".join(f.parent.relative_to(ROOT).parts) for f in (ROOT / "vitrine").rglob("__init__.py")}
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == rooms | {"vitrine.configs"}


def test_the_root_holds_two_programs_and_links_to_the_rooms_below():
    assert {file.name for file in ROOT.glob("*.py")} == {"train.py", "analyze.py"}
    for room in ("modules", "datamodules", "callbacks"):
        link = ROOT / room
        assert link.is_symlink() and link.resolve() == ROOT / "vitrine" / room
        assert not Path(os.readlink(link)).is_absolute()


def test_the_pinned_versions_name_what_the_project_asks_for():
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {pin.split("==")[0].lower() for pin in pins}
    asked = sum(
        SETTINGS["project"]["optional-dependencies"].values(), start=SETTINGS["project"]["dependencies"]
    )
    assert {name.split(">=")[0].lower() for name in asked} <= pinned


def test_documents_name_files_that_are_there():
    for document in ("README.md", "RELIABILITY.md", "CONTRIBUTING.md", "BENCHMARKS.md"):
        text = (ROOT / document).read_text(encoding="utf-8")
        named = re.findall(r"`((?:tests|vitrine|configs|benchmarks|docs)/[\w./-]*)`", text)
        assert not [name for name in named if "NAME" not in name and not (ROOT / name).exists()], document
