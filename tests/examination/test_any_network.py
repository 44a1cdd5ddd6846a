"""Checkpoints of any network are examined: whatever form its logits come in, compiled or not."""

import dataclasses
import functools
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import tiny
import torch
from torch import Tensor, nn

from vitrine.analyses import ANALYSES
from vitrine.examination.examiner import weights_hash

SMALL = {  # settings of techniques that have many steps or images
    "steps": 2,
    "copies": 2,
    "images": 4,
    "queries": 4,
    "health_queries": 4,
    "targets": 1,
    "curve": [1],
    "probes": 2,
    "shown": 1,
    "draws": 2,
    "draws_each": 2,
    "octaves": 1,
    "classes": 1,
}


class Output(NamedTuple):
    aux: Tensor
    logits: Tensor


@dataclass
class Answer:
    logits: Tensor


class ModelOutput(OrderedDict):
    """Keys as attributes, as Hugging Face's."""

    __getattr__ = OrderedDict.__getitem__


class Returning(nn.Sequential):
    """The layers keep their names; what is returned is `form` of the logits."""

    form: Callable[[Tensor], Any] = staticmethod(lambda logits: logits)

    def forward(self, images: Tensor) -> Any:
        return self.form(super().forward(images))


class Keeping(Returning):
    """Keeps what it made last, with the history of it."""

    def forward(self, images: Tensor) -> Any:
        self.kept = [super().forward(images)]
        return self.kept[0]


class Attend(nn.Module):
    """Every position of a map attends to all: a technique for transformers has something to show, too."""

    def forward(self, maps: Tensor) -> Tensor:
        tokens = maps.flatten(2).mT[:, None]
        attended = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens)
        return maps + attended[:, 0].mT.unflatten(2, maps.shape[2:])


def network(form: Callable[[Tensor], Any] = Returning.form, kind: type = Returning) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), Attend()]
    made = kind(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()
    made.form = form
    return made


def called(compiled: nn.Module) -> nn.Module:
    compiled(torch.rand(2, 3, 8, 8))
    return compiled


def in_place(compiled: nn.Module) -> nn.Module:
    compiled.compile(backend="eager")
    return called(compiled)


NETWORKS = {
    "dict": lambda: network(lambda logits: {"aux": logits * 2, "logits": logits}),
    "namedtuple": lambda: network(lambda logits: Output(logits * 2, logits)),
    "object": lambda: network(Answer),
    "model_output": lambda: network(lambda logits: ModelOutput(logits=logits, hidden=(logits,))),
    "keeping": lambda: called(network(kind=Keeping)),
    "compiled": lambda: called(torch.compile(network(), backend="eager")),
    "compiled_in_place": lambda: in_place(network()),
    "compiled_dict": lambda: called(
        torch.compile(network(lambda logits: {"logits": logits}), backend="eager")
    ),
}


def examined(folder: Path, network: nn.Module, names: Iterable[str]) -> dict[str, Any]:
    """What each technique makes of a network: its pictures and numbers."""
    analyses = {}
    for name in names:
        chosen = {key: value for key, value in SMALL.items() if key in fields(ANALYSES[name])}
        analyses[name] = ANALYSES[name](**chosen | {"enabled": True})
    before = hooks(network)
    report = tiny.examiner(folder, analyses).examine(network, 5)
    assert report.errors == {}
    assert hooks(network) == before
    return {
        name: (
            [(f.key, f.caption, dict(f.values), f.image.numpy().tobytes()) for f in result.figures],
            [(scalar.key, repr(scalar.value)) for scalar in result.scalars],
        )
        for name, result in report.results.items()
    }


def fields(technique: type) -> set[str]:
    return {field.name for field in dataclasses.fields(technique)}


def hooks(network: nn.Module) -> list[tuple[str, dict[int, Any]]]:
    return [(name, dict(module._forward_hooks)) for name, module in network.named_modules()]


# those that attack draw and query for a second each
QUICK = [name for name in ANALYSES if not fields(ANALYSES[name]) & {"queries", "draws"}]
SLOW = [name for name in ANALYSES if name not in QUICK]


@functools.cache
def of_the_plain_network(names: tuple[str, ...]) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        made = examined(Path(folder), network(), names)
    unknown = made.keys() & {"truth", "shortcut"}  # of these images neither parts nor masks are known
    assert all(figures or scalars for name, (figures, scalars) in made.items() if name not in unknown)
    return made


@pytest.mark.parametrize(
    "form",
    [pytest.param(form, marks=() if form == "dict" else pytest.mark.slow) for form in NETWORKS],
)
@pytest.mark.parametrize(
    "names", [pytest.param(QUICK, id="quick"), pytest.param(SLOW, id="attacks", marks=pytest.mark.slow)]
)
def test_every_technique_makes_the_pictures_and_numbers_of_the_plain_network(names, form, tmp_path):
    assert examined(tmp_path, NETWORKS[form](), names) == of_the_plain_network(tuple(names))


@pytest.mark.parametrize("form", NETWORKS)
def test_its_weights_are_recognized(form):
    assert weights_hash(NETWORKS[form]()) == weights_hash(network())


def test_of_a_network_whose_logits_cannot_be_told_what_needs_them_is_refused_in_one_line(tmp_path):
    analyses = {name: ANALYSES[name]() for name in ("weights", "cam", "adversarial")}
    report = tiny.examiner(tmp_path, analyses).examine(network(lambda logits: (logits, logits)), 5)
    refusal = "ValueError: network: returns tuple of 2, expected logits [N, K], or an output with `logits`"
    assert report.errors == {"cam": refusal, "adversarial": refusal}
