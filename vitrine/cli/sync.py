"""Upload to W&B what runs have logged offline; a run's folder may have been moved or copied meanwhile.

    python analyze.py sync RUN [RUN ...]

First the logs are mended where they name files by paths that were right elsewhere, then `wandb sync` uploads
them, which needs a login. In a folder that was not moved `wandb sync RUN/wandb/offline-run-*` does the same.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from vitrine import config
from vitrine.cli.arguments import print_command_help_if_asked, split_arguments
from vitrine.core.settings import SettingError, setting
from vitrine.runs import run_folders


@dataclass(frozen=True)
class Settings:
    upload: bool = setting(True, "false: only mend the logs")


def main(arguments: list[str]) -> None:
    if print_command_help_if_asked(arguments, __doc__, Settings):
        return
    words, model, own = split_arguments(arguments)
    settings = config.parse_settings(Settings, [*own, *model])
    folders = list(dict.fromkeys(run_folders.find_run(word) for word in words))
    if not folders:
        raise SettingError("sync", f"no run came, expected at least one; {run_folders.describe_runs('runs')}")
    from vitrine.reporting.wandb_moved import mend
    from vitrine.reporting.wandb_run import has_key

    logs = []
    for folder in folders:
        found = sorted(path.parent for path in folder.glob("wandb/offline-run-*/run-*.wandb"))
        if not found:
            raise SettingError(str(folder), "has no offline run of W&B")
        try:
            if count := mend(folder):
                print(f"{folder}: {count} files of artifacts found again")
        except OSError as error:
            raise SettingError(str(folder), f"cannot be mended: {error.strerror}") from None
        logs += found
    if not settings.upload:
        return
    if not has_key():
        raise SettingError("sync", "needs a W&B account: `wandb login`, or WANDB_API_KEY")
    status = subprocess.run([sys.executable, "-m", "wandb", "sync", *map(str, logs)]).returncode
    if status:
        raise SystemExit(status)
