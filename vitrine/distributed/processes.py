"""The processes of a launcher, before torch.distributed is initialised.

torchrun and srun start all processes at once; `python train.py trainer.devices=2` starts one, and Lightning
starts the others with the same command line when training begins. Rank 0 decides (the name of the run, the
checkpoint to resume from); if one rank cannot start, none does.
"""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from vitrine.core.settings import SettingError
from vitrine.distributed.interruption import Interrupted

BROADCAST = "VITRINE_BROADCAST"  # environment variable: the values for processes that Lightning starts
GRACE = 5.0  # seconds in which an error that all ranks have is reported by rank 0 alone
_stores: list[Any] = []  # kept alive: rank 0 serves them until it ends


class Processes:
    """This process among those that a launcher started, with ranks as torchrun defines them.

    A context manager: an exception before the broadcast ends all processes with the same exit status.
    """

    def __init__(self, rank: int = 0, world_size: int = 1, local_rank: int = 0, local_world_size: int = 1):
        self.rank, self.world_size = rank, world_size
        self.local_rank, self.local_world_size = local_rank, local_world_size
        self.is_global_zero = rank == 0
        self._store: Any = None
        self._started = False  # the broadcast was sent or received

    def __enter__(self) -> Self:
        if self.world_size > 1:
            from torch.distributed import PrefixStore, rendezvous

            store, _, _ = next(rendezvous("env://", self.rank, self.world_size))
            _stores.append(store)
            self._store = PrefixStore(f"vitrine/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if error is None or self._started or self._store is None or isinstance(error, _OtherFailed):
            return
        if not self.is_global_zero and isinstance(error, SettingError) and self._failed(within=GRACE):
            raise SystemExit(2)  # rank 0 reports it
        status = 2 if isinstance(error, SettingError) else 1
        if isinstance(error, Interrupted):
            status = error.status
        self._store.set("failed", str(status))
        if self.is_global_zero:  # the others read the failure from its store
            others = [f"failure_seen/{rank}" for rank in range(1, self.world_size)]
            self._poll(others, within=GRACE)

    def barrier(self) -> None:
        """Wait until all processes are here; SystemExit if one failed."""
        if self._store is not None:
            self._store.set(f"barrier/{self.rank}", "")
            for rank in range(self.world_size):
                self._wait(f"barrier/{rank}")

    def broadcast(self, **values: Any) -> None:
        """On rank 0: send values (JSON's types) to the processes that `receive`, now or once they start."""
        os.environ[BROADCAST] = json.dumps(values)
        if self._store is not None:
            self._store.set("broadcast", os.environ[BROADCAST])
        self._started = True

    def receive(self) -> dict[str, Any]:
        """On the other ranks: the values that rank 0 broadcasts.

        Raises:
            SystemExit: another process failed.
            SettingError: there is no broadcast, as this process was started by hand.
        """
        if self._store is not None:
            values = json.loads(self._wait("broadcast"))
            self._started = True
            return values
        if BROADCAST not in os.environ:
            rank, expected = os.environ.get("LOCAL_RANK"), "expected torchrun, srun or trainer.devices=N"
            problem = f"is {rank} here, and no process with LOCAL_RANK=0 started this one; {expected}"
            raise SettingError("LOCAL_RANK", problem)
        return json.loads(os.environ[BROADCAST])

    @contextmanager
    def local_rank_zero_first(self) -> Iterator[None]:
        """A scope that local rank 0 of each node runs before the node's other processes, e.g. to download."""
        if self._store is None:
            yield
            return
        key = f"prepared/{self.rank - self.local_rank}"
        if self.local_rank:
            self._wait(key)
        yield
        if not self.local_rank:
            self._store.set(key, "")

    def with_launched_devices(self, trainer: dict[str, Any]) -> dict[str, Any]:
        """Arguments of lightning.Trainer, with `devices` and `num_nodes` of the launched processes.

        Raises:
            SettingError: they ask for other numbers.
        """
        if self.world_size == 1:
            return trainer
        launched = {"devices": self.local_world_size, "num_nodes": self.world_size // self.local_world_size}
        for name, number in launched.items():
            value = trainer.get(name)
            if value not in (None, "auto", -1, 1, number, str(number)):  # 1 is the default
                started = f"{self.local_world_size} processes on each of {launched['num_nodes']} nodes"
                problem = f"is {value}, but the launcher has started {started}; leave it out"
                raise SettingError(f"trainer.{name}", problem)
        return {**trainer, **launched}

    def _wait(self, key: str) -> bytes:
        """A value of the store, once it is set."""
        while not self._store.check([key]):
            if self._failed():
                raise _OtherFailed(int(self._store.get("failed")))
            time.sleep(0.05)
        return self._store.get(key)

    def _failed(self, within: float = 0.0) -> bool:
        """Whether another process failed, which this one then acknowledges."""
        failed = self._poll(["failed"], within)
        if failed:
            self._store.set(f"failure_seen/{self.rank}", "")
        return failed

    def _poll(self, keys: list[str], within: float) -> bool:
        """Whether all these values are set within so many seconds."""
        end = time.monotonic() + within
        while not (there := self._store.check(keys)) and time.monotonic() < end:
            time.sleep(0.05)
        return there


class _OtherFailed(SystemExit):
    """Another process failed, and reports why."""


def launched() -> Processes:
    """The processes that torchrun, srun or Lightning launched, from their environment variables."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:  # torchrun
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Processes(*(int(env[name]) for name in names))
    if int(env.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in env:
        from lightning.fabric.plugins.environments import SLURMEnvironment

        if SLURMEnvironment.detect():
            _ = (slurm := SLURMEnvironment()).main_address, slurm.main_port  # puts both where torch looks
            size = slurm.world_size()
            local_size = int(env.get("SLURM_NTASKS_PER_NODE", size // int(env.get("SLURM_NNODES", 1))))
            return Processes(slurm.global_rank(), size, slurm.local_rank(), local_size)
    return Processes(int(env.get("LOCAL_RANK", 0)))
