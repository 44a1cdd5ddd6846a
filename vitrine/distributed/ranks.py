"""Collectives on Python objects among the ranks of a training run; a rank that fails blocks no other."""

import datetime
import io
import pickle
import time
import traceback
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from signal import Signals
from typing import Any

import torch
from torch import Tensor

from vitrine.core.memory import is_out_of_memory
from vitrine.distributed import interruption
from vitrine.distributed.interruption import Interrupted

TIMEOUT = datetime.timedelta(days=7)  # a rank may attack thousands of images while the others wait
_RUNNING, _DONE = "running", "done"


class RankFailed(RuntimeError):
    """Another rank failed, so that this one cannot go on."""


@dataclass(frozen=True)
class _Failure:
    """Why a rank left a collective."""

    kind: str  # "error", "other rank failed", "out of memory", "interrupted"
    line: str
    trace: str
    signal: int | None = None


class Ranks:
    """The ranks of a training run, for all communication but that of gradients.

    They have a gloo group of their own: examining a checkpoint may take one rank an hour, and the timeout of
    the training's group is minutes. Signals are expected to be deferred (`interruption.defer`); they are
    checked where leaving keeps the ranks in step.

    Args:
        rank, world_size, group: as in torch.distributed, on the CPU; without a group a single process.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, group: Any = None):
        self.rank, self.world_size, self.group = rank, world_size, group
        self._interrupted = False  # on all ranks at once: none receives any more

    @property
    def is_global_zero(self) -> bool:
        """Whether this is rank 0, which decides, writes and logs."""
        return self.rank == 0

    def all_gather(self, value: Any) -> list[Any]:
        """Every rank's value, by rank, tensors on the CPU; returns once all ranks have called it.

        Raises:
            Exception: the value cannot be pickled; then nothing was sent.
            RuntimeError: a rank is gone.
        """
        if self.world_size == 1:
            return [value]
        buffer = io.BytesIO()
        _Pickler(buffer).dump(value)
        data = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
        sizes = [int(size) for size in self._all_gather_tensor(torch.tensor([len(data)]))]
        padded = torch.zeros(max(sizes), dtype=torch.uint8)
        padded[: len(data)] = data
        parts = self._all_gather_tensor(padded)
        return [pickle.loads(part[:size].numpy().tobytes()) for part, size in zip(parts, sizes)]

    def broadcast(self, value: Any) -> None:
        """On rank 0: send a value to the other ranks, which `receive` it."""
        self.all_gather((value, None))

    @contextmanager
    def broadcasting(self) -> Iterator[None]:
        """On rank 0: a scope of `broadcast`s. Its end ends `received` on the others, with its exception."""
        failure = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            if not self._interrupted:
                self.all_gather((None, _failure(failure)))

    def received(self) -> Iterator[Any]:
        """On the other ranks: all that rank 0 broadcasts, until it ends the broadcast.

        Raises:
            RankFailed, MemoryError, Interrupted or KeyboardInterrupt: rank 0 failed.
        """
        while True:
            value, failure = self.all_gather(None)[0]
            if failure is not None:
                raise _common_exception([failure], None)
            if value is None:
                return
            yield value

    def run_collective(self, work: Callable[[Callable[[Any], list[Any]]], Any]) -> Any:
        """`work(all_gather)` on all ranks at once; its result on this rank, once all have left `work`.

        If a rank fails in `work`, the others fail at their next `all_gather` or at the end of their `work`.

        Raises:
            Exception: that of this rank's work, or RankFailed where only other ranks failed; MemoryError on
                all ranks if one ran out of memory.
            Interrupted: on all ranks if one received a signal; KeyboardInterrupt likewise for any other
                BaseException.
        """
        if self.world_size == 1:
            return work(lambda value: [value])
        result, error = None, None
        try:
            result = work(self._all_gather_running)
        except BaseException as raised:
            error = raised
        failures = self._leave(_failure(error))
        if any(failures):
            common = _common_exception(failures, error)
            self._interrupted = not isinstance(common, Exception)
            raise common from (error if error is not common else error.__cause__)
        return result

    def _all_gather_running(self, value: Any) -> list[Any]:
        """`all_gather` among ranks that are still in `run_collective`."""
        interruption.check()
        answers = self.all_gather((_RUNNING, value))
        gone = [rank for rank, (state, _) in enumerate(answers) if state == _DONE]
        if gone:
            why = answers[gone[0]][1]
            raise RankFailed(f"rank {gone[0]}: {why.line if why else 'has ended, and this one waits for it'}")
        return [value for _, value in answers]

    def _leave(self, own: _Failure | None) -> list[_Failure | None]:
        """The failure of every rank, once all have left; None for those that succeeded."""
        while True:
            answers = self.all_gather((_DONE, own))
            if all(state == _DONE for state, _ in answers):
                return [failure for _, failure in answers]

    def _all_gather_tensor(self, tensor: Tensor) -> list[Tensor]:
        found = [torch.empty_like(tensor) for _ in range(self.world_size)]
        work = torch.distributed.all_gather(found, tensor, group=self.group, async_op=True)
        pause = 1e-4
        while not work.is_completed():  # work.wait() would let no signal handler run
            time.sleep(pause)
            pause = min(2 * pause, 0.02)
        work.wait()  # raises what went wrong
        return found


SINGLE_PROCESS = Ranks()


def ranks_of_trainer(trainer: Any) -> Ranks:
    """The ranks of a lightning.Trainer that is set up; a collective at the first call."""
    if trainer.world_size == 1:
        return SINGLE_PROCESS
    if trainer not in _of_trainer:
        group = torch.distributed.new_group(backend="gloo", timeout=TIMEOUT)
        _of_trainer[trainer] = Ranks(trainer.global_rank, trainer.world_size, group)
    return _of_trainer[trainer]


_of_trainer: weakref.WeakKeyDictionary[Any, Ranks] = weakref.WeakKeyDictionary()


def _failure(error: BaseException | None) -> _Failure | None:
    if error is None:
        return None
    if not isinstance(error, Exception):
        kind = "interrupted"
    elif is_out_of_memory(error):
        kind = "out of memory"
    else:
        kind = "other rank failed" if isinstance(error, RankFailed) else "error"
    line = traceback.format_exception_only(error)[0].strip()
    number = int(error.signal) if isinstance(error, Interrupted) else None
    return _Failure(kind, line, "".join(traceback.format_exception(error)), number)


def _common_exception(failures: list[_Failure | None], own: BaseException | None) -> BaseException:
    """The exception to raise on this rank, given how every rank failed and this rank's own exception."""

    def first(kind: str) -> int | None:
        return next((rank for rank, failure in enumerate(failures) if failure and failure.kind == kind), None)

    if (rank := first("interrupted")) is not None:
        signals = [failure.signal for failure in failures if failure and failure.signal is not None]
        if signals:
            return Interrupted(Signals(signals[0]))
        return KeyboardInterrupt(f"rank {rank}: {failures[rank].line}")
    if (rank := first("out of memory")) is not None:
        return MemoryError(f"rank {rank}: {failures[rank].line}")
    rank = first("error")
    if own is not None and (rank is None or not isinstance(own, RankFailed)):
        return own
    rank = first("other rank failed") if rank is None else rank
    error = RankFailed(f"rank {rank}: {failures[rank].line}")
    error.add_note(failures[rank].trace)
    return error


class _Pickler(pickle.Pickler):
    """Pickles of a tensor only its own values: not the storage that it is a view of, nor its device."""

    def reducer_override(self, value: Any) -> Any:
        if not isinstance(value, Tensor):
            return NotImplemented
        own = value.detach().cpu().clone(memory_format=torch.contiguous_format)
        return own.__reduce_ex__(pickle.DEFAULT_PROTOCOL)
