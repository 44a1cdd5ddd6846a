"""A technique is known by name to its registry alone: what others need of it, it declares (`Traits`)."""

import ast
import re
from pathlib import Path

import pytest

from vitrine.analyses import ANALYSES, traits_of
from vitrine.analyses.traits import Traits
from vitrine.reporting.sinks import STORY

PACKAGE = Path(__file__).parents[1] / "vitrine"
# the same word for something else: file -> words
OTHER_MEANINGS = {
    "attacks/__init__.py": {"physical"},  # a transformation
    "attacks/eot.py": {"physical"},
    "attacks/evaluation.py": {"adversarial"},  # images, in a saved state
    "cli/__init__.py": {"dream", "style", "samples"},  # commands
    "cli/dream.py": {"dream"},  # that command's folder
    "cli/samples.py": {"samples"},  # the technique that it is the command of
    "cli/style.py": {"style"},  # that command's folder and argument
    "datamodules/foreign.py": {"features"},  # the columns of a data set of Hugging Face
    "datamodules/foreign_listing.py": {"samples"},  # a data set's list of files
    "datamodules/torchvision_sets.py": {"samples"},
    "config/schema.py": {"weights"},  # a choice of model.head
    "modules/loading.py": {"weights"},
    "modules/networks.py": {"weights"},  # an argument of torchvision's builders
    "reporting/page_data.py": {"weights"},  # of the model
    "runs/store.py": {"weights"},  # whose hash is kept
}
FILES = sorted(file for file in PACKAGE.rglob("*") if file.suffix in (".py", ".js"))


def literals(file: Path) -> set[str]:
    """What stands in a file as a string literal, or as an attribute of the analyses' settings."""
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".js":
        return {match[2] for match in re.finditer(r"""(["'`])((?:(?!\1).)*)\1""", text)}
    nodes = list(ast.walk(ast.parse(text)))
    constants = {n.value for n in nodes if isinstance(n, ast.Constant) and isinstance(n.value, str)}
    settings = {
        n.attr for n in nodes if isinstance(n, ast.Attribute) and ast.unparse(n.value).endswith("analysis")
    }
    return constants | settings


def test_no_second_place_knows_a_technique_by_name():
    found = {file.relative_to(PACKAGE).as_posix(): literals(file) & set(ANALYSES) for file in FILES}
    known = {file: names - OTHER_MEANINGS.get(file, set()) for file, names in found.items()}
    assert {file: names for file, names in known.items() if names and file.split("/")[0] != "analyses"} == {}


def test_every_technique_stands_in_a_section_of_the_dashboard():
    assert {traits_of(name).section for name in ANALYSES} <= set(STORY)


def test_a_technique_that_declares_nothing_is_called_by_its_name():
    assert traits_of("new_technique") == Traits(section="New technique", title="New technique")


@pytest.mark.parametrize("name", ANALYSES)
def test_only_a_technique_with_steps_may_have_them_reduced(name):
    assert "steps" not in traits_of(name).reducible or ANALYSES[name]().steps > 0
