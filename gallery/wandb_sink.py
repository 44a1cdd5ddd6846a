"""Results on a W&B dashboard: one `log` call a checkpoint, under the same keys at every one."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from analyses.base import Figure
from gallery.sheet import PAPER, by_layer, sheet
from gallery.sinks import INDEX, Results, section

_log = logging.getLogger(__name__)

SINGLES = (
    32  # pictures of no unit are shown one by one, each with its caption, up to so many; else as a sheet
)


class WandbSink:
    """Logs to an open W&B run.

    Args:
        run: what `wandb.init` gave, or `WandbLogger.experiment`.
        classes: class names, for the table of units.
    """

    def __init__(self, run: Any, classes: Sequence[str] = ()):
        self.run, self.classes = run, list(classes)
        self._run_dir: Path | None = None

    def log(self, step: int, results: Results, folder: Path) -> None:
        """Show the results of one checkpoint, at its step; never raises.

        Sheets and pictures are taken from `folder` where they lie there, so that nothing is encoded twice.
        """
        try:
            folder = Path(folder)
            self._run_dir = folder.resolve().parent.parent
            payload: dict[str, Any] = {"trainer/global_step": int(step)}
            for name, (figures, scalars) in results.items():
                payload |= {f"{section(name)}/{scalar.key}": float(scalar.value) for scalar in scalars}
                payload |= dict(_media(step, name, figures, folder / name))
            table = units_table(results, folder, self.classes)
            if table is not None:
                payload["Units/units"] = table
            self.run.log(payload)
            if not self.run.offline:
                self._upload(f"analysis-{self.run.id}", "analysis", [folder], [f"step-{step}"])
        except Exception:
            _log.warning("step %d did not reach W&B", step, exc_info=True)

    def close(self) -> None:
        """Upload the page, where somebody is on line to see it, and end the run; never raises."""
        try:
            if not self.run.offline and self._run_dir and (self._run_dir / "index.html").exists():
                page = [path for path in self._run_dir.iterdir() if path.suffix in (".html", ".js")]
                self._upload(f"page-{self.run.id}", "page", [*page, self._run_dir / "analysis"], ["final"])
            self.run.finish()
        except Exception:
            _log.warning("W&B did not end in order", exc_info=True)

    def _upload(self, name: str, kind: str, paths: Sequence[Path], aliases: list[str]) -> None:
        import wandb

        artifact = wandb.Artifact(name, type=kind)
        for path in paths:
            if path.is_dir():
                artifact.add_dir(str(path), name=path.name, policy="immutable", skip_cache=True)
            else:
                artifact.add_file(str(path), name=path.name, policy="immutable", skip_cache=True)
        self.run.log_artifact(artifact, aliases=["latest", *aliases])


def units_table(results: Results, folder: Path, classes: Sequence[str] = ()) -> Any:
    """A wandb.Table with a row a unit: what each technique shows of it, then numbers; None without units."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    pictures: dict[str, None] = {}  # an ordered set of columns
    numbers: dict[str, None] = {}
    for name, (figures, _) in results.items():
        files = _files(folder / name)
        for figure in figures:
            if figure.layer is None or figure.unit is None or figure.probe is not None:
                continue
            row = rows.setdefault((figure.layer, figure.unit), {})
            column = " ".join([name, *figure.key.split("/")[2:]])  # "layer3/unit-017/negative"
            if column in row:
                continue
            row[column] = _image(figure, files.get(figure.key), figure.caption)
            pictures[column] = None
            for key, value in figure.values.items():
                if INDEX.fullmatch(key):
                    continue
                told = _class(int(value), classes) if key == "top_class" else float(value)
                row.setdefault(f"{name}.{key}", told)
                numbers[f"{name}.{key}"] = None
            if figure.label is not None:
                row[f"{name}.class"] = _class(figure.label, classes)
                numbers[f"{name}.class"] = None
    if not rows:
        return None
    import wandb

    columns = [*pictures, *numbers]
    data = [[layer, unit, *(row.get(column) for column in columns)] for (layer, unit), row in rows.items()]
    return wandb.Table(columns=["layer", "unit", *columns], data=data)


def _media(step: int, name: str, figures: Sequence[Figure], folder: Path) -> Iterator[tuple[str, Any]]:
    files, sheets = _files(folder), _sheets(folder)
    for layer, group in by_layer(figures).items():
        key = "/".join([section(name), name, *([layer] if layer else [])])
        of_units = any(figure.unit is not None for figure in group)
        if len(group) <= SINGLES and not of_units:
            captions = [f"step {step}: {figure.caption}" for figure in group]
            if len({figure.image.shape for figure in group}) > 1:  # W&B shows a list in frames of one size
                group, files = _framed(group), {}
            yield key, [_image(f, files.get(f.key), caption) for f, caption in zip(group, captions)]
        else:
            caption = f"step {step}: {name}, {layer or 'all layers'}, {len(group)} pictures"
            yield key, _image(lambda group=group: sheet([f.image for f in group]), sheets.get(layer), caption)


def _framed(figures: Sequence[Figure]) -> list[Figure]:
    """The same pictures, each at the top left of a frame that fits the largest."""
    height, width = (max(figure.image.shape[side] for figure in figures) for side in (0, 1))
    framed = []
    for figure in figures:
        frame = torch.full((height, width, 3), PAPER, dtype=torch.uint8)
        frame[: figure.image.shape[0], : figure.image.shape[1]] = figure.image
        framed.append(dataclasses.replace(figure, image=frame))
    return framed


def _image(source: Any, file: Path | None, caption: str) -> Any:
    import wandb

    if file is not None and file.exists():
        return wandb.Image(str(file), caption=caption)
    pixels = source.image if isinstance(source, Figure) else source()
    return wandb.Image(pixels.cpu().numpy(), caption=caption)  # uint8: floats would come out black


def _files(folder: Path) -> dict[str, Path]:
    return {entry["key"]: folder / entry["file"] for entry in _listed(folder / "figures.json")}


def _sheets(folder: Path) -> dict[str | None, Path]:
    return {entry["layer"]: folder / entry["file"] for entry in _listed(folder / "sheets.json")}


def _listed(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else []


def _class(label: int, classes: Sequence[str]) -> str:
    return classes[label] if 0 <= label < len(classes) else str(label)
