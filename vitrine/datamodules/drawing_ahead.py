"""Training images that another process begins to draw while this one is still importing torch and Lightning.

These imports keep one core busy for seconds, and Python lets no thread beside them run for long. So a process
is forked before them, when there is neither a thread nor the state of a library that a fork could break. It
imports torch, without Lightning, and draws into memory that both have. Whoever comes first takes the next
chunk of images; when the first image is needed, this process takes all that are left.
"""

from __future__ import annotations

import dataclasses
import logging
import mmap
import multiprocessing
import os
import signal
import sys
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from vitrine.core.cores import available_cores
from vitrine.core.garbage import none_while_importing
from vitrine.datamodules import DRAWN
from vitrine.datamodules.cache_limit import is_cached

if TYPE_CHECKING:
    from torch import Tensor

    from vitrine.datamodules.drawn_images import DrawnImages

CHUNK = 2**20  # pixels that are drawn at once
MOST_CHUNKS = 4096  # their numbers, of two bytes, fit into a pipe
LEAST_PIXELS = 4 * 2**20  # fewer are drawn in less time than the process takes to import torch
PATIENCE = 60.0  # seconds in which a process draws the chunk that it has begun, however busy the machine

log = logging.getLogger(__name__)


class DrawingAhead:
    """The drawing of a training split by another process: begun, then collected or ended.

    Where that cannot pay or may fail (data that are not drawn, or not kept; few images; one core; another
    system than Linux), nothing is begun, and images are drawn when they are needed.
    """

    def __init__(self) -> None:
        self._process: Any = None
        self._of: tuple[dict[str, Any], int] | None = None  # settings and seed

    def begin(self, data: Any, seed: int) -> None:
        """Start drawing the training images that these settings of `data` describe."""
        may_fork = sys.platform == "linux" and not multiprocessing.current_process().daemon
        if not may_fork or data.name not in DRAWN or (cores := _cores()) < 2:
            return
        pixels = data.image_size**2
        size = 3 * pixels * (data.train_size + data.val_size)
        if data.train_size * pixels < LEAST_PIXELS or not is_cached(data.cache, size):
            return
        self._length = max(CHUNK // pixels, -(-data.train_size // MOST_CHUNKS), 1)
        self._count = -(-data.train_size // self._length)
        try:
            self._memory = mmap.mmap(-1, 3 * pixels * data.train_size)
            self._numbers, end = os.pipe()
            os.write(end, array("H", range(self._count)).tobytes())
            os.close(end)
            process = multiprocessing.get_context("fork").Process(
                target=self._draw, args=(data, seed, cores - 1, os.getpid()), daemon=True
            )
            process.start()
        except OSError as error:  # limits on memory or processes
            log.warning("training images are not drawn ahead, but when they are needed: %s", error)
            return
        self._process, self._of, self._by = process, (dataclasses.asdict(data), seed), os.getpid()

    def is_of(self, data: Any, seed: int) -> bool:
        """Whether the images that are drawn are those of these settings."""
        return self._of == (dataclasses.asdict(data), seed)

    def collect(self, split: DrawnImages) -> Tensor:
        """All images of the split that is drawn, uint8 [N, 3, H, W]: what is not yet is drawn now.

        In a process that was forked since it was begun all are, as what is drawn ahead is its parent's.
        """
        import torch

        from vitrine.datamodules.drawn_images import map_in_threads

        if self._by != os.getpid():
            return split.draw_images(torch.arange(len(split)))
        rest = array("H", b"".join(iter(lambda: os.read(self._numbers, 2**16), b"")))
        draw = self._drawer(split)
        map_in_threads(draw, rest)
        self._process.join(PATIENCE)
        if (status := self._process.exitcode) != 0:
            how = "hangs" if status is None else f"ended with status {status}"
            log.warning("the process that draws training images %s; they are drawn again", how)
            self.end()
            map_in_threads(draw, sorted({*range(self._count)} - {*rest}))
        self.end()
        return self._images(split)

    def end(self) -> None:
        """Stop drawing, if it has begun."""
        if self._process is None:
            return
        self._process.kill()
        self._process.join()
        self._process = self._of = None
        os.close(self._numbers)

    def _images(self, split: DrawnImages) -> Tensor:
        import torch

        size = split.image_size
        return torch.frombuffer(self._memory, dtype=torch.uint8).view(len(split), 3, size, size)

    def _drawer(self, split: DrawnImages) -> Callable[[int], None]:
        """A function that draws the chunk of a number into the memory."""
        import torch

        every, images = torch.arange(len(split)).split(self._length), self._images(split).split(self._length)

        def draw(number: int) -> None:
            images[number].copy_(split.draw_images(every[number]))

        return draw

    def _draw(self, data: Any, seed: int, threads: int, parent: int) -> None:
        """The other process, which ends soon after its parent, whatever ends that."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which sends it to both
        for number in (signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_DFL)
        with none_while_importing():
            import torch

            make_split = DRAWN[data.name]
        torch.set_num_threads(1)  # inherited by the threads started below
        draw = self._drawer(make_split(data, seed, "train"))

        def draw_what_is_left(_: int) -> None:
            while os.getppid() == parent and (number := os.read(self._numbers, 2)):
                draw(int.from_bytes(number, sys.byteorder))

        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(draw_what_is_left, range(threads)))


def _cores() -> int:
    """The cores that drawing may keep busy: as many threads as torch will have."""
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return int(asked) if asked.isdigit() else available_cores()
