"""The page of a run: `index.html`, opened from the folder, without server or network."""

import contextlib
import hashlib
import html
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from vitrine.analyses.result import CheckpointReport
from vitrine.core import atomic
from vitrine.reporting import page_cache
from vitrine.reporting.page_data import run_json, run_name

_log = logging.getLogger(__name__)

_ASSETS = Path(__file__).with_name("page")
_SCRIPTS = (
    "data.js",
    "parts.js",
    "elements.js",
    "charts.js",
    "pictures.js",
    "turntable.js",
    "numbers.js",
    "tables.js",
    "near.js",
    "views.js",
    "app.js",
)


def build(run_dir: str | Path) -> Path:
    """Write a run's page: index.html, which is returned, and gallery.js with its content.

    Raises:
        OSError: the disk refused; what was there stands.
    """
    run_dir = Path(run_dir)
    run_dir.mkdir(parents=True, exist_ok=True)
    content, known = run_json(run_dir)
    index = _write(run_dir, [content], run_name(run_dir))
    page_cache.write(run_dir, known)
    return index


def compare(run_dirs: Sequence[str | Path], folder: str | Path) -> Path:
    """Write and return a page in `folder` that shows several runs side by side; pictures stay where they are.

    Raises:
        OSError: the disk refused.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    runs = [
        run_json(Path(run), Path(os.path.relpath(Path(run).resolve(), folder.resolve())).as_posix() + "/")[0]
        for run in run_dirs
    ]
    return _write(folder, runs, " beside ".join(map(run_name, map(Path, run_dirs))))


class PageSink:
    """Rebuilds a run's page at every checkpoint."""

    def __init__(self, run_dir: str | Path):
        self.run_dir = Path(run_dir)

    def log(self, report: CheckpointReport, folder: Path) -> None:
        """The page with this checkpoint on it; never raises."""
        self.close()

    def close(self) -> None:
        """The page once more, with the last of the curves; never raises."""
        try:
            for _ in range(10):
                known = _complete_steps(self.run_dir)
                build(self.run_dir)
                if _complete_steps(self.run_dir) == known:
                    break  # else another process has added a step meanwhile, and its page may be under ours
        except Exception:
            _log.warning("the page could not be written", exc_info=True)


def _complete_steps(run_dir: Path) -> dict[str, int]:
    """The modification times of the complete steps and of the run's record."""
    known, analysis = {}, run_dir / "analysis"
    # as text: a Path of each takes longer than to ask
    names = os.listdir(analysis) if analysis.is_dir() else []
    folders = [f"{analysis}/{name}" for name in names if name.startswith("step=")]
    for file in (*(f"{folder}/complete.json" for folder in folders), f"{run_dir}/run.json"):
        with contextlib.suppress(OSError):  # being replaced
            known[file] = os.stat(file).st_mtime_ns
    return known


def _write(folder: Path, runs: list[str], title: str) -> Path:
    content = f"[{','.join(runs)}]"
    stamp = hashlib.sha256(content.encode()).hexdigest()[:16]
    atomic.write_text(folder / "gallery.js", f'vitrine({{"stamp":"{stamp}","runs":{content}}});\n')
    script = "\n".join(map(_asset, _SCRIPTS))
    page = _asset("index.html").replace("/*STYLE*/", _asset("page.css"), 1).replace("/*SCRIPT*/", script, 1)
    title = html.escape(title.encode("utf-8", "replace").decode())  # last: it may be "/*SCRIPT*/"
    atomic.write_text(folder / "index.html", page.replace("<!--TITLE-->", title, 1))
    return folder / "index.html"


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")
