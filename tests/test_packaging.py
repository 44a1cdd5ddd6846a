"""What an installation puts where, beside whom it works, and that a clone needs none of its links."""

import ast
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from vitrine.analyses import ANALYSES

ROOT = Path(__file__).parents[1]
TINY = [
    "run.name=a",
    "data.train_size=32",
    "data.val_size=16",
    "data.image_size=32",
    "data.batch_size=16",
    "trainer.max_steps=1",
    "trainer.accelerator=cpu",
    "analysis.probes=2",
    "analysis.units=2",
    # what each technique shows is the matter of other tests
    *[f"analysis.{name}.enabled=false" for name in ANALYSES if name not in ("weights", "cam")],
    "logging.wandb.mode=disabled",
]
LINKS = ("modules", "datamodules", "callbacks")
SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_an_installation_carries_every_room_and_file():
    rooms = {".".join(f.parent.relative_to(ROOT).parts) for f in (ROOT / "vitrine").rglob("__init__.py")}
    assert set(SETTINGS["tool"]["setuptools"]["packages"]) == rooms | {"vitrine.configs"}


def test_the_root_holds_two_programs_and_links_to_the_rooms_below():
    assert {file.name for file in ROOT.glob("*.py")} == {"train.py", "analyze.py"}
    for room in LINKS:
        link = ROOT / room
        assert link.is_symlink() and link.resolve() == ROOT / "vitrine" / room
        assert not Path(os.readlink(link)).is_absolute()


def test_the_pinned_versions_name_what_the_project_asks_for():
    pins = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    pinned = {pin.split("==")[0].lower() for pin in pins}
    asked = sum(
        SETTINGS["project"]["optional-dependencies"].values(), start=SETTINGS["project"]["dependencies"]
    )
    assert {re.split(r"\[|>=", name)[0].lower() for name in asked} <= pinned


def test_documents_name_files_that_are_there():
    for document in (
        "README.md",
        "RELIABILITY.md",
        "CONTRIBUTING.md",
        "BENCHMARKS.md",
        "docs/reports.md",
        "docs/image-formats.md",
    ):
        text = (ROOT / document).read_text(encoding="utf-8")
        named = re.findall(r"`((?:tests|vitrine|configs|benchmarks|docs)/[\w./-]*)`", text)
        assert not [name for name in named if "NAME" not in name and not (ROOT / name).exists()], document


def test_no_merge_was_left_half_done():
    texts = [*ROOT.glob("*.*"), *ROOT.glob("docs/*.md"), *ROOT.glob("configs/**/*.*"), ROOT / ".ci/run"]
    marked = re.compile(r"^(<{7}|>{7}) ", re.MULTILINE)
    assert [str(t) for t in texts if t.is_file() and marked.search(t.read_text(errors="replace"))] == []


def test_reports_are_counted_and_name_tests_that_are_there():
    text = (ROOT / "docs" / "reports.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| [")]
    assert f"{sum(row[0].count('](') for row in rows)} reports in {len(rows)} rows" in text
    outcomes = Counter(row[2] for row in rows)
    assert {name: int(count) for name, count in re.findall(r"\*([\w ]+)\* \((\d+)", text)} == outcomes
    for *_, test in rows:
        file, name = test.strip("`").split("::")
        assert f"def {name}(" in (ROOT / "tests" / file).read_text(encoding="utf-8"), test


@pytest.mark.slow
def test_nothing_imports_through_the_links():
    for file in [
        *ROOT.glob("*.py"),
        *(f for room in ("vitrine", "tests", "benchmarks") for f in (ROOT / room).rglob("*.py")),
    ]:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) and not node.level else []
            assert not {name.split(".")[0] for name in names} & set(LINKS), f"{file}:{node.lineno}"


