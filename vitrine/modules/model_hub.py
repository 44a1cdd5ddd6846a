"""The hub that timm and transformers fetch from: whether it can be reached, known at once."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

WAIT = 5.0  # seconds


def hub_problem() -> str | None:
    """Why the hub cannot be reached, in one line; None if it can, as far as a connection shows."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    if any(key.lower() in ("https_proxy", "all_proxy") and value for key, value in os.environ.items()):
        return None  # a proxy knows names that this machine does not
    address = urlsplit(constants.ENDPOINT)
    try:
        socket.create_connection((address.hostname, address.port or 443), timeout=WAIT).close()
    except OSError as error:
        return f"{address.hostname} cannot be reached ({error.strerror or error})"
    return None


@contextmanager
def offline_unless_reachable() -> Iterator[str | None]:
    """Within the scope only files fetched before are used if the hub cannot be reached; yields why not."""
    from huggingface_hub import constants

    problem, before = hub_problem(), constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = before or problem is not None
    try:
        yield problem
    finally:
        constants.HF_HUB_OFFLINE = before
