"""All that is used of wandb beyond its public interface; a test tries it with the installed version."""

from __future__ import annotations

import contextlib
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


NO_KEY = "there is no API key"


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
    return None if found else NO_KEY


def login_refusal(seconds: int) -> str | None:
    """That W&B's server does not take the login; None where it does, or does not answer in time.

    W&B's service is started for that if it is not there, and ended again.
    """
    import wandb

    running = service_process() is not None
    try:
        wandb.Api(timeout=seconds)
    except Exception as error:
        status = getattr(getattr(error.__cause__, "response", None), "http_status", None)
        host = wandb.setup().settings.base_url
        return f"{host} does not take the API key ({status})" if status in (401, 403) else None
    finally:
        if not running:
            wandb.teardown()
    return None


def log_artifacts_without_waiting(run: Any) -> None:
    """Let an online run log artifacts, and so tables, without asking its server, which may be gone by then.

    Before each W&B asks whether there is one of another type, and makes training wait for the answer; before
    the first it also asks for the login, and without an answer raises, so that the row of a table is lost.
    """
    with contextlib.suppress(Exception):  # it did not answer
        run._public_api()  # remembers the login
    run._assert_can_log_artifact = lambda artifact: None


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
