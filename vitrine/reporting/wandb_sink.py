"""Results on a W&B dashboard: one `log` call a checkpoint, under the same keys at every one."""

from __future__ import annotations

import dataclasses
import json
import logging
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from vitrine.analyses.base import Figure
from vitrine.analyses.result import CheckpointReport
from vitrine.reporting.guarded_run import GuardedRun
from vitrine.reporting.ranking import ranking
from vitrine.reporting.sheet import PAPER, by_layer, sheet
from vitrine.reporting.sinks import STEP, UNITS, media_key, named_scalars
from vitrine.reporting.units_table import units_table

_log = logging.getLogger(__name__)

# pictures of no unit are shown one by one, each with its caption, up to so many (W&B: 108); else as a sheet
SINGLES = 32


class WandbSink:
    """Logs to an open W&B run, which it never waits for without end.

    Args:
        run: what `wandb.init` gave, or `WandbLogger.experiment`.
        classes: class names, for the table of units.
        page: upload the page when everything was logged.
        run_dir: the run's folder, whose numbers rank it also where no analysis is logged.
    """

    def __init__(self, run: Any, classes: Sequence[str] = (), page: bool = True, run_dir: Path | None = None):
        self.run = run if isinstance(run, GuardedRun) else GuardedRun(run)
        self.classes, self.page = list(classes), page
        self._run_dir, self._logged = run_dir, False

    def log(self, report: CheckpointReport, folder: Path) -> None:
        """Show one checkpoint at its step; never raises.

        Pictures are taken from `folder` where they lie there, so that none is encoded twice.
        """
        if self.run.given_up:
            return
        try:
            folder = Path(folder)
            self._run_dir, self._logged = folder.resolve().parent.parent, True
            self.run.log({STEP: int(report.step), **_payload(report, folder, self.classes)})
            self.run.summarize(ranking(self._run_dir))
            if not self.run.offline:
                self._upload(f"analysis-{self.run.id}", "analysis", [folder], [f"step-{report.step}"])
        except Exception:
            _log.warning("step %d did not reach W&B", report.step, exc_info=True)

    def close(self) -> None:
        """Rank the run, upload the page and end the run; never raises.

        Offline the page's artifact only says which files it is made of; `wandb sync` uploads them.
        """
        failed = isinstance(sys.exc_info()[1], BaseException)  # closed while an error is on its way up
        try:
            if self._run_dir and not self.run.given_up:
                self.run.summarize(ranking(self._run_dir))
                if self.page and self._logged and (self._run_dir / "index.html").exists():
                    page = [path for path in self._run_dir.iterdir() if path.suffix in (".html", ".js")]
                    self._upload(
                        f"page-{self.run.id}", "page", [*page, self._run_dir / "analysis"], ["final"]
                    )
        except Exception:
            _log.warning("the page did not reach W&B", exc_info=True)
        self.run.finish(exit_code=1 if failed else None)

    def _upload(self, name: str, kind: str, paths: Sequence[Path], aliases: list[str]) -> None:
        import wandb

        artifact = wandb.Artifact(name, type=kind)
        for path in paths:  # `add_dir` would print
            for file in [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file()):
                name = file.relative_to(path.parent).as_posix()
                artifact.add_file(str(file), name=name, policy="immutable", skip_cache=True)
        self.run.log_artifact(artifact, aliases=["latest", *aliases])


def _payload(report: CheckpointReport, folder: Path, classes: Sequence[str]) -> dict[str, Any]:
    import wandb

    payload: dict[str, Any] = {}
    files = {name: _files(folder / name) for name in report.results}
    for name, result in report.results.items():
        payload |= named_scalars(name, result)
        payload |= dict(_media(report.step, name, result.figures, folder / name))

    def picture(name: str, figure: Figure) -> Any:
        return _image(figure, files[name].get(figure.key), figure.caption)

    if table := units_table(report.results, picture, classes):
        payload[UNITS] = wandb.Table(columns=table[0], data=table[1])
    return payload


def _media(step: int, name: str, figures: Sequence[Figure], folder: Path) -> Iterator[tuple[str, Any]]:
    import wandb

    files = _files(folder)
    for layer, group in by_layer(figures).items():
        of_units = any(figure.unit is not None for figure in group)
        if len(group) <= SINGLES and not of_units:
            captions = [f"step {step}: {figure.caption}" for figure in group]
            if len({figure.image.shape for figure in group}) > 1:  # W&B shows a list in frames of one size
                group, files = _framed(group), {}
            if len({path.suffix for f in group if (path := files.get(f.key))}) > 1:  # and of one format
                files = {}
            shown = [_image(f, files.get(f.key), caption) for f, caption in zip(group, captions)]
            yield media_key(name, layer), shown
        else:
            units = dict.fromkeys(figure.unit for figure in group if figure.unit is not None)
            what = f"units {', '.join(map(str, units))}" if units else f"{len(group)} pictures"
            caption = f"step {step}: {name}, {layer or 'all layers'}, {what}, row by row"
            pixels = sheet([figure.image for figure in group]).numpy()
            yield media_key(name, layer), wandb.Image(pixels, caption=caption, file_type="jpg")


def _framed(figures: Sequence[Figure]) -> list[Figure]:
    """The same pictures, each at the top left of a frame that fits the largest."""
    height, width = (max(figure.image.shape[side] for figure in figures) for side in (0, 1))
    framed = []
    for figure in figures:
        frame = torch.full((height, width, 3), PAPER, dtype=torch.uint8)
        frame[: figure.image.shape[0], : figure.image.shape[1]] = figure.image
        framed.append(dataclasses.replace(figure, image=frame))
    return framed


def _image(figure: Figure, file: Path | None, caption: str) -> Any:
    import wandb

    if file is not None and file.exists():
        return wandb.Image(str(file), caption=caption)
    return wandb.Image(figure.image.cpu().numpy(), caption=caption)  # uint8: floats would come out black


def _files(folder: Path) -> dict[str, Path]:
    return {entry["key"]: folder / entry["file"] for entry in _listed(folder / "figures.json")}


def _listed(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
