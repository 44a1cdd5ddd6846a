"""Analyze the checkpoints of a training as they appear, off its critical path.

    python train.py run.name=NAME analysis.mode=follow       the training only saves
    python analyze.py runs/NAME follow=true                  on another GPU or machine, as often as wanted

Several followers of one run divide its checkpoints among them; one that dies is replaced. A follower ends
when the training is finished and every checkpoint is analyzed. Checkpoints that `checkpoint.keep` removes
before their turn are missed. A technique that depends on the checkpoint before (`Analysis.needs_previous`)
waits for it, and is made up for; others compare each checkpoint with the latest that is complete by then (the
curve `overlap` of dataset examples).
"""

import logging
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vitrine import config
from vitrine.analyses import ANALYSES
from vitrine.cli.help import command_help, is_help_asked
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
class _Arguments:
    follow: FollowSettings = field(default_factory=FollowSettings)


def split_arguments(arguments: list[str]) -> tuple[FollowSettings | None, list[str]]:
    """How to follow, if there is `follow=true` or `follow.KEY=VALUE`; and the other arguments."""
    own = [a for a in arguments if a.partition("=")[0].split(".")[0] == "follow"]
    others = [a for a in arguments if a not in own]
    switches = {a.partition("=")[2].strip().lower() for a in own if a.startswith("follow=")}
    if switches - {"true", "false"}:
        raise SettingError("follow", f"is {(switches - {'true', 'false'}).pop()!r}, expected true or false")
    parsed = config.parse_settings(_Arguments, [a for a in own if not a.startswith("follow=")])
    return (parsed.follow if own and "false" not in switches else None), others


def main(arguments: list[str]) -> None:
    """`vitrine follow RUN ...` is `analyze.py RUN follow=true ...`."""
    from vitrine.cli import analyze

    if is_help_asked(arguments):
        print(command_help(__doc__, _Arguments))
    else:
        analyze.main([*arguments, "follow=true"])


def follow(path: str, follow_settings: FollowSettings, overrides: list[str]) -> None:
    """Analyze the checkpoints of a run, whose folder need not exist yet, until its training is finished.

    Raises:
        SettingError: it is no run, nor becomes one within `patience`; or it analyzes its checkpoints itself.
        SystemExit: interrupted (75, 130 after Ctrl-C), or `patience` is over (1).
    """
    with interruption.handle_signals():
        interruption.defer()
        try:
            folder = _wait_for_run(Path(path), follow_settings)
            settings = config.load_saved(folder, overrides)
            if settings.analysis.mode == "train" and _training_state(folder) == "running":
                other = "start it with analysis.mode=follow, or analyze it when it has ended"
                raise SettingError("follow", f"{folder} analyzes its checkpoints itself; {other}")
            finished = _Follower(folder, settings, follow_settings).run()
        except interruption.Interrupted as interrupted:
            print(f"stopped; to go on: python analyze.py {path} follow=true")
            raise SystemExit(interrupted.status) from None
    if not finished:
        raise SystemExit(1)


