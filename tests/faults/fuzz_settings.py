"""Malformed settings by the thousand: never a traceback, never a hang, always exit status 2 with one message.

    python tests/faults/fuzz.py --kind settings --cases 10000 --seed 0

Each case is a command line of recipes and key=value, drawn by hypothesis: keys and values that exist,
mutated; text of any kind, huge numbers, deep nesting, interpolations, cycles, YAML's tags and anchors, files
that are no text. Settings that turn out to be possible count as well, and have to be such as can be saved;
text among them is what was typed.
"""

from __future__ import annotations

import contextlib
import functools
import io
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import small
import yaml
from cases import run_cases, time_limit
from hypothesis import strategies as st
from omegaconf import OmegaConf

from vitrine import config
from vitrine.cli.command_line import run_cli
from vitrine.config import trainer_arguments

PATIENCE = 10  # seconds a case may take; one that is refused takes some hundredths

KEYS = sorted(
    {*map(str, config.dotted_keys(config.load(["run.name=fuzz"]).to_dict()))}
    | {f"trainer.{name}" for name in trainer_arguments.parameters()}
)
NAMES = ["data", "model", "objective", "optimizer", "trainer", "checkpoint", "analysis", "logging", "run"]
CHOSEN = [
    "data.name=folder",
    "data.name=streaming",
    "data.name=cifar10",
    "objective.name=trades",
    "model.name=resnet18",
    "optimizer.name=adam",
    "run.resume=true",
    "data.root=.",
]

numbers = st.one_of(
    st.integers().map(str),
    st.integers(10**30, 10**60).map(str),
    st.just("9" * 5000),
    st.floats().map(repr),
    st.sampled_from(
        ["1e999", "-1e999", ".inf", ".nan", "0x1F", "0b11", "1_000", "1/0", "8/255", "0/0", "-0"]
    ),
    st.builds("{}/{}".format, st.integers(), st.integers()),
)
odd = st.sampled_from(
    [
        "", " ", "null", "~", "true", "no", "on", "[]", "{}", "[1, a]", "{a: 1}", "{1: 2}", "{null: 1}",
        "[[[]]]", "[" * 3000, "{a: " * 1500, "[" * 400 + "]" * 400, "{a: " * 300 + "1" + "}" * 300,
        "${run.name}", "${run}", "${nothing}", "${", "${}", "${${}}", "${${run.name}}", "${.}",
        "${..a}", "${oc.env:HOME}", "${oc.env:NO_SUCH_VARIABLE}", "${oc.decode:'['}",
        "${oc.dict.keys:run}", "${model.weights}", "${run.seed}", "${trainer.max_epochs}",
        "${analysis}", "${a:b}", "${oc.create:{a: 1}}", "a${run.name}b", "\\${x}", "???",
        "!!python/object/apply:os.system [true]", "!!binary x", "!!int x", "!!set {a}", "&a [*a]", "*a",
        "&a x", "2001-01-01", "2001-01-01 00:00:00", "0o7", "'", '"', "a: b: c", "- a", "|", ">", "%",
        "@", "`", "\t", "\x00", "\ud800", "\ufeff", "\u202e", "\U0001f600" * 50, "x" * 100_000,
        "../../etc", "/", ".", "con", "a/b/../../..",
    ]
)  # fmt: skip
texts = st.one_of(st.text(max_size=20), st.text(st.characters(), max_size=5))
values = st.one_of(numbers, odd, texts)


@st.composite
def mutated(draw: Any, words: Any) -> str:
    """A word with a few of its characters gone, doubled, or others."""
    word = list(draw(words))
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(word)))
        word[place : place + draw(st.integers(0, 2))] = draw(st.text(max_size=2))
    return "".join(word)


keys = st.one_of(
    st.sampled_from(KEYS),
    mutated(st.sampled_from(KEYS)),
    st.sampled_from(NAMES),
    st.builds("{}.{}".format, st.sampled_from(KEYS), st.sampled_from(KEYS)),
    st.builds(lambda part, depth: ".".join([part] * depth), st.sampled_from(NAMES), st.integers(1, 400)),
    st.text(max_size=10),
)
overrides = st.one_of(
    st.builds("{}={}".format, st.sampled_from(KEYS), values),
    st.builds("{}={}".format, keys, values),
    mutated(st.sampled_from(CHOSEN)),
    st.sampled_from(CHOSEN),
    texts.filter(lambda word: word not in ("-h", "--help")),
)

plain = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8), st.dates())
trees = st.recursive(
    plain,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.one_of(st.sampled_from(NAMES), st.text(max_size=5), st.integers()), inner, max_size=3
        ),
    ),
    max_leaves=8,
)
LAUGHS = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
RECIPES = [file.read_text() for file in sorted((small.ROOT / "configs").glob("*.yaml"))]

