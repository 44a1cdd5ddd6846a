"""Results on a W&B dashboard: one `log` call a checkpoint, under the same keys at every one."""

from __future__ import annotations

import dataclasses
import logging
import sys
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from vitrine.analyses.base import Figure
from vitrine.analyses.result import CheckpointReport
from vitrine.reporting.bounds import left_out, left_out_classes, shown_layers, shown_tables
from vitrine.reporting.dashboard_table import Columns, dashboard_table
from vitrine.reporting.guarded_run import GuardedRun
from vitrine.reporting.ranking import ranking
from vitrine.reporting.sheet import PAPER, by_layer, sheet
from vitrine.reporting.sinks import STEP, UNITS, media_key, named_scalars, table_key
from vitrine.reporting.units_table import units_table
from vitrine.reporting.wandb_claims import Claims
from vitrine.reporting.wandb_history import Keys, logged_keys, result_keys
from vitrine.runs.attachments import STATE
from vitrine.runs.metrics_csv import read_names
from vitrine.runs.store import Store

_log = logging.getLogger(__name__)

# pictures of no unit are shown one by one, each with its caption, up to so many (W&B: 108); else as a sheet
SINGLES = 32


class WandbSink:
    """Logs to an open W&B run, for which it waits in bounded time.

    Args:
        run: what `wandb.init` returned, or `WandbLogger.experiment`.
        classes: class names, for the table of units.
        page: upload the page when everything was logged.
        run_dir: the run's folder, whose metrics rank it also where no analysis is logged.
        owned: end the run with this sink; False: it is somebody else's.
        claims: of a process that logs beside others.
    """

    def __init__(
        self,
        run: Any,
        classes: Sequence[str] = (),
        page: bool = True,
        run_dir: Path | None = None,
        owned: bool = True,
        claims: Claims | None = None,
    ):
        self.run = run if isinstance(run, GuardedRun) else GuardedRun(run, owned=owned)
        self.classes, self.page, self.claims = list(classes), page, claims
        self._run_dir, self._has_results = run_dir, False

    def log(self, report: CheckpointReport, folder: Path) -> None:
        """Show one checkpoint at its step; raises nothing.

        Pictures that lie in `folder` are copied from there rather than encoded again.
        """
        if self.run.disabled:
            return
        try:
            folder = Path(folder)
            self._run_dir, self._has_results = folder.resolve().parent.parent, True
            self.run.log({STEP: int(report.step), **_payload(report, folder, self.classes)})
            self.run.update_summary({**ranking(self._run_dir), **self._left_out(report)})
            if not self.run.offline:
                self._upload(f"analysis-{self.run.id}", "analysis", [folder], [f"step-{report.step}"])
        except Exception:
            _log.warning("step %d did not reach W&B", report.step, exc_info=True)

    def log_missing(self, logged: Keys, steps: Collection[int] | None = None) -> None:
        """Log what the store has and W&B, which has these keys, lacks, as after a kill between the two.

        Args:
            steps: all unless given.
        """
        store = Store(self._run_dir)
        for step in store.steps() if steps is None else sorted(steps):
            results = {
                name: result
                for name, result in store.results(step).items()
                if not result.left_out
                and result_keys(name, result, store.entries(step, name)) - logged.get(step, set())
            }
            if results:
                self.log(CheckpointReport(step, results), store.step_folder(step))

    def take_over(self) -> None:
        """Log what W&B lacks of the steps that processes had claimed which are gone; raises nothing."""
        try:
            claimed = self.claims.take_over()
            complete = claimed.intersection(Store(self._run_dir).steps())  # before others are asked
            if lost := complete - self.claims.of_others():
                self.log_missing(logged_keys(self.run, self._run_dir), lost)
        except Exception:
            _log.warning("what earlier followers could not log is not on W&B", exc_info=True)

    def close(self) -> None:
        """Rank the run, upload the page and end the run; raises nothing.

        Offline the page's artifact only names the files it is made of; `wandb sync` uploads them.
        """
        failed = isinstance(sys.exc_info()[1], BaseException)  # closed while an exception propagates
        try:
            if self._run_dir and not self.run.disabled:
                self.run.update_summary(ranking(self._run_dir))
                if self.page and self._has_results and (self._run_dir / "index.html").exists():
                    page = [path for path in self._run_dir.iterdir() if path.suffix in (".html", ".js")]
                    paths = [*page, self._run_dir / "analysis"]
                    self._upload(f"page-{self.run.id}", "page", paths, ["final"])
        except Exception:
            _log.warning("the page did not reach W&B", exc_info=True)
        self.run.finish(exit_code=1 if failed else None)
        if self.claims:
            self.claims.release()

    def _left_out(self, report: CheckpointReport) -> dict[str, str]:
        """What the dashboard does not show, for its summary; nothing is said where that is nothing."""
        phrases = left_out(report.results)
        said = [f"on the run's page only: {'; '.join(phrases)}"] if phrases else []
        said += left_out_classes(read_names(self._run_dir), len(self.classes))
        return {"left out": "; ".join(said)} if said else {}

    def _upload(self, name: str, kind: str, paths: Sequence[Path], aliases: list[str]) -> None:
        import wandb

        artifact = wandb.Artifact(name, type=kind)
        for path in paths:  # `add_dir` would print
            for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if _is_shown(p)):
                name = file.relative_to(path.parent).as_posix()
                artifact.add_file(str(file), name=name, policy="immutable", skip_cache=True)
        self.run.log_artifact(artifact, aliases=["latest", *aliases])


