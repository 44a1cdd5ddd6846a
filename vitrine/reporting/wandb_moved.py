"""Offline runs of W&B in a folder that was moved: files that their logs name by absolute paths are found."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from vitrine.core import atomic
from vitrine.reporting import wandb_log

_HEADER, _BLOCK = wandb_log.HEADER, wandb_log.BLOCK


def mend(run_dir: str | Path) -> int:
    """Let the artifacts in a run's offline logs (units tables, the page) name their files where they are now.

    All else in the logs is relative already. A log that needs nothing stays as it is.

    Returns:
        how many files were missing and are found again.

    Raises:
        OSError: the disk refused; the log stands as it was.
    """
    from wandb.proto import wandb_internal_pb2 as messages

    run_dir, found = Path(run_dir).resolve(), 0
    for file in sorted(run_dir.glob("wandb/offline-run-*/run-*.wandb")):
        content, changed = file.read_bytes(), 0
        mended = []
        for packed in wandb_log.records(content):
            record = messages.Record()
            record.ParseFromString(packed)
            moved = _moved(record, run_dir)
            mended.append(record.SerializeToString() if moved else packed)
            changed += moved
        if changed:
            atomic.write_bytes(file, content[:_HEADER] + b"".join(_framed(mended)))
            found += changed
    return found


def _moved(record: Any, run_dir: Path) -> int:
    """Mend a record's artifact, if it has one; how many of its files were found."""
    kind = record.WhichOneof("record_type")
    if kind == "artifact":
        artifact = record.artifact
    elif kind == "request" and record.request.WhichOneof("request_type") == "log_artifact":
        artifact = record.request.log_artifact.artifact
    else:
        return 0
    found = 0
    for entry in artifact.manifest.contents:
        if entry.local_path and not Path(entry.local_path).exists():
            place = _place(entry.local_path, run_dir)
            if place is not None:
                entry.local_path = str(place)
                found += 1
    return found


def _place(was: str, run_dir: Path) -> Path | None:
    """The file below `run_dir` whose path ends as `was` did, as far as possible; None where there is none."""
    kind = PureWindowsPath if "\\" in was else PurePosixPath
    parts = kind(was).parts[1:]
    for start in range(len(parts)):
        place = run_dir.joinpath(*parts[start:])
        if place.is_file():
            return place
    return None


def _framed(records: list[bytes]) -> Iterator[bytes]:
    """Records as LevelDB's log has them, behind W&B's header."""
    place = _HEADER
    for record in records:
        first = True
        while first or record:
            left = _BLOCK - place % _BLOCK
            if left < _HEADER:
                yield bytes(left)
                place, left = place + left, _BLOCK
            part, record = record[: left - _HEADER], record[left - _HEADER :]
            kind = {(True, True): 1, (True, False): 2, (False, False): 3, (False, True): 4}[first, not record]
            check = zlib.crc32(part, zlib.crc32(bytes([kind])))
            yield struct.pack("<IHB", check, len(part), kind) + part
            place, first = place + _HEADER + len(part), False
