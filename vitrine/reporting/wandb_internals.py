"""All that is used of wandb beyond its public interface; a test tries it with the installed version."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def service_process() -> subprocess.Popen | None:
    """The process of wandb-core; None where this process has not started it."""
    from wandb.sdk import wandb_setup

    try:
        return wandb_setup.singleton().assert_service()._proc._process
    except (AssertionError, AttributeError):
        return None


def login_problem() -> str | None:
    """Why W&B cannot log in without a prompt, None where it can. Prints nothing, and asks no server."""
    from wandb.errors import AuthenticationError
    from wandb.sdk import wandb_setup
    from wandb.sdk.lib import wbauth

    host = wandb_setup.singleton().settings.base_url
    try:
        found = wbauth.authenticate_session(host=host, source="", prompt=False, update_session=False)
    except (AuthenticationError, ValueError) as error:
        return str(error)
    return None if found else "there is no API key"


def read_log(file: Path) -> Iterator[dict[str, Any]]:
    """The records of a `.wandb` file, up to where a kill cut it off, as `wandb leet inspect --json` has them.

    It is what that command starts, without the second that W&B's command line takes.
    """
    from wandb.util import get_core_path

    command = [get_core_path(), "leet", "inspect", "--no-observability", "--json"]
    command += ["--run-file", str(file), str(file.parent.parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        yield from map(json.loads, process.stdout)


def view_spec(view: Any) -> Any:
    """What a workspace or report of wandb_workspaces sends to W&B when it is saved, as plain containers."""
    return json.loads(view._to_model().spec.model_dump_json(by_alias=True, exclude_none=True))
