"""What an offline run of W&B has on disk: the rows of its `.wandb` file, up to where a kill cut it off."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BLOCK = 32768  # LevelDB's log format, with a header of its own in front
HEADER = 7
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def rows(run_dir: str | Path, run_id: str) -> Iterator[dict[str, Any]]:
    """Every row that the starts of a run have logged offline, in their order.

    Args:
        run_dir: the run's folder; its logs are `wandb/offline-run-*-ID/run-ID.wandb`.
        run_id: W&B's id of the run.
    """
    for file in sorted(Path(run_dir).glob(f"wandb/offline-run-*-{run_id}/run-{run_id}.wandb")):
        yield from history(file)


def history(file: Path) -> Iterator[dict[str, Any]]:
    """The rows of one `.wandb` file: what each `log` call gave, by key."""
    from wandb.proto import wandb_internal_pb2 as messages

    for content in records(file.read_bytes()):
        record = messages.Record()
        record.ParseFromString(content)
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            yield {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def records(content: bytes) -> Iterator[bytes]:
    """The packed records of a `.wandb` file's content."""
    place, parts = HEADER, b""
    while place + HEADER <= len(content):
        left = BLOCK - place % BLOCK
        if left < HEADER:  # too little for a record: padding
            place += left
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        start, place = place + HEADER, place + HEADER + length
        if not kind or place > len(content):
            return  # never written, or cut off
        parts = content[start:place] if kind in (_FULL, _FIRST) else parts + content[start:place]
        if kind in (_FULL, _LAST):
            yield parts