class _Follower:
    """Analyzes the checkpoints of a run that no other follower is analyzing."""

    def __init__(self, folder: Path, settings: config.Settings, follow_settings: FollowSettings):
        from vitrine.runs.store import Store

        self.folder, self.settings, self.follow_settings = folder, settings, follow_settings
        self.store = Store(folder)
        analyses = {name: getattr(settings.analysis, name) for name in ANALYSES}
        self.enabled = {name for name, analysis in analyses.items() if analysis.enabled}
        self.in_order = {name for name in self.enabled if analyses[name].needs_previous}
        self.skipped: set[int] = set()  # steps
        self.examiner: Any = None  # as `logs`, once there is a checkpoint
        self.analyses: Mapping[str, Any] = {}  # all of the examiner's
        self.logs: Any = None
        self.printed = ""  # what is waited for

    def run(self) -> bool:
        """Whether the training is finished and everything is analyzed; False if patience is over."""
        from vitrine.examination.summary import summarize
        from vitrine.reporting.wandb_claims import any_left

        try:
            while True:
                finished = _training_state(self.folder) == "finished"  # before listing the last checkpoint
                others_at_work = self._analyze_next()
                if others_at_work is None:
                    continue
                if finished and not others_at_work:
                    if self.logs is None and any_left(self.folder):
                        self._log_lost()
                    return True
                if not finished and self._patience_is_over():
                    return False
                _sleep(self.follow_settings.poll)
        finally:
            if self.logs:
                self.logs.close()
                print(*(note for note in self.logs.notes if note), sep="\n")
            reports = self.examiner.reports if self.examiner else []
            print(f"{summarize(reports)}\nthe page: {self.folder / 'index.html'}")

    def _analyze_next(self) -> bool | None:
        """Analyze a checkpoint, and return None; without one, whether other followers are at work."""
        from vitrine.runs.checkpoint_files import checkpoint_files

        others_at_work = False
        files = dict(checkpoint_files(self.folder / "checkpoints"))
        due = self._due(files)
        for step in sorted(due, reverse=self.follow_settings.newest):
            if lock := locks.acquire(self.folder / "analysis", f"step={step:08d}"):
                with lock:
                    if names := due[step] - self.store.results(step).keys():  # others may have just finished
                        self._analyze(step, files[step], names)
                return None
            others_at_work = True
        return others_at_work

    def _due(self, steps: Iterable[int]) -> dict[int, set[str]]:
        """The analyses that can be run now at each of the steps, which come in order: all that are missing,
        but for those that wait for the step before."""
        waiting: set[str] = set()
        due = {}
        for step in steps:
            if step not in self.skipped:
                missing = self.enabled - self.store.results(step).keys()
                due[step] = missing - waiting
                waiting |= missing & self.in_order
        return {step: names for step, names in due.items() if names}

    def _analyze(self, step: int, file: Path, names: set[str]) -> None:
        from vitrine import assembly
        from vitrine.modules.weights import WeightsError
        from vitrine.runs.checkpoint_files import find_damage

        self.printed = ""
        problem = find_damage(file)
        try:
            network = None if problem else assembly.checkpoint_loader(self.settings)(file)
        except WeightsError:
            if file.exists():
                raise
            problem = "it was removed (checkpoint.keep)"
        if problem:
            self.skipped.add(step)
            log.warning("passed over %s: %s", file, problem)
            return
        if self.examiner is None:
            with interruption.immediate():
                data = assembly.build_data(self.settings)
                self.examiner = assembly.build_examiner(self.settings, network, data)
                self.logs = assembly.open_logs(self.settings, data.classes, "follower")
                self.examiner.sinks = self.logs.sinks
                self.analyses = self.examiner.analyses
        self.logs.claim(step)
        self.examiner.analyses = {name: one for name, one in self.analyses.items() if name in names}
        report = self.examiner.examine(network, step)
        print(f"step {step:,}: {report.figures} pictures in {sum(report.seconds.values()):.1f} s", flush=True)
        if names - self.store.results(step).keys():  # the disk refused: the next start tries again
            self.skipped.add(step)

    def _log_lost(self) -> None:
        """Let W&B have what followers could not log that are gone, when nothing is left to analyze."""
        from vitrine import assembly

        with interruption.immediate():
            classes = assembly.build_data(self.settings).classes
            self.logs = assembly.open_logs(self.settings, classes, "follower")

    def _patience_is_over(self) -> bool:
        """Whether the training was silent for longer than `patience`; prints once what is waited for."""
        state = _training_state(self.folder)
        if state == "finished":  # since it was last asked
            return False
        text = "waiting for checkpoints"
        if state != "running":
            ended = "failed" if state == "failed" else f"was {state}"  # killed, preempted, interrupted
            text = f"the training {ended}; waiting for it to go on"
        if text != self.printed:
            print(text, flush=True)
            self.printed = text
        written = [self.folder / name for name in ("config.yaml", "run.json", "metrics.csv", "checkpoints")]
        silent = time.time() - max(file.stat().st_mtime for file in written if file.exists())
        if self.follow_settings.patience is None or silent < self.follow_settings.patience:
            return False
        duration = run_record.format_duration(silent)
        print(f"no sign of life of the training for {duration}: giving up (follow.patience)")
        return True


def _wait_for_run(folder: Path, follow_settings: FollowSettings) -> Path:
    """The folder of a run, once it exists: a training that starts at the same time may take a while."""
    start, printed = time.monotonic(), False
    while not (folder / "config.yaml").is_file():
        if folder.is_file() or (folder.is_dir() and (folder / "index.html").exists()):
            return run_folders.find_run(str(folder))  # raises what is wrong with it
        if not printed:
            print(f"waiting for {folder} to begin", flush=True)
            printed = True
        if follow_settings.patience is not None and time.monotonic() - start > follow_settings.patience:
            raise SettingError(str(folder), f"is not there; {run_folders.describe_runs(str(folder.parent))}")
        _sleep(min(follow_settings.poll, 1.0))
    return folder.resolve()


def _sleep(seconds: float) -> None:
    with interruption.immediate():
        time.sleep(seconds)


def _training_state(folder: Path) -> str:
    """The state in run.json, or "killed" where the training's process, one of this machine, is gone."""
    record = run_record.read(folder)
    state = record.get("state") or ("finished" if record.get("ended") else "running")
    if state == "running" and is_gone(record.get("process")):
        return "killed"
    return state
