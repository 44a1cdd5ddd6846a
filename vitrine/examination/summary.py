"""What was made of the checkpoints of a run, in a few lines for its user."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from vitrine.analyses.result import CheckpointReport


def summarize(reports: Sequence[CheckpointReport]) -> str:
    """What was made, how long it took, what failed and what was cut short: a line, and one more for each."""
    if not reports:
        return "no checkpoint was analyzed"
    results = [(name, r.step, result) for r in reports for name, result in r.results.items()]
    seconds = [seconds for report in reports for seconds in report.seconds.values()]
    figures = sum(report.figures for report in reports)
    failures = [(name, report.step, error) for report in reports for name, error in report.errors.items()]
    total = f"{len(seconds)} analyses of {len(reports)} checkpoints gave {figures} pictures in "
    lines = [f"{total}{sum(seconds):.1f} s, " + (f"{len(failures)} failed:" if failures else "none failed")]
    lines += [f"  {name} at step {step}: {error}" for name, step, error in failures]
    reduced = [(name, step, result.reduced_text) for name, step, result in results if result.reduced]
    lines += [f"less than asked for, {len(reduced)} times (analyze.py makes up for it):"] if reduced else []
    return "\n".join(lines + [f"  {name} at step {step}: {text}" for name, step, text in reduced])


def seconds_by_analysis(reports: Sequence[CheckpointReport]) -> str:
    """The seconds of each analysis, most first: "examples 12.3, cam 4.5"."""
    total: Counter[str] = Counter()
    for report in reports:
        total.update(report.seconds)
    return ", ".join(f"{name} {seconds:.1f}" for name, seconds in total.most_common())
