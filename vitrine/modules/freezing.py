"""Parts of a network that do not train: which they are, and what keeps them as they are."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from vitrine.core.registry import nearest
from vitrine.core.settings import SettingError
from vitrine.modules.surgery import head_layer

ALL_BUT_HEAD = "all_but_head"


@dataclass(frozen=True)
class FrozenPart:
    """Dotted names of what is frozen: parameters, and layers whose running statistics stay as they are.

    Dropout and stochastic depth within a frozen part go on: what they regularise is the part that trains.
    """

    parameters: tuple[str, ...]
    statistics: tuple[str, ...]

    def freeze(self, network: nn.Module) -> None:
        """From now on the parameters get no gradient, so that no optimizer touches them."""
        for name in self.parameters:
            network.get_parameter(name).requires_grad_(False)

    def keep_statistics(self, network: nn.Module) -> None:
        """Put the layers with running statistics into eval mode, whatever mode the network was put into."""
        for name in self.statistics:
            network.get_submodule(name).training = False

    def release(self, network: nn.Module) -> None:
        """From now on all of it trains."""
        for name in self.parameters:
            network.get_parameter(name).requires_grad_(True)
        for name in self.statistics:
            network.get_submodule(name).training = network.training


def find_frozen_part(network: nn.Module, freeze: str | Sequence[str], classes: int) -> FrozenPart:
    """What a setting freezes of the parameters that a network trains.

    Args:
        freeze: "all_but_head": all but the layer that head=new starts afresh (`surgery.head_layer`); or glob
            patterns, of which `*` matches dots too, of the dotted names of parameters or of modules, which
            then are frozen with all below.
        classes: of the network.

    Raises:
        SettingError: of model.freeze, if a pattern matches nothing that trains, or nothing is left to train.
    """
    trainable = [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    normalising = [n for n, m in network.named_modules() if getattr(m, "running_mean", None) is not None]
    if freeze == ALL_BUT_HEAD:
        try:
            head = head_layer(network, classes)
        except ValueError as error:
            raise SettingError("model.freeze", f"is {ALL_BUT_HEAD}, but {error}: give patterns") from None
        parameters = [name for name in trainable if head not in _with_owners(name)]
        statistics = normalising
    else:
        patterns = [freeze] if isinstance(freeze, str) else [str(pattern) for pattern in freeze]
        for pattern in patterns:
            _check_pattern(pattern, [*trainable, *normalising])
        parameters = [name for name in trainable if _matches(name, patterns)]
        kept = set(trainable) - set(parameters)
        statistics = [
            name
            for name in normalising
            if _matches(name, patterns) or (_any_below(name, parameters) and not _any_below(name, kept))
        ]
    if len(parameters) == len(trainable):
        raise SettingError("model.freeze", f"is {freeze}, which leaves nothing to train")
    return FrozenPart(tuple(parameters), tuple(statistics))


def _any_below(module: str, names: Collection[str]) -> bool:
    return any(name.startswith(f"{module}.") for name in names)


def _with_owners(name: str) -> Iterator[str]:
    """A dotted name and those of the modules that it is in, from the inside out."""
    while name:
        yield name
        name = name.rpartition(".")[0]


def _matches(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(part, pattern) for part in _with_owners(name) for pattern in patterns)


def _check_pattern(pattern: str, names: Sequence[str]) -> None:
    if any(_matches(name, [pattern]) for name in names):
        return
    known = list(dict.fromkeys(part for name in names for part in reversed(list(_with_owners(name)))))
    close = nearest(pattern, [*known, ALL_BUT_HEAD])
    hint = f"did you mean {' or '.join(close)}?" if close else f"its parts are {', '.join(_tops(known))}"
    raise SettingError("model.freeze", f"{pattern!r} matches nothing that trains; {hint}")


def _tops(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(name.split(".")[0] for name in names))