def _is_shown(path: Path) -> bool:
    """Whether a file is for people; a state may be large, and is for the next checkpoint alone."""
    return path.is_file() and path.name != STATE


def _payload(report: CheckpointReport, folder: Path, classes: Sequence[str]) -> dict[str, Any]:
    import wandb

    payload: dict[str, Any] = {}
    stored = Store(folder.parent.parent)
    files = {
        name: {entry["key"]: folder / name / entry["file"] for entry in stored.entries(report.step, name)}
        for name in report.results
    }
    for name, result in report.results.items():
        payload |= named_scalars(name, result)
        payload |= dict(_media(report.step, name, result.figures, files[name]))
        tables = shown_tables(figure.key for figure in result.figures if figure.table is not None)
        before = _tables_before(stored, report.step, name) if tables else {}
        for figure in result.figures:
            if figure.key in tables:
                columns, rows = dashboard_table(figure.table, before.get(figure.key, {}))
                payload[table_key(name, figure.key)] = wandb.Table(columns=columns, data=rows)

    def picture(name: str, figure: Figure) -> Any:
        return _image(figure, files[name].get(figure.key), figure.caption)

    if table := units_table(report.results, picture, classes):
        payload[UNITS] = wandb.Table(columns=table[0], data=table[1])
    return payload


def _tables_before(store: Store, step: int, name: str) -> dict[str, Columns]:
    """The columns of an analysis' tables at the latest complete step before, by the figure's key."""
    earlier = (one for one in reversed(store.begun()) if one < step and store.is_complete(one))
    before = next(earlier, None)
    entries = [] if before is None else store.entries(before, name)
    return {entry["key"]: entry["table"]["columns"] for entry in entries if entry.get("table")}


def _media(
    step: int, name: str, figures: Sequence[Figure], files: dict[str, Path]
) -> Iterator[tuple[str, Any]]:
    """An analysis' images by key, one a layer: a list of a few pictures, a sheet of many or of units."""
    import wandb

    groups = by_layer(figures)
    for layer in shown_layers(groups):
        group = groups[layer]
        units = dict.fromkeys(figure.unit for figure in group if figure.unit is not None)
        if len(group) > SINGLES or units:
            content = f"units {', '.join(map(str, units))}" if units else f"{len(group)} pictures"
            caption = f"step {step}: {name}, {layer or 'all layers'}, {content}, row by row"
            pixels = sheet([figure.image for figure in group]).numpy()
            yield media_key(name, layer), wandb.Image(pixels, caption=caption, file_type="jpg")
            continue
        one_size = len({figure.image.shape for figure in group}) == 1
        one_format = len({path.suffix for figure in group if (path := files.get(figure.key))}) <= 1
        # W&B shows a list in frames of one size, and stores it in one format
        copied = files if one_size and one_format else {}
        shown = group if one_size else _pad_to_one_size(group)
        yield (
            media_key(name, layer),
            [_image(figure, copied.get(figure.key), f"step {step}: {figure.caption}") for figure in shown],
        )


def _pad_to_one_size(figures: Sequence[Figure]) -> list[Figure]:
    """The same pictures, each at the top left of a canvas as high and as wide as the largest."""
    height, width = (max(figure.image.shape[side] for figure in figures) for side in (0, 1))

    def pad(image: Tensor) -> Tensor:
        return F.pad(image, (0, 0, 0, width - image.shape[1], 0, height - image.shape[0]), value=PAPER)

    return [dataclasses.replace(figure, image=pad(figure.image)) for figure in figures]


def _image(figure: Figure, file: Path | None, caption: str) -> Any:
    import wandb

    if file is not None and file.exists():
        return wandb.Image(str(file), caption=caption)
    return wandb.Image(figure.image.cpu().numpy(), caption=caption)  # uint8: floats would come out black
