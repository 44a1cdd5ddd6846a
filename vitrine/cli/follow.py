"""Look at the checkpoints of a training as they appear, off its critical path.

    python train.py run.name=NAME analysis.mode=follow       the training only saves
    python analyze.py runs/NAME follow=true                  on another GPU or machine, as often as wanted

Several that follow one run divide its checkpoints among them; one that dies is succeeded. It ends when the
training is finished and everything is looked at. Checkpoints that `checkpoint.keep` removes before their
turn are missed. Where pictures depend on the checkpoint before (`Analysis.needs_previous`), they are taken
strictly in order; else each is compared with the latest that is whole by then (the curve `overlap` of dataset
examples).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitrine import config
from vitrine.core.process_identity import is_gone
from vitrine.core.settings import SettingError, setting
from vitrine.distributed import interruption
from vitrine.runs import locks, run_folders, run_record

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class FollowSettings:
    newest: bool = setting(False, "take the newest checkpoint first, not the oldest")
    poll: float = setting(5.0, "seconds between two looks for new checkpoints", above=0)
    patience: float | None = setting(
        3600.0, "seconds without a sign of life of the training until this gives up; null: none", above=0
    )


@dataclass(frozen=True)
class _Asked:
    follow: FollowSettings = field(default_factory=FollowSettings)


def parted(said: list[str]) -> tuple[FollowSettings | None, list[str]]:
    """How to follow, if `follow=true` or `follow.KEY=VALUE` was said, and what else was.

    Raises:
        SettingError: there is no such setting, or it cannot have the value.
    """
    own = [a for a in said if a.partition("=")[0].split(".")[0] == "follow"]
    others = [a for a in said if a not in own]
    switches = {a.partition("=")[2].strip().lower() for a in own if a.startswith("follow=")}
    if switches - {"true", "false"}:
        raise SettingError("follow", f"is {(switches - {'true', 'false'}).pop()!r}, expected true or false")
    asked = config.parse_settings(_Asked, [a for a in own if not a.startswith("follow=")])
    return (asked.follow if own and "false" not in switches else None), others


def main(arguments: list[str]) -> None:
    """`vitrine follow RUN ...` is `analyze.py RUN follow=true ...`."""
    from vitrine.cli import analyze
    from vitrine.cli.help import print_command_help_if_asked

    if not print_command_help_if_asked(arguments, __doc__, _Asked):
        analyze.main([*arguments, "follow=true"])


def follow(word: str, how: FollowSettings, said: list[str]) -> None:
    """Look at a run's checkpoints until its training is finished; `said`: settings other than the run's own.

    Raises:
        SettingError: it is no run, nor becomes one while patience lasts; or it looks at its checkpoints
            itself.
        SystemExit: interrupted (75, 130 after Ctrl-C), or patience ran out (1).
    """
    with interruption.handled():
        interruption.defer()
        try:
            folder = _begun(Path(word), how)
            placed = [f"run.root={folder.parent}", f"run.name={folder.name}"]
            settings = config.load([*said, *placed], base=[folder / "config.yaml"])
            if settings.analysis.mode == "train" and _state(folder) == "running":
                other = "start it with analysis.mode=follow, or look at it when it has ended"
                raise SettingError("follow", f"{folder} looks at its checkpoints itself; {other}")
            finished = _Follower(folder, settings, how).work()
        except interruption.Interrupted as interrupted:
            print(f"stopped; to go on: python analyze.py {word} follow=true")
            raise SystemExit(interrupted.status) from None
    if not finished:
        raise SystemExit(1)


class _Follower:
    """One that looks at what nobody looks at yet."""

    def __init__(self, folder: Path, settings: config.Settings, how: FollowSettings):
        from vitrine.runs.store import Store

        self.folder, self.settings, self.how = folder, settings, how
        self.store = Store(folder)
        self.techniques = _enabled(settings)
        self.in_order = any(getattr(settings.analysis, name).needs_previous for name in self.techniques)
        self.passed_over: set[int] = set()
        self.reports: list[Any] = []
        self.parts: Any = None  # data, analyses and sinks, once there is a checkpoint
        self.said = ""

    def work(self) -> bool:
        """Whether the training is finished and everything is looked at; False where patience ran out."""
        from vitrine.examination.examine import summary

        try:
            while True:
                over = _state(self.folder) == "finished"  # asked before looking for the last checkpoint
                waiting = self._look_at_one()
                if waiting is None:
                    continue
                if over and not waiting:
                    return True
                if not over and self._waited_too_long():
                    return False
                _wait(self.how.poll)
        finally:
            if self.parts:
                self.parts.logs.close()
                print(*(note for note in self.parts.logs.notes if note), sep="\n")
            print(f"{summary(self.reports)}\nthe page: {self.folder / 'index.html'}")

    def _look_at_one(self) -> bool | None:
        """Look at a checkpoint that needs it; None once that is done. Else whether others are at work."""
        others = False
        for step, file in self._open():
            lock = locks.acquire(self.folder / "analysis", f"step={step:08d}")
            if lock is None:
                others = True
                if self.in_order:
                    break
                continue
            with lock:
                if self._is_missing(step):  # else another has just done it
                    self._look(step, file)
            return None
        return others

    def _open(self) -> Iterator[tuple[int, Path]]:
        from vitrine.runs.checkpoint_files import checkpoint_files

        newest = self.how.newest and not self.in_order
        for step, file in list(checkpoint_files(self.folder / "checkpoints", newest_first=newest)):
            if step not in self.passed_over and self._is_missing(step):
                yield step, file

    def _is_missing(self, step: int) -> bool:
        return not self.techniques <= self.store.results(step).keys()

    def _look(self, step: int, file: Path) -> None:
        from vitrine.modules import load_checkpoint
        from vitrine.modules.weights import WeightsError
        from vitrine.runs.checkpoint_files import find_damage

        if damage := find_damage(file):
            self.passed_over.add(step)
            log.warning("passed over %s: %s", file, damage)
            return
        self.said = ""
        try:
            network = load_checkpoint(file)
        except WeightsError:
            if file.exists():
                raise
            self.passed_over.add(step)
            log.warning("passed over %s: it was removed (checkpoint.keep)", file)
            return
        with interruption.at_once():
            self.parts = self.parts or _Parts(self.settings, network)
        report = self.parts.examine(self.store, step, network)
        self.reports.append(report)
        print(f"step {step:,}: {report.figures} pictures in {sum(report.seconds.values()):.1f} s", flush=True)
        if self._is_missing(step):  # the disk refused: the next start tries again
            self.passed_over.add(step)

    def _waited_too_long(self) -> bool:
        """Whether there was no sign of life for longer than patience lasts; says once what is waited for."""
        state = _state(self.folder)
        if state == "finished":  # since it was asked last
            return False
        words = {
            "running": "waiting for checkpoints",
            "killed": "the training was killed; waiting for it to go on",
            "preempted": "the training was preempted; waiting for it to go on",
            "interrupted": "the training was interrupted; waiting for it to go on",
            "failed": "the training failed; waiting for it to go on",
        }[state]
        if words != self.said:
            print(words, flush=True)
            self.said = words
        silent = time.time() - _last_sign(self.folder)
        if self.how.patience is None or silent < self.how.patience:
            return False
        silence = run_record.format_duration(silent)
        print(f"no sign of life of the training for {silence}: giving up (follow.patience)")
        return True


class _Parts:
    """What looking at a run's checkpoints needs, made for the first and kept for the others."""

    def __init__(self, settings: config.Settings, network: Any):
        from vitrine import assembly

        self.settings = settings
        self.data = assembly.data(settings)
        self.analyses = assembly.analyses(settings, network, self.data)
        self.logs = assembly.logs(settings, self.data.classes, "follower")
        self.device = assembly.device(settings)

    def examine(self, store: Any, step: int, network: Any) -> Any:
        """Look at a network, and keep and show what is seen."""
        from vitrine.examination.examine import examine, weights_hash
        from vitrine.examination.subject import make_subject

        weights, previous = weights_hash(network), store.previous(step)
        subject = make_subject(
            network, self.data, self.settings.analysis, step, previous=previous, device=self.device
        )
        strict = self.settings.analysis.strict
        return examine(subject, self.analyses, store, self.logs.sinks, weights=weights, strict=strict)


