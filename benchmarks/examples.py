"""Dataset examples for every convolution of a network in one pass, against the plain forward pass: at
most 1.05x.

    python -m benchmarks.examples [--device cuda] [--model resnet18] [--size 64] [--batch 128] [--batches 8]
        [--rounds 9]

The passes take turns batch by batch, in an order that turns as well: what is compared is a second or less
apart, so that a slower minute of the machine slows all alike. `top_examples` reads batches from a generator,
which runs and times the plain passes between two of them. Ratios are to the fastest of the plain
passes: of whole batches; split as the examples' pass splits them, so that a CPU's cache holds maps; and
so with channels innermost in memory, as analyses have images and kernels on a CPU.

All go over the same random images, whose units' top lists change as often as those of a shuffled data set.
The lists begin empty, so that each image of the first batches enters many of them, and ever fewer do: the
first and the last batch are rows of their own. What comes after the last batch is a share of the pass.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.ratio import Timing, hardware, table
from vitrine.analyses.example_search import images_in_cache, top_examples
from vitrine.core.memory_format import arrange_images

QUICK = "--rounds 2 --batches 2"
Batch = tuple[Tensor, Tensor]
PLAIN = ("forward pass", "split", "split, channels innermost")
EXAMPLES = "with dataset examples"


def passes(network: nn.Module, arranged: nn.Module) -> dict[str, Callable[[Tensor], object]]:
    """The plain forward pass over a batch: whole, split, and by the network with channels innermost."""

    def split(images: Tensor, network: nn.Module = network) -> None:
        for part in images.split(images_in_cache(images)):
            network(part)

    return dict(zip(PLAIN, (network, split, partial(split, network=arranged))))


@dataclass
class Turns:
    """Batches for a pass over them; between two of them the plain passes over the same batch are timed."""

    plain: dict[str, Callable[[Tensor], object]]
    batches: Sequence[Batch]
    seconds: list[dict[str, float]] = field(default_factory=list)  # of each batch, by contestant
    ended: float = 0.0  # when the last batch was done

    def __iter__(self) -> Iterator[Batch]:
        for turn, batch in enumerate(self.batches):
            of: dict[str, float] = {}
            order = [*self.plain, ""]
            for name in order[turn % len(order) :] + order[: turn % len(order)]:
                self._wait()
                start = time.perf_counter()
                if name:
                    self.plain[name](batch[0])
                else:
                    yield batch
                self._wait()
                of[name or EXAMPLES] = time.perf_counter() - start
            self.seconds.append(of)
        self.ended = time.perf_counter()

    def _wait(self) -> None:
        if self.batches[0][0].is_cuda:
            torch.cuda.synchronize()


def timings(turns: Sequence[dict[str, float]]) -> list[Timing]:
    """Of the batches, with the ratios to the plain pass that is the fastest one by its median."""
    seconds = {name: [of[name] for of in turns] for name in (*PLAIN, EXAMPLES)}
    base = min((seconds[name] for name in PLAIN), key=statistics.median)
    return [Timing(name, own, [s / least for s, least in zip(own, base)]) for name, own in seconds.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--model", default="resnet18,squeezenet1_0", help="torchvision names")
    parser.add_argument("--size", type=int, default=64, help="side of the images, in pixels")
    parser.add_argument("--batch", type=int, default=128, help="images a batch")
    parser.add_argument("--batches", type=int, default=8, help="batches a pass")
    parser.add_argument("--rounds", type=int, default=9, help="passes, after one that is not counted")
    options = parser.parse_args()
    print(hardware(options.device), end="\n\n")
    for name in options.model.split(","):
        torch.manual_seed(0)
        network = torchvision.models.get_model(name, weights=None).to(options.device).eval()
        layers = [layer for layer, module in network.named_modules() if isinstance(module, nn.Conv2d)]
        units = sum(module.out_channels for module in network.modules() if isinstance(module, nn.Conv2d))
        shape = (options.batch, 3, options.size, options.size)
        loader = [
            (torch.rand(shape, device=options.device), torch.zeros(options.batch, dtype=torch.int64))
            for _ in range(options.batches)
        ]
        arranged = copy.deepcopy(network)
        arrange_images(arranged, loader[0][0])
        top_examples(arranged, loader[:1], layers)
        rounds, after = [], []
        for _ in range(options.rounds):
            turns = Turns(passes(network, arranged), loader)
            top_examples(arranged, turns, layers)
            after.append(time.perf_counter() - turns.ended)
            rounds.append(turns.seconds)
        title = (
            f"{name}: {len(layers)} convolutions, {units} units; "
            f"{options.rounds} x {options.batches} batches of {options.batch} images of {options.size} pixels"
        )
        every = timings([of for seconds in rounds for of in seconds])
        print(table(every, title))
        for place, at in {"first": 0, "last": -1}.items():
            own = timings([seconds[at] for seconds in rounds])[-1]
            low, high = own.spread
            figures = f"{own.median:.4g} | {own.ratio:.3f} | {low:.3f} to {high:.3f}"
            print(f"| of these the {place} batch | {figures} |")
        share = statistics.median(after) / (options.batches * min(t.median for t in every[:-1]))
        print(f"\nafter the last batch: {share:.2%} of the plain passes\n")


if __name__ == "__main__":
    main()
