"""Several processes that look at a checkpoint together, and talk so that none waits in vain."""

from __future__ import annotations

import datetime
import io
import pickle
import time
import traceback
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from signal import Signals
from typing import Any

import torch
from torch import Tensor

from vitrine.core.memory import is_out_of_memory
from vitrine.distributed import interruption
from vitrine.distributed.interruption import Interrupted

PATIENCE = datetime.timedelta(days=7)  # a rank may attack thousands of images while the others wait
_AT_WORK, _DONE = "at work", "done"


class RankFailed(RuntimeError):
    """Another rank cannot go on, so that this one need not wait for it."""


@dataclass(frozen=True)
class _Ending:
    """How a rank left the work: "failed", "deserted" by another, "memory", "interrupted" (by a signal)."""

    kind: str
    line: str
    trace: str
    signal: int | None = None


class Ranks:
    """The processes of a training run, when they talk about anything but gradients.

    They have a gloo group of their own: while a rank looks for an hour, no other waits in the group that
    trains, whose timeout is minutes. Signals are expected to be deferred (`interruption`): they are asked for
    where leaving harms nobody.

    Args:
        rank, count: which of how many.
        group: of torch.distributed, on the CPU; not needed by one alone.
    """

    def __init__(self, rank: int = 0, count: int = 1, group: Any = None):
        self.rank, self.count, self.group = rank, count, group
        self._parted = False  # all have been interrupted together, and none listens any more

    @property
    def first(self) -> bool:
        """Whether this is the one that decides, writes and logs."""
        return self.rank == 0

    def gather(self, value: Any) -> list[Any]:
        """What every rank hands in, in order, tensors on the CPU; returns once all have.

        Raises:
            Exception: the value cannot be pickled; then nothing was said.
            RuntimeError: a rank is gone.
        """
        if self.count == 1:
            return [value]
        said = _pickled(value)
        sizes = [int(size) for size in self._all(torch.tensor([len(said)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(said)] = said
        return [pickle.loads(part[:size].numpy().tobytes()) for part, size in zip(self._all(padded), sizes)]

    def tell(self, value: Any) -> None:
        """On rank 0: what the others `hear`."""
        self.gather((value, None))

    def dismiss(self, failure: BaseException | None = None) -> None:
        """On rank 0: nothing is left to tell; what has befallen it, the others raise as well."""
        if not self._parted:
            self.gather((None, _ending(failure)))

    def hear(self) -> Any:
        """On another rank: what rank 0 tells next; None once it has nothing left to tell.

        Raises:
            RankFailed, MemoryError, Interrupted or KeyboardInterrupt: what has befallen rank 0.
        """
        told, ending = self.gather(None)[0]
        if ending is not None:
            raise _agreed([ending], None)
        return told

    def together(self, work: Callable[[Callable[[Any], list[Any]]], Any]) -> Any:
        """`work(exchange)` on all ranks at once, and what it returned on this one.

        However a rank leaves `work`, the others learn of it at their next `exchange` or at their end, and no
        rank returns before all have ended.

        Raises:
            Exception: what this rank's work raised, or RankFailed where only others failed; a MemoryError on
                all ranks where one ran out of memory.
            Interrupted: on all ranks, where a signal has reached one; any other BaseException likewise as a
                KeyboardInterrupt.
        """
        if self.count == 1:
            return work(lambda value: [value])
        result, failure = None, None
        try:
            result = work(self._exchange)
        except BaseException as error:
            failure = error
        endings = self._end(_ending(failure))
        if any(endings):
            raised = _agreed(endings, failure)
            self._parted = not isinstance(raised, Exception)
            raise raised from (failure if failure is not raised else failure.__cause__)
        return result

    def _exchange(self, value: Any) -> list[Any]:
        interruption.check()
        said = self.gather((_AT_WORK, value))
        gone = [rank for rank, (state, _) in enumerate(said) if state == _DONE]
        if gone:
            why = said[gone[0]][1]
            raise RankFailed(f"rank {gone[0]}: {why.line if why else 'has ended, and this one waits for it'}")
        return [value for _, value in said]

    def _end(self, own: _Ending | None) -> list[_Ending | None]:
        """How all ranks have ended; None where it went well."""
        while True:
            said = self.gather((_DONE, own))
            if all(state == _DONE for state, _ in said):
                return [ending for _, ending in said]

    def _all(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.count)]
        work = torch.distributed.all_gather(found, tensor, group=self.group, async_op=True)
        pause = 1e-4
        while not work.is_completed():  # work.wait() would let no signal handler run
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        work.wait()  # raises what went wrong
        return found


ALONE = Ranks()


def ranks_of(trainer: Any) -> Ranks:
    """The ranks of a lightning.Trainer that is set up; all of them ask at the same time, when first asked."""
    if trainer.world_size == 1:
        return ALONE
    if trainer not in _known:
        group = torch.distributed.new_group(backend="gloo", timeout=PATIENCE)
        _known[trainer] = Ranks(trainer.global_rank, trainer.world_size, group)
    return _known[trainer]


_known: weakref.WeakKeyDictionary[Any, Ranks] = weakref.WeakKeyDictionary()


def _ending(failure: BaseException | None) -> _Ending | None:
    if failure is None:
        return None
    kind = "failed"
    if not isinstance(failure, Exception):
        kind = "interrupted"
    elif is_out_of_memory(failure):
        kind = "memory"
    elif isinstance(failure, RankFailed):
        kind = "deserted"
    line = traceback.format_exception_only(failure)[0].strip()
    by = int(failure.signal) if isinstance(failure, Interrupted) else None
    return _Ending(kind, line, "".join(traceback.format_exception(failure)), by)


def _agreed(endings: list[_Ending | None], own: BaseException | None) -> BaseException:
    """What this rank raises, all being told of each other's endings."""

    def first(kind: str) -> int | None:
        return next((rank for rank, end in enumerate(endings) if end and end.kind == kind), None)

    if (rank := first("interrupted")) is not None:
        by = next((end.signal for end in endings if end and end.signal is not None), None)
        return (
            KeyboardInterrupt(f"rank {rank}: {endings[rank].line}")
            if by is None
            else Interrupted(Signals(by))
        )
    if (rank := first("memory")) is not None:
        return MemoryError(f"rank {rank}: {endings[rank].line}")
    rank = first("failed")
    if own is not None and (rank is None or not isinstance(own, RankFailed)):
        return own
    rank = first("deserted") if rank is None else rank
    error = RankFailed(f"rank {rank}: {endings[rank].line}")
    error.add_note(endings[rank].trace)
    return error


class _Pickler(pickle.Pickler):
    """Tensors as what they hold: without the storage that they are a view of, and on no device."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        bare = value.detach().cpu().contiguous()
        return _tensor, (bare.reshape(-1).view(torch.uint8).numpy().tobytes(), bare.dtype, tuple(bare.shape))


def _tensor(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    return (
        torch.frombuffer(bytearray(data), dtype=dtype).view(shape)
        if data
        else torch.empty(shape, dtype=dtype)
    )


def _pickled(value: Any) -> Tensor:
    buffer = io.BytesIO()
    _Pickler(buffer).dump(value)
    return torch.frombuffer(bytearray(buffer.getvalue()), dtype=torch.uint8)
