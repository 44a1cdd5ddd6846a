"""The processes that a launcher has started together, before torch.distributed has brought them together.

torchrun and srun start all of them at once; `python train.py trainer.devices=2` starts one, and Lightning the
others with the same command line once it trains. Decisions (what the run is called, where it goes on) are the
first one's; what one of them cannot do, none begins.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Self

from vitrine.core.settings import SettingError

TOLD = (
    "VITRINE_TOLD"  # environment variable: what the first process tells those that Lightning starts from it
)
GRACE = 5.0  # seconds in which a mistake that all ranks have made is reported by the first alone
_kept: list[Any] = []  # stores, which the first process serves until it ends


class Processes:
    """This process and those started with it; one alone unless a launcher has said otherwise.

    A scope: what ends it before the first has told what to do ends all of them, with the same exit status.

    Attributes:
        rank, count: which this is of how many.
        first: whether this is the one that decides and writes.
    """

    def __init__(self, rank: int = 0, count: int = 1, local_rank: int = 0, local_count: int = 1):
        self.rank, self.count, self.local_rank, self.local_count = rank, count, local_rank, local_count
        self.first = rank == 0
        self._store: Any = None
        self._begun = False

    def __enter__(self) -> Self:
        if self.count > 1:
            from torch.distributed import PrefixStore, rendezvous

            store, _, _ = next(rendezvous("env://", self.rank, self.count))
            _kept.append(store)
            self._store = PrefixStore(f"vitrine/{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
        return self

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if error is None or self._begun or self._store is None or isinstance(error, _Told):
            return
        if not self.first and isinstance(error, SettingError) and self._failed(within=GRACE):
            raise SystemExit(2)  # the first has said what is wrong
        status = 2 if isinstance(error, SettingError) else getattr(error, "status", 1)
        self._store.set("failed", str(status))
        if self.first:  # it may be the one that serves what the others ask for
            self._all("noticed", within=GRACE)

    def meet(self) -> None:
        """Wait for all.

        Raises:
            SystemExit: one of them has failed.
        """
        if self._store is not None:
            self._store.set(f"met/{self.rank}", "")
            for rank in range(self.count):
                self._wait(f"met/{rank}")

    def tell(self, **facts: Any) -> None:
        """The first one's: what the others are `told`; plain containers."""
        os.environ[TOLD] = json.dumps(facts)
        if self._store is not None:
            self._store.set("told", os.environ[TOLD])
        self._begun = True

    def told(self) -> dict[str, Any]:
        """What the first one tells.

        Raises:
            SystemExit: one of them has failed.
            SettingError: nothing is told, as processes were started by hand.
        """
        if self._store is not None:
            told = json.loads(self._wait("told"))
            self._begun = True
            return told
        if TOLD not in os.environ:
            problem = (
                f"is {os.environ.get('LOCAL_RANK')} here, and no process with LOCAL_RANK=0 started this one"
            )
            raise SettingError("LOCAL_RANK", f"{problem}; expected torchrun, srun or trainer.devices=N")
        return json.loads(os.environ[TOLD])

    @contextmanager
    def one_a_node_first(self) -> Iterator[None]:
        """What downloads or unpacks: the first process of each node goes in alone, then the others."""
        if self._store is None:
            yield
            return
        key = f"prepared/{self.rank - self.local_rank}"
        if self.local_rank:
            self._wait(key)
        yield
        if not self.local_rank:
            self._store.set(key, "")

    def sized(self, trainer: dict[str, Any]) -> dict[str, Any]:
        """Arguments of lightning.Trainer with as many devices and nodes as processes were started.

        Raises:
            SettingError: others are asked for.
        """
        if self.count == 1:
            return trainer
        started = {"devices": self.local_count, "num_nodes": self.count // self.local_count}
        for name, number in started.items():
            asked = trainer.get(name)
            if asked not in (None, "auto", -1, 1, number, str(number)):  # 1 is what nobody has asked for
                problem = f"is {asked}, but the launcher has started {self.local_count} processes on each of "
                raise SettingError(f"trainer.{name}", f"{problem}{started['num_nodes']} nodes; leave it out")
        return {**trainer, **started}

    def _wait(self, key: str) -> bytes:
        """A value, as soon as it is there."""
        while not self._store.check([key]):
            if self._failed():
                raise _Told(int(self._store.get("failed")))
            time.sleep(0.05)
        return self._store.get(key)

    def _failed(self, within: float = 0.0) -> bool:
        """Whether another has failed; the others then know that this one knows."""
        end = time.monotonic() + within
        while not (failed := self._store.check(["failed"])) and time.monotonic() < end:
            time.sleep(0.05)
        if failed:
            self._store.set(f"noticed/{self.rank}", "")
        return failed

    def _all(self, what: str, within: float) -> None:
        end = time.monotonic() + within
        others = [f"{what}/{rank}" for rank in range(1, self.count)]
        while not self._store.check(others) and time.monotonic() < end:
            time.sleep(0.05)


class _Told(SystemExit):
    """Another process has failed, and said why."""


def started() -> Processes:
    """The processes that torchrun, srun or Lightning have started, by their environment variables."""
    env = os.environ
    if "TORCHELASTIC_RUN_ID" in env:  # torchrun
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        return Processes(*(int(env[name]) for name in names))
    if int(env.get("SLURM_NTASKS", 1)) > 1 and "SLURM_PROCID" in env:
        from lightning.fabric.plugins.environments import SLURMEnvironment

        if SLURMEnvironment.detect():
            _ = (slurm := SLURMEnvironment()).main_address, slurm.main_port  # puts both where torch looks
            count = slurm.world_size()
            local = int(env.get("SLURM_NTASKS_PER_NODE", count // int(env.get("SLURM_NNODES", 1))))
            return Processes(slurm.global_rank(), count, slurm.local_rank(), local)
    return Processes(int(env.get("LOCAL_RANK", 0)))