def _begun(folder: Path, how: FollowSettings) -> Path:
    """The folder of a run, once it is there: a training that starts at the same time may take a while."""
    began, said = time.monotonic(), False
    while not (folder / "config.yaml").is_file():
        if folder.is_file() or (folder.is_dir() and (folder / "index.html").exists()):
            return run_folders.find_run(str(folder))  # says what is wrong with it
        if not said:
            print(f"waiting for {folder} to begin", flush=True)
            said = True
        if how.patience is not None and time.monotonic() - began > how.patience:
            raise SettingError(str(folder), f"is not there; {run_folders.describe_runs(str(folder.parent))}")
        _wait(min(how.poll, 1.0))
    return folder.resolve()


def _wait(seconds: float) -> None:
    with interruption.at_once():
        time.sleep(seconds)


def _enabled(settings: config.Settings) -> set[str]:
    from vitrine.analyses import ANALYSES

    return {name for name in ANALYSES if getattr(settings.analysis, name).enabled}


def _state(folder: Path) -> str:
    """What run.json says of a run, or "killed" where its process, one of this machine, is no more."""
    record = run_record.read(folder)
    state = record.get("state") or ("finished" if record.get("ended") else "running")
    if state == "running" and is_gone(record.get("process")):
        return "killed"
    return state


def _last_sign(folder: Path) -> float:
    """When the training last wrote something, in seconds since 1970."""
    files = [folder / "config.yaml", folder / "run.json", folder / "metrics.csv", folder / "checkpoints"]
    return max(file.stat().st_mtime for file in files if file.exists())
