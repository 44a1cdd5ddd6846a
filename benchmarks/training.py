"""Training throughput: Classifier under Trainer against a plain hand-written loop on the same batches.

    python -m benchmarks.training [--network convnet] [--image-size 64] [--batch-size 128] [--steps 20]
    [--rounds 15]

Both train the same network with the same optimizer and schedule on batches that lie on the device already;
Classifier logs to a CSV file every 50 steps, and keeps training loss and accuracy, which the plain loop does
not. Only steps are timed, not Trainer's start and end: the loader that feeds Trainer stops the clock after
`steps` batches, lets the plain loop have its turn on the same batches, and goes on.
"""

from __future__ import annotations

import argparse
import copy
import logging
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from lightning import Trainer
from lightning.pytorch.loggers import CSVLogger
from torch import nn

from benchmarks.ratio import Timing, hardware, table
from vitrine.datamodules.base import Batch
from vitrine.modules import Classifier, OptimizerSettings, load_network, record_of
from vitrine.modules.objectives.standard import Standard
from vitrine.modules.optimizers import build_optimizer

QUICK = "--rounds 3 --steps 5"
WANTED = 0.95
SETTINGS = OptimizerSettings(lr=0.01)


def plain(network: nn.Module, batches: list[Batch], total: int, precision: str) -> Callable[[], None]:
    """A hand-written loop over `batches`, to be called as often as there are rounds."""
    optimizer, scheduler = build_optimizer(SETTINGS, network, total)
    device = batches[0].images.device.type

    def loop() -> None:
        for batch in batches:
            optimizer.zero_grad()
            with torch.autocast(device, torch.bfloat16, enabled=precision == "bf16-mixed"):
                loss = F.cross_entropy(network(batch.images), batch.labels)
            loss.backward()
            optimizer.step()
            scheduler.step()

    return loop


class Referee:
    """A loader of `rounds` times the same batches, which times whoever it feeds and, in between, `other`."""

    def __init__(self, batches: list[Batch], rounds: int, other: Callable[[], None]):
        self.batches, self.rounds, self.other = batches, rounds, other
        self.fed: list[float] = []
        self.others: list[float] = []

    def __len__(self) -> int:
        return self.rounds * len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self.rounds):
            start = self._now()
            self.other()
            turn = self._now()
            yield from self.batches
            self.others.append(turn - start)
            self.fed.append(self._now() - turn)

    def _now(self) -> float:
        if self.batches[0].images.is_cuda:
            torch.cuda.synchronize()
        return time.perf_counter()


def random_batches(arguments: argparse.Namespace, device: torch.device) -> list[Batch]:
    generator = torch.Generator().manual_seed(0)
    count, side = arguments.batch_size, arguments.image_size
    batches = []
    for i in range(arguments.steps):
        images = torch.rand(count, 3, side, side, generator=generator)
        labels = torch.randint(arguments.classes, (count,), generator=generator)
        parts = (images, labels, torch.arange(i * count, (i + 1) * count), torch.tensor(i))
        batches.append(Batch(*(part.to(device) for part in parts)))
    return batches


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    on_gpu = torch.cuda.is_available()
    parser.add_argument("--device", default="cuda" if on_gpu else "cpu")
    parser.add_argument("--network", default="resnet18" if on_gpu else "convnet")
    parser.add_argument("--stem", default="small" if on_gpu else "standard")
    parser.add_argument("--image-size", type=int, default=32 if on_gpu else 64)
    parser.add_argument("--batch-size", type=int, default=256 if on_gpu else 128)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--steps", type=int, default=20, help="steps a round")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--precision", default="32-true", choices=["32-true", "bf16-mixed"])
    arguments = parser.parse_args()
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    device = torch.device(arguments.device)
    options = {"stem": arguments.stem, "image_size": arguments.image_size}
    network = load_network(arguments.network, classes=arguments.classes, **options).to(device)
    batches = random_batches(arguments, device)
    rounds = arguments.rounds + 1  # the first warms up
    classifier = Classifier(copy.deepcopy(network), Standard(), SETTINGS, record_of(network).classes)
    referee = Referee(
        batches, rounds, plain(network, batches, rounds * len(batches), precision=arguments.precision)
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            max_epochs=1,
            accelerator=device.type,
            devices=1,
            precision=arguments.precision,
            logger=CSVLogger(folder),
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(classifier, referee)

    theirs, ours = referee.others[1:], referee.fed[1:]
    timings = [
        Timing("plain loop", theirs, [1.0] * len(theirs)),
        Timing("Classifier under Trainer", ours, [a / b for a, b in zip(ours, theirs)]),
    ]
    size = arguments.image_size
    title = (
        f"{arguments.steps} training steps of {arguments.network}, "
        f"batches of {arguments.batch_size} x 3 x {size} x {size}, {arguments.precision}"
    )
    print(hardware(device), "\n", sep="")
    print(table(timings, title))
    print(
        f"\nClassifier reaches {1 / timings[1].ratio:.3f} of the plain loop's throughput (wanted: {WANTED})"
    )


if __name__ == "__main__":
    main()
