"""One page on which several runs stand side by side: the same layer, unit and image at the same slider.

    python analyze.py compare RUN RUN [RUN ...] [out=DIR]

The pictures stay in the runs' folders, which the page points to.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vitrine import config
from vitrine.cli import arguments as said
from vitrine.config.errors import blaming
from vitrine.core.settings import SettingError, setting
from vitrine.reporting.page import compare
from vitrine.runs import run_folders
from vitrine.runs.filenames import part


@dataclass(frozen=True)
class Settings:
    out: str | None = setting(None, "folder of the page; compare-RUN-RUN beside the first run unless given")


def main(arguments: list[str]) -> None:
    if said.helped(arguments, __doc__, Settings):
        return
    words, model, own = said.parted(arguments)
    settings = config.filled(Settings, [*own, *model])
    folders = list(dict.fromkeys(run_folders.folder_of(word) for word in words))
    if len(folders) < 2:
        known = run_folders.listed(str(folders[0].parent)) if folders else run_folders.listed("runs")
        raise SettingError(
            "compare", f"{len(folders)} run{'' if folders else 's'} came, expected at least 2; {known}"
        )
    names = "-".join(folder.name for folder in folders)
    out = Path(settings.out) if settings.out is not None else folders[0].parent / part(f"compare-{names}")
    if (out / "config.yaml").exists():
        raise SettingError("out", f"{out} is a run with a page of its own, expected another folder")

    with blaming("out"):  # no way from it to the runs: another drive
        try:
            page = compare(folders, out)
        except OSError as error:
            raise SettingError("out", f"{out} cannot be written: {error.strerror}") from None
    print(f"{len(folders)} runs beside each other\nthe page: {page}")
