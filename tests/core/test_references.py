"""A class or function by reference, and what is answered to one that leads nowhere."""

import sys

import pytest

from vitrine.core.references import BadReference, absolute_reference, is_reference, resolve


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A folder with a file, what lies beside it, and a package."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "nets").mkdir()
    (tmp_path / "nets/beside_it.py").write_text("WIDTH = 7\n")
    (tmp_path / "nets/small.py").write_text(
        "import beside_it\n\nclass Small:\n    width = beside_it.WIDTH\n    class Inner: pass\n\nnumber = 3\n"
    )
    (tmp_path / "ownpackage_q").mkdir()
    (tmp_path / "ownpackage_q/__init__.py").write_text("")
    (tmp_path / "ownpackage_q/models.py").write_text("def build(): return 5\n")
    (tmp_path / "breaks.py").write_text("import math\n\nmath.sqrt(-1)\n")
    (tmp_path / "ends.py").write_text("raise SystemExit(0)\n")
    (tmp_path / "wants.py").write_text("import not_installed_anywhere\n")
    (tmp_path / "syntax.py").write_text("def f(:\n")
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_a_class_of_a_file_finds_what_lies_beside_it_and_the_path_is_as_before(project):
    before = list(sys.path)
    found = resolve("nets/small.py:Small")
    assert found.width == 7 and sys.path == before
    assert resolve(f"{project}/nets/small.py:Small") is found  # imported once a process
    assert resolve("nets/small.py:Small.Inner") is found.Inner
    assert sys.modules[found.__module__].Small is found and found.__module__ != "small"


def test_a_function_of_a_module_in_the_current_directory_or_installed(project):
    before = list(sys.path)
    assert resolve("ownpackage_q.models:build")() == 5 and sys.path == before
    assert resolve("torch.nn:Linear").__name__ == "Linear"


@pytest.mark.parametrize(
    "name, message",
    [
        ("nets/small.py:Smal", r"has no 'Smal'; did you mean Small\?"),
        ("nets/smal.py:Small", r"no such file; did you mean nets/small\.py:Small\?"),
        ("net/small.py:Small", r"there is no folder net"),
        ("nets/small.py:number", r"is of type int, expected a class or a function"),
        ("nets/small.py:", "names no class or function after the colon"),
        (":Small", "names no module"),
        ("nets.small py:Small", "neither a module's name nor a file"),
        ("ownpackage_q.model:build", r"no module 'ownpackage_q\.model'; did you mean ownpackage_q\.models\?"),
        ("ownpackage:build", r"no module 'ownpackage'; did you mean ownpackage_q\?"),
        ("breaks.py:Net", r"breaks\.py raised ValueError: .* \(breaks\.py, line 3\)"),
        ("ends.py:Net", "ended the program"),
        ("wants:Net", "importing wants raised ModuleNotFoundError: .*not_installed_anywhere"),
        ("syntax.py:Net", "raised SyntaxError"),
    ],
)
def test_one_line_for_a_reference_that_leads_nowhere(project, name, message):
    with pytest.raises(BadReference, match=message) as caught:
        resolve(name)
    assert "\n" not in str(caught.value)


def test_a_file_is_found_again_from_everywhere(project, monkeypatch):
    monkeypatch.setenv("HOME", "/home/somebody")
    monkeypatch.chdir(project)
    assert absolute_reference("net.py:Net") == f"{project}/net.py:Net"
    assert absolute_reference("~/net.py:Net") == "/home/somebody/net.py:Net"
    for name in ("package.module:Class", "convnet", "timm/resnet18"):
        assert absolute_reference(name) == name


def test_what_is_a_reference():
    assert is_reference("a.b:C") and is_reference("x/y.py:C") and is_reference("timm/net.py:C")
    assert not any(map(is_reference, ("resnet18", "timm/resnet18", "hf/some/folder", "a.b.C")))
