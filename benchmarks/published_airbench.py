"""airbench94 (Jordan 2024) run by its own published code, on images that are given.

On a GPU it is as published. On a CPU network, optimizer, schedule, augmentation and evaluation are its own
code as well; what differs is in `ON_A_CPU`.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from benchmarks.time_to_accuracy import Curve, Point
from vitrine.core.image_dataset import ImageDataset

ON_A_CPU = (
    "weights, their updates, logits and the loss are float32 where they are half; the forward and backward "
    "pass are {precision} where they are half; images stay half, as published; seconds are the wall clock's "
    "where they are those of CUDA events"
)


def missing() -> str:
    """What to install, in one line; empty if nothing."""
    is_there = importlib.util.find_spec("airbench") is not None
    return "" if is_there else "airbench is not installed: pip install airbench==0.1.8"


def write_files(folder: Path, train: ImageDataset, test: ImageDataset, classes: list[str]) -> None:
    """Images in memory as airbench's loader keeps them, in FOLDER/cifar10."""
    place = folder / "cifar10"
    place.mkdir()
    for name, split in (("train", train), ("test", test)):
        images = split.images.permute(0, 2, 3, 1).contiguous()
        torch.save({"images": images, "labels": split.labels, "classes": classes}, place / f"{name}.pt")


def train(
    folder: Path, device: torch.device, bf16: bool, epochs: float | None, warmup: bool = False
) -> Curve:
    """airbench94's curve on the images in FOLDER/cifar10; its last point is with test-time augmentation.

    Args:
        bf16: on a CPU: bfloat16 under autocast, else float32.
        epochs: of its whole schedule; None: the published 9.9.
        warmup: one step alone, as it runs it before the clock starts; the curve is empty.
    """
    import airbench.utils
    from airbench import lib_airbench94 as code

    rows: list[Mapping[str, Any]] = []
    hyp = code.hyp
    with contextlib.ExitStack() as scope:
        scope.enter_context(contextlib.chdir(folder))
        collect = mock.patch.object(
            airbench.utils, "print_training_details", lambda variables, **_: rows.append(dict(variables))
        )
        scope.enter_context(collect)
        scope.enter_context(mock.patch.object(airbench.utils, "print_columns", lambda *_, **__: None))
        make_net = code.make_net94
        if device.type == "cpu":
            scope.enter_context(_on_a_cpu(airbench.utils))
            make_net = functools.partial(_network_on_a_cpu, code.make_net94, bf16)
        batch = hyp["opt"]["batch_size"]
        loader = airbench.utils.CifarLoader(
            "cifar10", train=True, batch_size=batch, aug=hyp["aug"], altflip=True
        )
        code.train94(
            loader,
            epochs=hyp["opt"]["train_epochs"] if epochs is None else epochs,
            make_net=make_net,
            run=-1 if warmup else 0,
        )
    return Curve() if warmup else curve_of(rows)


def curve_of(rows: list[Mapping[str, Any]]) -> Curve:
    """The curve of what airbench tells of each epoch, and of its last evaluation.

    An epoch's seconds are what its clock has gained. The first has the whitening of the first layer in it;
    the last, which may be a part of one, is left out unless it is whole.
    """
    curve, before = Curve(), 0.0
    for row in rows:
        seconds = row["total_time_seconds"]
        if row["epoch"] == "eval":
            curve.points.append(Point(seconds, row["tta_val_acc"]))
            continue
        curve.points.append(Point(seconds, row["val_acc"]))
        if row["epoch"] + 1 <= row["epochs"]:
            curve.epochs.append(seconds - before)
        before = seconds
    return curve


class _Clock:
    """What of torch.cuda the training loop uses, by the wall clock."""

    class Event:
        def __init__(self, enable_timing: bool = False):
            self.at = 0.0

        def record(self) -> None:
            self.at = time.perf_counter()

        def elapsed_time(self, later: _Clock.Event) -> float:
            return 1000 * (later.at - self.at)

    @staticmethod
    def synchronize() -> None:
        """Nothing is under way on a CPU."""


@contextlib.contextmanager
def _on_a_cpu(code: ModuleType) -> Iterator[None]:
    """Within the scope its loader leaves tensors on the CPU, and its clock is the wall's."""
    own = SimpleNamespace(**{**vars(torch), "cuda": _Clock})
    loader = functools.partial(code.CifarLoader, gpu="cpu")
    with mock.patch.multiple(code, torch=own, CifarLoader=loader):
        yield


def _network_on_a_cpu(make_net: Any, bf16: bool) -> nn.Module:
    """Its network with float32 weights, which takes half images and gives float32 logits."""

    def stay(module: nn.Module, *_: Any) -> nn.Module:
        return module

    with mock.patch.multiple(nn.Module, half=stay, cuda=stay):
        network = make_net()
    plain = network.forward

    def forward(images: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            return plain(images.float()).float()

    network.forward = forward
    return network
