"""What part of each technique is measured, and how the whole is computed from it."""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from unittest import mock

import torch
from torch import Tensor, nn

from vitrine.analyses.attribution import cam_layer
from vitrine.analyses.base import Analysis, Probes, Subject
from vitrine.analyses.head_features import Features
from vitrine.analyses.layout import layouts
from vitrine.core.image_dataset import ImageDataset
from vitrine.examination.settings import AnalysisSettings
from vitrine.examination.subject import make_subject

PROBES, UNITS = 8, 8


class Clock:
    """Seconds and images of passes over the splits, "val" and "train", and over what a head reads, "read"."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.images: Counter[str] = Counter()

    def clear(self) -> None:
        self.seconds.clear()
        self.images.clear()

    def time(self, split: str, batches: Iterable[tuple[Tensor, Tensor]]) -> Iterator[tuple[Tensor, Tensor]]:
        start = time.perf_counter()
        for images, labels in batches:
            self.images[split] += len(images)
            yield images, labels
        self.seconds[split] += time.perf_counter() - start


@dataclass(frozen=True)
class TimedSubject(Subject):
    """A subject that times its passes over the splits, with what is done of each batch."""

    clock: Clock = field(default_factory=Clock)

    def batches(
        self, description: str = "data set", part: range | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return self.clock.time("val", super().batches(description, part))

    def train_batches(
        self, description: str = "training images", part: range | Tensor | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        return self.clock.time("train", super().train_batches(description, part))


@dataclass(frozen=True)
class Part:
    """A technique with settings so that it takes a part of the time, and by what the rest is multiplied."""

    analysis: Analysis
    factor: float = 1.0
    units: int | None = None  # a layer
    text: str = "all but passes over the data set"

    def reduce(self, subject: TimedSubject) -> TimedSubject:
        if self.units is None:
            return subject
        units = {layer: list(of)[: self.units] for layer, of in subject.units.items()}
        return dataclasses.replace(subject, units=units)

    def images(self, split: str, validation: int, training: int) -> int:
        """Of a pass over a split of that size."""
        if split == "val":
            return validation
        return min(training, getattr(self.analysis, "images", None) or training)


def parts(chosen: Mapping[str, Analysis], options: argparse.Namespace) -> dict[str, Part]:
    """Of each default technique, or of those named, what is measured."""
    probes, units, steps = options.probes, options.units, options.picture_steps
    by_probe, by_unit = f"{probes} of {PROBES} probes", f"{units} of {UNITS} units a layer"
    found = {}
    for name, analysis in chosen.items():
        if options.techniques and name not in options.techniques:
            continue
        names = {f.name for f in dataclasses.fields(analysis)}
        if name == "features":
            own = dataclasses.replace(analysis, steps=steps, classes=analysis.classes * units // UNITS)
            factor = UNITS / units * analysis.steps / steps
            found[name] = Part(own, factor, units, f"{by_unit}, {steps} of {analysis.steps} steps")
        elif "probes" in names and name != "samples":
            own = dataclasses.replace(analysis, probes=probes)
            found[name] = Part(own, PROBES / probes, None, by_probe)
        elif name == "localization":
            own = dataclasses.replace(
                analysis,
                images=analysis.images * probes // 8,
                curve_images=analysis.curve_images * probes // 8,
            )
            found[name] = Part(own, 8 / probes, None, f"{own.images} of {analysis.images} images")
        elif name == "unit_saliency":
            found[name] = Part(analysis, UNITS / units, units, by_unit)
        elif name == "unit_names":
            own = dataclasses.replace(analysis, images=min(options.images, analysis.images))
            factor = analysis.images / own.images
            found[name] = Part(own, factor, None, f"{own.images} of {analysis.images} images")
        else:
            found[name] = Part(analysis)
    return found


class Noise(ImageDataset):
    """Random images, each a function of its index, in as many classes."""

    def __init__(self, count: int, shape: tuple[int, ...], classes: int):
        self.count, self.shape = count, shape
        self.labels = torch.arange(count) % classes

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        generator = torch.Generator().manual_seed(index)
        return torch.randint(256, self.shape, dtype=torch.uint8, generator=generator), int(self.labels[index])


class Clusters(Noise):
    """What a trained network's head reads: of each image the centre of its class and something of its own,
    rectified."""

    def __init__(self, count: int, width: int, classes: int):
        super().__init__(count, (width, 1, 1), classes)
        self.centres = torch.randn(classes, width, generator=torch.Generator().manual_seed(0))

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        own = torch.randn(self.shape, generator=torch.Generator().manual_seed(index))
        label = int(self.labels[index])
        return (self.centres[label].view(self.shape) + own).relu(), label


@dataclass(frozen=True)
class _Splits:
    """As `make_subject` takes them."""

    train: ImageDataset
    val: ImageDataset
    classes: list[str]


def pick_subject(network: nn.Module, options: argparse.Namespace) -> TimedSubject:
    """The subject of a network on random images; of every fourth probe it says a wrong class."""
    size, classes = options.size, options.classes
    val = Noise(options.images, (3, size, size), classes)
    data = _Splits(Noise(classes, (3, size, size), classes), val, [f"class {i}" for i in range(classes)])
    settings = AnalysisSettings(units=UNITS, probes=PROBES)
    subject = make_subject(network, data, settings, device=options.device)
    layouts(network, subject.probes.images[:1], subject.layers)  # once a network, not once a batch
    cam_layer(subject)  # once a run
    with torch.no_grad():
        labels = network(subject.probes.images).argmax(1)
    labels[::4] = (labels[::4] + 1) % classes
    probes = Probes(subject.probes.images, labels, subject.probes.indices)
    return timed(dataclasses.replace(subject, probes=probes, learning_rate=0.1))


def head_alone(network: nn.Module, options: argparse.Namespace) -> TimedSubject:
    """The subject of a head as wide as the network's and of as many classes, on features of clusters."""
    last = [module for module in network.modules() if isinstance(module, nn.Linear)][-1]
    width, classes = last.in_features, options.classes
    split = Clusters(options.features, width, classes)
    head = nn.Linear(width, classes)
    nn.init.zeros_(head.bias)
    head.weight.data = split.centres.relu() / width  # as far as a class's mean tells it from others
    data = _Splits(split, split, [f"class {i}" for i in range(classes)])
    settings = AnalysisSettings(probes=PROBES, layers=["1"])
    whole = nn.Sequential(nn.Flatten(), head).to(options.device).eval()
    return timed(
        dataclasses.replace(make_subject(whole, data, settings, device=options.device), learning_rate=0.1)
    )


@contextmanager
def timed_features(clock: Clock) -> Iterator[None]:
    """Within the scope passes over what a head reads are timed, and features kept as those of so many images
    as are looked at: in half precision, converted anew in each pass."""
    blocks = Features.blocks

    def passing(self: Features, *args: torch.dtype) -> Iterator[tuple[slice, Tensor]]:
        start = time.perf_counter()
        for rows, block in blocks(self, *args):
            clock.images["read"] = len(self)
            yield rows, block
        clock.seconds["read"] += time.perf_counter() - start

    with (
        mock.patch.object(Features, "blocks", passing),
        mock.patch("vitrine.analyses.head_features.KEPT", 0),
        mock.patch("vitrine.analyses.training_pass.FULL", 0),
    ):
        yield


def timed(subject: Subject) -> TimedSubject:
    return TimedSubject(**{f.name: getattr(subject, f.name) for f in dataclasses.fields(subject)})
