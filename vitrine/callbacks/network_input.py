"""What the network in somebody's module is given in validation, measured beside what the loader yields."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor, nn
from torch.utils.data import SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from vitrine.core.network_scopes import full_isolation
from vitrine.datamodules.foreign import ForeignSplit, is_in_unit_range, plain_split
from vitrine.datamodules.input_normalization import IDENTITY, Normalization, measure_normalization
from vitrine.modules.network_search import find_network

log = logging.getLogger(__name__)

_KEY = "vitrine_network_input"  # in checkpoints


class NetworkInput:
    """Keeps the first images that a network is given in a validation batch, and compares them with the data.

    Modules normalise in their steps and in hooks of batch transfer, too, which no search of the data's
    transforms can see; the images tell. The sanity check shows it before the first step.

    Args:
        network: where it is in the module, see `find_network`.

    Attributes:
        normalization: between the loader's images and the network's; None: nothing was compared, or the
            ones are not the others normalised.
    """

    def __init__(self, network: str | Callable | None) -> None:
        self.network = network
        self.normalization: Normalization | None = None
        self._received: Tensor | None = None
        self._handle: Any = None
        self._started = False

    def start(self, module: nn.Module, loader: Any) -> None:
        """Keep what the network is given in the batch that begins, the first one; a failure keeps nothing."""
        if self._started:
            return
        self._started = True
        try:
            with full_isolation(module):
                split = plain_split(loader)
                images = split.raw(range(min(2, len(split))))[0].to(module.device, module.dtype)
                name, found = find_network(module, images, self.network)
            # a hook of a compiled module is called on the wrapper, not within
            found = module if name == "" else found if name is None else module.get_submodule(name)
            self._handle = found.register_forward_pre_hook(self._keep)
        except Exception:  # said where the training starts, with what to do about it
            log.debug("the network's input is not compared", exc_info=True)

    def stop(self, loader: Any) -> bool:
        """End what `start` began; whether anything was compared."""
        if self._handle is None:
            return False
        self._handle.remove()
        self._handle = None
        if self._received is None:
            return False
        with full_isolation():
            split = plain_split(loader)
            indices = _first_batch(loader, min(len(self._received), len(split)))
            self.normalization = measure_normalization(split.raw(indices)[0], self._received)
        return True

    def save(self, checkpoint: dict[str, Any]) -> None:
        """Put the normalization into a checkpoint that is to be written: a training that resumes from it has
        no sanity check."""
        if (known := self.normalization) is not None:
            saved = {"mean": list(known.mean), "std": list(known.std)}
            checkpoint.setdefault(_KEY, {})[self._name] = saved

    def load(self, checkpoint: Mapping[str, Any]) -> None:
        """Take the normalization that a checkpoint has, until it is measured anew."""
        if (known := checkpoint.get(_KEY, {}).get(self._name)) is not None:
            self.normalization = Normalization.of(known["mean"], known["std"])

    @property
    def _name(self) -> str:
        """Of the network, for several callbacks that examine one each."""
        return str(getattr(self.network, "__qualname__", self.network))

    def check(self, split: ForeignSplit) -> None:
        """Raise ValueError if images in [0, 1] were normalised on their way to the network, it is not known
        by what, and the split does not say."""
        received = self._received
        if received is None or self.normalization is not None or split.of_network is not None:
            return
        if not is_in_unit_range(received):
            came = f"from {float(received.min()):.3g} to {float(received.max()):.3g}"
            problem = f"the network is given images {came}, the loader yields 0 to 1"
            raise ValueError(
                f"mean: {problem}: give mean=(...) and std=(...) of the normalisation in between"
            )

    def correct(self, split: ForeignSplit) -> None:
        """Warn if a split that is examined already assumes another normalisation, and set it right."""
        if self.normalization is None:
            return
        actual = (split.of_images or IDENTITY).then(self.normalization)
        if not actual.is_close(split.of_network or IDENTITY):
            split.of_network = actual
            log.warning(
                "the network's input is normalised after the loader, by %s: pictures that were made before "
                "this validation are of images that were not",
                actual,
            )

    def _keep(self, _module: nn.Module, inputs: tuple[Any, ...]) -> None:
        images = inputs[0] if inputs else None
        if self._received is None and isinstance(images, Tensor) and images.ndim == 4:
            self._received = images.detach().float().cpu().clone()


def _first_batch(loader: Any, count: int) -> list[int]:
    """The indices of the loader's first images, on this rank."""
    if isinstance(getattr(loader, "sampler", None), (SequentialSampler, DistributedSampler)):
        batch = next(iter(loader.batch_sampler)) if loader.batch_sampler is not None else loader.sampler
        return list(batch)[:count]
    return list(range(count))