def copy_tree(to: Path) -> Path:
    """The files of a clone that are run or installed, without the links at the root."""
    skip = shutil.ignore_patterns("__pycache__")
    for folder in ("vitrine", "configs"):
        shutil.copytree(ROOT / folder, to / folder, ignore=skip)
    for file in ("train.py", "analyze.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / file, to)
    return to


def output(*words: str | Path, cwd: Path, status: int = 0) -> str:
    """What a program prints, which must end with this status; it finds no code through the environment."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTHON")}
    done = subprocess.run(
        [*map(str, words)], cwd=cwd, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.slow
def test_a_clone_without_symbolic_links_trains_as_well(tmp_path):
    clone = copy_tree(tmp_path)
    for room in LINKS:  # as git writes them where there are none: text files that say where to
        (clone / room).write_text(f"vitrine/{room}")
    assert "run.name=" in output(sys.executable, "train.py", "--help", "run", cwd=clone)
    output(sys.executable, "train.py", *TINY, cwd=clone)
    assert (clone / "runs" / "a" / "index.html").is_file()
    assert "nothing was missing" in output(sys.executable, "analyze.py", "runs/a", cwd=clone)


PROJECT = {  # a Lightning project with rooms of its own, under names that ours have, or had
    "pyproject.toml": """
        [build-system]
        requires = ["setuptools"]
        build-backend = "setuptools.build_meta"
        [project]
        name = "theirs"
        version = "1"
        [tool.setuptools]
        packages = ["modules", "callbacks", "attacks", "datamodules"]
        py-modules = ["config", "build", "settings", "registry", "train", "analyze"]
        """,
    **{f"{room}/__init__.py": "" for room in ("modules", "callbacks", "attacks", "datamodules")},
    **{f"{name}.py": "" for name in ("config", "build", "settings", "registry", "train", "analyze")},
}
BESIDE = """
import sys
from pathlib import Path

import torch

import attacks, build, callbacks, config, datamodules, modules, registry, settings

place = Path(sys.argv[1])
for theirs in (attacks, build, callbacks, config, datamodules, modules, registry, settings):
    assert place in Path(theirs.__file__).parents, theirs.__file__

import vitrine
from vitrine.analyses import ANALYSES
from vitrine.attacks import PGD

assert Path(sys.argv[2]) in Path(vitrine.__file__).parents, vitrine.__file__
assert [ANALYSES[name] for name in ANALYSES]
network = vitrine.load_network("convnet", classes=["a", "b"], channels=3).eval()
images, labels = torch.rand(2, 3, 32, 32), torch.tensor([0, 1])
assert PGD(steps=2)(network, images, labels).shape == images.shape
assert vitrine.AnalyzeCheckpoints
print("both work")
"""


@pytest.mark.slow
def test_an_installation_works_beside_a_project_with_rooms_of_the_same_names(tmp_path):
    project, wheels, environment = tmp_path / "project", tmp_path / "wheels", tmp_path / "environment"
    for name, text in PROJECT.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text("\n".join(line.strip() for line in text.splitlines()))
    (project / "check.py").write_text(BESIDE)
    shutil.copy(project / "check.py", tmp_path)
    for tree in (copy_tree(tmp_path / "clone"), project):
        wheel = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
        output(*wheel, "--wheel-dir", wheels, tree, cwd=tmp_path)
        shutil.rmtree(tree / "build")
    ours, theirs = (next(wheels.glob(f"{name}-*.whl")) for name in ("vitrine", "theirs"))

    names = {name.split("/")[0] for name in zipfile.ZipFile(ours).namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == {"vitrine"}

    # an environment that has all that this one has, but for what is installed there
    venv.create(environment, symlinks=True)
    python = environment / "bin" / "python"
    site = Path(
        output(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=tmp_path).strip()
    )
    (site / "others.pth").write_text(
        "\n".join({sysconfig.get_path("purelib"), sysconfig.get_path("platlib")})
    )
    pip = [sys.executable, "-m", "pip", "--python", python]
    output(*pip, "install", "--no-deps", "--no-index", ours, cwd=tmp_path)
    command = environment / "bin" / "vitrine"

    assert "both work" in output(python, "check.py", project, site, cwd=project)
    version = output(command, "--version", cwd=project)
    assert version == output(python, "-m", "vitrine", "--version", cwd=project) != ""
    assert "did you mean cifar10 " in output(command, "train", "cifar1", cwd=project, status=2)
    output(command, "train", *TINY, cwd=project)
    assert (project / "runs" / "a" / "index.html").is_file()

    # both installed side by side: neither takes anything of the other along
    output(*pip, "install", "--no-deps", "--no-index", theirs, cwd=tmp_path)
    assert "both work" in output(python, "check.py", site, site, cwd=tmp_path)
    before = {file for file in site.rglob("*.py") if "vitrine" not in file.parts}
    output(*pip, "uninstall", "--yes", "vitrine", cwd=tmp_path)
    assert set(site.rglob("*.py")) == before and not command.exists()
    output(*pip, "install", "--no-deps", "--no-index", ours, cwd=tmp_path)
    output(*pip, "uninstall", "--yes", "theirs", cwd=tmp_path)
    assert output(command, "--version", cwd=tmp_path) == version
    assert output(python, "-c", "from vitrine.attacks import PGD; print(PGD().steps)", cwd=tmp_path).strip()
