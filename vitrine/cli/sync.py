"""Upload to W&B what runs have logged offline; a run's folder may have been moved or copied meanwhile.

    python analyze.py sync RUN [RUN ...]

`wandb sync`, which needs a login, is started in the run's folder: paths in its log are relative to that.
"""

import os
import subprocess
import sys
from dataclasses import dataclass

from vitrine.cli.arguments import find_runs
from vitrine.core.settings import SettingError, setting


@dataclass(frozen=True)
class Settings:
    upload: bool = setting(True, "false: only look whether all files are there")


def main(words: list[str], settings: Settings) -> None:
    from vitrine.reporting import wandb_internals, wandb_offline

    logs = {folder: wandb_offline.log_files(folder) for folder in find_runs("sync", words)}
    for folder, files in logs.items():
        if not files:
            raise SettingError(str(folder), "has no offline run of W&B")
        if missing := wandb_offline.missing_files(folder):
            number = f"{len(missing)} files of tables or the page are missing and not uploaded"
            print(f"{folder}: {number}, the first is {missing[0]}", file=sys.stderr)
    if not settings.upload:
        return
    if problem := wandb_internals.login_problem():
        raise SettingError("sync", f"needs a W&B account: `wandb login`, or WANDB_API_KEY ({problem})")
    # a service that is there already has another working directory
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    for folder, files in logs.items():
        # -P: the run's folder has a directory named wandb
        command = [sys.executable, "-P", "-m", "wandb", "sync", *(str(f.relative_to(folder)) for f in files)]
        ran = subprocess.run(command, cwd=folder, env=environment)
        if ran.returncode:
            raise SystemExit(ran.returncode)
