"""Functions run by several processes at once, as torchrun would start them, each with a time limit."""

from __future__ import annotations

import os
import socket
import time
import traceback
from collections.abc import Callable
from typing import Any

import forked


def run_ranks(target: Callable[..., Any], *args: Any, count: int = 2, seconds: float = 120) -> list[Any]:
    """What `target(*args)` returns in each process: an exception's text where it raised, and the exit
    status where it ended otherwise.

    Raises:
        TimeoutError: not all ended in time; those that did not are killed.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [forked.CONTEXT.Pipe(duplex=False) for _ in range(count)]
    started = [
        forked.start(_run, writer, rank, count, port, target, args) for rank, (_, writer) in enumerate(pipes)
    ]
    for _, writer in pipes:
        writer.close()
    end, answers = time.monotonic() + seconds, []
    try:
        for rank, ((reader, _), process) in enumerate(zip(pipes, started)):
            if not reader.poll(max(0.0, end - time.monotonic())):
                raise TimeoutError(f"rank {rank} is still at it after {seconds} s")
            try:
                answers.append(reader.recv())
            except EOFError:
                process.join(10)
                answers.append(process.exitcode)
        for process in started:
            process.join(max(1.0, end - time.monotonic()))
    finally:
        for process in started:
            process.kill()
    return answers


def _run(answer: Any, rank: int, count: int, port: int, target: Callable[..., Any], args: Any) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ |= {
        "TORCHELASTIC_RUN_ID": "test",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
    }
    try:
        answer.send(target(*args))
    except SystemExit:
        raise
    except BaseException as error:
        traceback.print_exc()
        answer.send("".join(traceback.format_exception_only(error)).strip())
    finally:
        answer.close()
