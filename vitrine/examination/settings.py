"""What holds for all analyses of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from vitrine.core.devices import find_device
from vitrine.core.registry import UnknownName
from vitrine.core.settings import check, setting


@dataclass
class AnalysisSettings:
    """Settings of section `analysis` for all techniques; each technique's own are below its name."""

    layers: Any = setting(
        "auto",
        "layers to analyze: auto (the last at each resolution) or a list of dotted names",
        hint=str | list[str],
    )
    units: Any = setting(
        8,
        "channels to show of each layer: how many, evenly spaced, or a list of channels",
        hint=int | list[int],
    )
    probes: int = setting(8, "fixed images shown at every checkpoint, spread over the classes", least=1)
    split: str = setting("val", "the images that examples and probes come from", choices=("val", "train"))
    seed: int = setting(0, "everything random in the analyses comes from it", least=0, most=2**63 - 1)
    batch_size: int | None = setting(
        None,
        "images a batch in passes over the data set, and at most in any other; null: 256, fewer where images "
        "are large (on a CPU from 64 x 64 pixels on, on a GPU from 128 x 128)",
        least=1,
    )
    device: str = setting("auto", "where analyses run: auto (where training does), cpu, cuda, cuda:1, ...")
    strict: bool = setting(False, "an analysis that fails ends the training")
    mode: str = setting(
        "train",
        "who analyzes checkpoints: train; follow: `analyze.py RUN follow=true` elsewhere; off: nobody",
        choices=("train", "follow", "off"),
    )
    budget: float | None = setting(
        None,
        "share of the time trained since the last checkpoint that analyses may take, e.g. 0.1; null: any",
        above=0,
    )

    def check_device(self) -> None:
        """Raise SettingError where the device cannot be used in this process."""
        if self.device != "auto":
            find_device(self.device, "analysis.device")

    def of_subject(self) -> dict[str, Any]:
        """What decides the pictures of every technique, as plain containers; devices, batches and budgets
        do not."""
        layers = self.layers if isinstance(self.layers, str) else list(map(str, self.layers))
        units = int(self.units) if isinstance(self.units, int) else list(map(int, self.units))
        chosen = {"layers": layers, "units": units, "probes": int(self.probes)}
        return {**chosen, "split": self.split, "seed": int(self.seed)}

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Self:
        """The settings with these values, checked.

        Raises:
            UnknownName: a setting that there is not; with the nearest.
            SettingError: a value out of its range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in values:
            if name not in known:
                raise UnknownName("argument", name, known)
        settings = cls(**values)
        check(settings)
        return settings
