"""Collectives of ranks: none waits in vain, and each learns what went wrong on another."""

import os
import time
from signal import Signals

import launch
import pytest
import torch
import torch.distributed as dist

from vitrine.distributed.interruption import Interrupted
from vitrine.distributed.ranks import Ranks


def ranks() -> Ranks:
    dist.init_process_group("gloo")
    return Ranks(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo"))


def gathered() -> list:
    group = ranks()
    large = torch.arange(1_000_000.0)
    said = {"view": large[3:5], "half": torch.ones(2, 1).bfloat16(), "none": torch.empty(0, 3)}
    found = []
    for rank, came in group.all_gather((group.rank, said)):
        held = came["view"].untyped_storage().nbytes()
        found.append((rank, came["view"].tolist(), held, str(came["half"].dtype), list(came["none"].shape)))
    return found


@pytest.mark.slow
def test_every_rank_gets_what_every_rank_hands_in():
    for found in launch.run_ranks(gathered):  # and the two numbers only, not the million they are a view of
        assert found == [(rank, [3.0, 4.0], 8, "torch.bfloat16", [0, 3]) for rank in (0, 1)]


def work(case: str, rank: int, all_gather) -> str:
    """What rank 1 does in each case; the other gathers twice and is done."""
    if rank == 1:
        if case == "before":
            raise ValueError("on purpose")
        if case == "ends early":
            return "early"
        if case == "cannot be sent":
            all_gather(lambda: None)
        if case == "memory":
            raise MemoryError("no more")
        if case == "signal":
            raise Interrupted(Signals.SIGTERM)
        if case == "exit":
            raise SystemExit(3)
    first = all_gather(rank)
    if case == "between" and rank == 1:
        raise ValueError("on purpose")
    if case == "contained" and rank == 0:
        try:
            all_gather(0)
        except RuntimeError:
            return "went on"
    if case == "contained" and rank == 1:
        raise ValueError("on purpose")
    second = all_gather(first)
    if case == "after" and rank == 1:
        raise ValueError("on purpose")
    return f"{first} {second}"


CASES = {  # how it ends on rank 0 and on rank 1
    "well": ("[0, 1] [[0, 1], [0, 1]]", "[0, 1] [[0, 1], [0, 1]]"),
    "before": ("RankFailed: rank 1: ValueError: on purpose", "ValueError: on purpose"),
    "between": ("RankFailed: rank 1: ValueError: on purpose", "ValueError: on purpose"),
    "after": ("RankFailed: rank 1: ValueError: on purpose", "ValueError: on purpose"),
    "contained": ("RankFailed: rank 1: ValueError: on purpose", "ValueError: on purpose"),
    "ends early": ("RankFailed: rank 1: has ended, and this one waits for it", "RankFailed: rank 0: "),
    "cannot be sent": ("RankFailed: rank 1: ", "lambda"),
    "memory": ("MemoryError: rank 1: MemoryError: no more", "MemoryError: rank 1: MemoryError: no more"),
    "signal": ("Interrupted: SIGTERM", "Interrupted: SIGTERM"),
    "exit": ("KeyboardInterrupt: rank 1: SystemExit: 3", "KeyboardInterrupt: rank 1: SystemExit: 3"),
}


def all_cases() -> list[tuple[str, float]]:
    group, ends = ranks(), []
    for case in CASES:
        start = time.monotonic()
        try:
            end = group.run_collective(lambda all_gather, case=case: work(case, group.rank, all_gather))
        except BaseException as error:
            end = f"{type(error).__name__}: {error}"
        assert group.all_gather(case) == [case, case]  # they are still in step
        ends.append((end, time.monotonic() - start))
    return ends


@pytest.mark.slow
def test_however_a_rank_leaves_the_others_learn_why_and_all_go_on():
    answers = launch.run_ranks(all_cases)
    for rank, ends in enumerate(answers):
        for (case, expected), (end, seconds) in zip(CASES.items(), ends, strict=True):
            assert expected[rank] in end, (rank, case)
            assert seconds < 5


def dies() -> str:
    group = ranks()
    if group.rank == 1:
        group.all_gather("here")
        os._exit(7)
    group.all_gather("here")
    group.run_collective(lambda all_gather: all_gather(1))
    return "went on"


@pytest.mark.slow
def test_a_rank_that_is_killed_is_not_waited_for():
    first, second = launch.run_ranks(dies, seconds=60)
    assert second == 7
    assert isinstance(first, str) and "went on" not in first


def broadcast() -> list:
    group, received = ranks(), []
    if group.is_global_zero:
        with group.broadcasting():
            group.broadcast({"step": 4})
        with pytest.raises(ValueError, match="on purpose"), group.broadcasting():
            group.broadcast("again")
            raise ValueError("on purpose")
        return []
    for _ in range(2):
        try:
            received.extend(group.received())
        except RuntimeError as error:
            received.append(str(error))
    return received


@pytest.mark.slow
def test_the_first_rank_broadcasts_and_its_failure_is_raised_on_all():
    assert launch.run_ranks(broadcast)[1] == [{"step": 4}, "again", "rank 0: ValueError: on purpose"]


def test_a_single_process_needs_no_group():
    alone = Ranks()
    assert alone.all_gather(3) == [3] and alone.run_collective(lambda all_gather: all_gather(2)) == [2]
    with pytest.raises(ValueError, match="as it is"):
        alone.run_collective(lambda _: (_ for _ in ()).throw(ValueError("as it is")))
