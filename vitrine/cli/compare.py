"""One page for several runs side by side: the same layer, unit and image at the same step.

    python analyze.py compare RUN RUN [RUN ...] [out=DIR]

The pictures stay in the runs' folders, which the page points to.
"""

from dataclasses import dataclass
from pathlib import Path

from vitrine.cli.arguments import find_runs
from vitrine.config.errors import as_setting_error
from vitrine.core.settings import SettingError, setting
from vitrine.reporting.page import compare
from vitrine.runs.filenames import safe_name


@dataclass(frozen=True)
class Settings:
    out: str | None = setting(None, "folder of the page; compare-RUN-RUN beside the first run unless given")


def main(words: list[str], settings: Settings) -> None:
    folders = find_runs("compare", words, least=2)
    names = "-".join(folder.name for folder in folders)
    default = folders[0].parent / safe_name(f"compare-{names}")
    out = Path(settings.out) if settings.out is not None else default
    if (out / "config.yaml").exists():
        raise SettingError("out", f"{out} is a run with a page of its own, expected another folder")

    with as_setting_error("out"):  # no way from it to the runs: another drive
        try:
            page = compare(folders, out)
        except OSError as error:
            raise SettingError("out", f"{out} cannot be written: {error.strerror}") from None
    print(f"{len(folders)} runs beside each other\nthe page: {page}")
