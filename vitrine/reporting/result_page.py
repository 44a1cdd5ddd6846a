"""The page of a single result: what a command has found about a network, as at a checkpoint of a run."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from pathlib import Path

from vitrine.analyses.result import AnalysisResult
from vitrine.core import atomic
from vitrine.reporting import page
from vitrine.runs.run_record import hardware
from vitrine.runs.store import Store


def write(
    folder: Path,
    analysis: str,
    result: AnalysisResult,
    step: int,
    weights: str,
    name: str,
    facts: Mapping[str, str],
) -> Path:
    """Store a result in a folder of its own, beside those of other checkpoints that are there; its page.

    Args:
        analysis: the technique that found it.
        step: optimizer steps that the network was trained for.
        weights: the hash of its weights.
        name: of the network, for the page.
        facts: what the page tells beside that, by name.

    Raises:
        OSError: the disk refused.
        ValueError: as `Writer.write`.
    """
    with Store(folder).writing(step, weights) as writer:
        writer.write(analysis, result)
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    record = {"name": name, "facts": dict(facts), "seconds": result.seconds, "ended": now}
    atomic.write_json(folder / "run.json", {**record, "hardware": hardware()})
    return page.build(folder)
