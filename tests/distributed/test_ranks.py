"""Several ranks talk so that none waits in vain, and nobody has to say what went wrong twice."""

import os
import time
from signal import Signals

import crew
import pytest
import torch
import torch.distributed as dist

from vitrine.distributed.interruption import Interrupted
from vitrine.distributed.ranks import Ranks


def ranks() -> Ranks:
    dist.init_process_group("gloo")
    return Ranks(dist.get_rank(), dist.get_world_size(), dist.new_group(backend="gloo"))


def exchanged() -> list:
    those = ranks()
    large = torch.arange(1_000_000.0)
    said = {"view": large[3:5], "half": torch.ones(2, 1).bfloat16(), "none": torch.empty(0, 3)}
    found = []
    for rank, came in those.gather((those.rank, said)):
        held = came["view"].untyped_storage().nbytes()
        found.append((rank, came["view"].tolist(), held, str(came["half"].dtype), list(came["none"].shape)))
    return found


def test_every_rank_gets_what_every_rank_hands_in():
    for found in crew.together(exchanged):  # and the two numbers only, not the million they are a view of
        assert found == [(rank, [3.0, 4.0], 8, "torch.bfloat16", [0, 3]) for rank in (0, 1)]


def work(case: str, rank: int, exchange) -> str:
    """What rank 1 does in each case; the other exchanges twice and is done."""
    if rank == 1:
        if case == "before":
            raise ValueError("on purpose")
        if case == "ends early":
            return "early"
        if case == "cannot be sent":
            exchange(lambda: None)
        if case == "memory":
            raise MemoryError("no more")
        if case == "signal":
            raise Interrupted(Signals.SIGTERM)
        if case == "exit":
            raise SystemExit(3)
    first = exchange(rank)
    if case == "between" and rank == 1:
        raise ValueError("on purpose")
    if case == "contained" and rank == 0:
        try:
            exchange(0)
        except RuntimeError:
            return "went on"
    if case == "contained" and rank == 1:
        raise ValueError("on purpose")
    second = exchange(first)
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
    those, ends = ranks(), []
    for case in CASES:
        start = time.monotonic()
        try:
            end = those.together(lambda exchange, case=case: work(case, those.rank, exchange))
        except BaseException as error:
            end = f"{type(error).__name__}: {error}"
        assert those.gather(case) == [case, case]  # they are still in step
        ends.append((end, time.monotonic() - start))
    return ends


def test_however_a_rank_leaves_the_others_learn_why_and_all_go_on():
    answers = crew.together(all_cases)
    for rank, ends in enumerate(answers):
        for (case, expected), (end, seconds) in zip(CASES.items(), ends, strict=True):
            assert expected[rank] in end, (rank, case)
            assert seconds < 5


def dies() -> str:
    those = ranks()
    if those.rank == 1:
        those.gather("here")
        os._exit(7)
    those.gather("here")
    those.together(lambda exchange: exchange(1))
    return "went on"


def test_a_rank_that_is_killed_is_not_waited_for():
    first, second = crew.together(dies, seconds=60)
    assert second == 7
    assert isinstance(first, str) and "went on" not in first


def led() -> list:
    those, heard = ranks(), []
    if those.first:
        those.tell({"step": 4})
        those.dismiss()
        those.tell("again")
        those.dismiss(ValueError("befallen"))
        return []
    for _ in range(2):
        try:
            while (told := those.hear()) is not None:
                heard.append(told)
        except RuntimeError as error:
            heard.append(str(error))
    return heard


def test_the_first_rank_tells_and_what_befalls_it_befalls_all():
    assert crew.together(led)[1] == [{"step": 4}, "again", "rank 0: ValueError: befallen"]


def test_one_alone_needs_nobody():
    alone = Ranks()
    assert alone.gather(3) == [3] and alone.together(lambda exchange: exchange(2)) == [2]
    with pytest.raises(ValueError, match="as it is"):
        alone.together(lambda _: (_ for _ in ()).throw(ValueError("as it is")))
