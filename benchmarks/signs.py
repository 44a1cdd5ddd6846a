"""Seconds to draw the embedded data set.

python -m benchmarks.signs [--images 10000] [--size 64] [--repeats 3]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from vitrine.datamodules.drawing.atlas import atlas
from vitrine.datamodules.signs import SignImages

QUICK = "--repeats 1 --images 5000"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=64, help="pixels a side")
    parser.add_argument("--repeats", type=int, default=3)
    how = parser.parse_args()

    begun = time.perf_counter()
    atlas()
    print(f"{torch.get_num_threads()} threads; the faces' table, once: {time.perf_counter() - begun:.2f} s")
    seconds = []
    for repeat in range(how.repeats):
        begun = time.perf_counter()
        SignImages(repeat, how.images, how.size).draw_images(torch.arange(how.images))
        seconds.append(time.perf_counter() - begun)
    print(f"{'images':>10} {'side':>6} {'median s':>10} {'least s':>10} {'most s':>10} {'images/s':>10}")
    median = statistics.median(seconds)
    print(
        f"{how.images:>10,} {how.size:>6} {median:>10.2f} {min(seconds):>10.2f} {max(seconds):>10.2f} "
        f"{how.images / median:>10,.0f}"
    )


if __name__ == "__main__":
    main()