WHOLE = [
    LAUGHS, "a: &a {b: *a}", "run: &r\n  name: *r", "&a [*a]", "a: 1\na: 2", "<<: {a: 1}", "<<: 1",
    "? [a]\n: b", "? {a: b}\n: c", "run:\n\tname: x", "--- a\n--- b", "---\n...\n---\n",
    "%YAML 9.9\n---\na", "run: {<<: *x}", "data: !!python/name:os.system", "run: !!omap [a: 1]",
]  # fmt: skip


def nested(key: str, value: Any) -> Any:
    for part in reversed(key.split(".")):
        value = {part: value}
    return value


def encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def inline(key: str, value: str) -> bytes:
    """A recipe of a line: `data: {batch_size: 3}`."""
    return encoded(f"{key.replace('.', ': {')}: {value}{'}' * key.count('.')}")


recipes = st.one_of(
    trees.map(lambda tree: encoded(yaml.safe_dump(tree, allow_unicode=True))),
    st.builds(lambda k, v: encoded(yaml.safe_dump(nested(k, v))), st.sampled_from(KEYS), trees),
    st.builds(inline, st.sampled_from(KEYS), values),
    mutated(st.sampled_from(RECIPES)).map(encoded),
    st.binary(max_size=200),
    values.map(encoded),
    st.sampled_from(WHOLE).map(str.encode),
)
# settings that are text, and words that YAML makes something else of
TEXTS = ["run.name", *(f"logging.wandb.{name}" for name in ("project", "entity", "group", "notes"))]
YAML_WORDS = [
    "on",
    "off",
    "no",
    "No",
    "yes",
    "y",
    "true",
    "007",
    "010",
    "1e3",
    "1E234",
    "0x1F",
    "1_000",
    "1.10",
]
YAML_WORDS += [
    ".5",
    "+1",
    "12:30:45",
    "2024-01-01",
    "2024-13-45",
    "2001-12-14t21:59:43.10-05:00",
    "=",
    "<<",
    "0o7",
]

assigned = st.tuples(st.sampled_from(TEXTS), st.sampled_from(YAML_WORDS))
cases = st.one_of(
    st.tuples(st.lists(recipes, max_size=2), st.lists(overrides, max_size=4), st.none()),
    st.tuples(st.just([]), st.lists(st.sampled_from(CHOSEN), max_size=1), assigned),
)


def refused(arguments: list[str], assigned: tuple[str, str] | None = None) -> str | None:
    """What a command line is answered with; None where it is possible. Fails on anything but that.

    Args:
        assigned: a setting that is text, given last, and what it has to be then.
    """
    arguments = [*arguments, *(["=".join(assigned)] if assigned else [])]
    said = io.StringIO()
    found: list[Any] = []

    def program(words: list[str]) -> None:
        found.append(config.load_run(words))

    before, sys.argv = sys.argv, ["train.py", *arguments]
    try:
        with contextlib.redirect_stderr(said), time_limit(PATIENCE):
            run_cli(program)
    except SystemExit as ended:
        assert ended.code == 2, f"exit status {ended.code}"
        message = said.getvalue()
        assert message.startswith("error: ") and "Traceback" not in message, message
        assert message.count("\n") == 1, f"{message.count(chr(10))} lines: {message!r}"
        assert len(message) < 20_000, "a message that nobody reads"
        return message
    finally:
        sys.argv = before
    with time_limit(PATIENCE):  # what is possible can be kept and found again
        (once,) = found
        text = once.to_yaml()
        again = OmegaConf.to_container(OmegaConf.create(text))
        assert set(again) == set(config.sections()) | {"trainer"}
        if assigned:
            key, typed = assigned
            assert functools.reduce(getattr, key.split("."), once) == typed
            for read in (again, yaml.safe_load(text)):
                assert functools.reduce(dict.__getitem__, key.split("."), read) == typed
    return None


def run(count: int, seed: int, folder: Path) -> Counter:
    """So many command lines: how many were refused, and how many possible."""
    place = folder / "recipes"
    place.mkdir(exist_ok=True)

    def check(case: tuple[list[bytes], list[str], tuple[str, str] | None]) -> str:
        contents, words, text = case
        files = []
        for i, content in enumerate(contents):
            files.append(place / f"{i}.yaml")
            files[-1].write_bytes(content)
        answer = refused([f"run.root={folder}/runs", *map(str, files), *words], text)
        return "refused" if answer else "possible"

    return run_cases(count, seed, cases, check)
