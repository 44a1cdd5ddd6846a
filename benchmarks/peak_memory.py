"""The time and the peak memory of a block of code: of the process, or of a GPU."""

from __future__ import annotations

import ctypes
import gc
import time
from pathlib import Path
from types import TracebackType

import torch

STATUS, RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Peak:
    """Afterwards `seconds`, and `memory`: by how many bytes at most the memory in use was above that at the
    start. On Linux; of a GPU what torch allocated there."""

    def __init__(self, device: str | torch.device = "cpu"):
        self.device = torch.device(device)
        self.seconds, self.memory = 0.0, 0

    def __enter__(self) -> Peak:
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
            self._before = torch.cuda.memory_allocated(self.device)
        else:
            ctypes.CDLL(None).malloc_trim(0)  # else what was freed before is counted as in use
            RESET.write_text("5")  # VmHWM is the present again
            self._before = _resident("VmRSS")
        self._start = time.perf_counter()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        self.seconds = time.perf_counter() - self._start
        if self.device.type == "cuda":
            self.memory = torch.cuda.max_memory_allocated(self.device) - self._before
        else:
            self.memory = _resident("VmHWM") - self._before


def _resident(name: str) -> int:
    """Bytes of this process, by its name in /proc/self/status."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith(f"{name}:"))
    return int(line.split()[1]) * 1024
