"""Arguments in, exit status out: where every program starts and ends."""

import errno
import os
import sys
from collections.abc import Callable

from vitrine.core.settings import RunAborted, SettingError

DISK_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def run_cli(main: Callable[[list[str]], None], arguments: list[str] | None = None) -> None:
    """Run a program's main on `arguments` (default: `sys.argv[1:]`).

    After wrong input (SettingError) the process ends with exit status 2 and one message on stderr; if the
    program cannot continue (`settings.RunAborted`, a full disk) with status 1 and one message.
    """
    try:
        main(sys.argv[1:] if arguments is None else arguments)
    except SettingError as error:
        print(f"error: {one_line(str(error))}", file=sys.stderr)
        raise SystemExit(2) from None
    except RunAborted as error:
        message = "; ".join([str(error), *getattr(error, "__notes__", [])])
        print(f"stopped: {one_line(message)}", file=sys.stderr)
        raise SystemExit(1) from None
    except BrokenPipeError:  # `--help | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where the rest of the buffer goes
        raise SystemExit(1) from None
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        where = f" for {error.filename}" if error.filename else ""
        advice = "nothing is half-written; make room and go on with run.resume=true"
        print(f"stopped: {error.strerror}{where}: {advice}", file=sys.stderr)
        raise SystemExit(1) from None


def one_line(text: str, limit: int = 1500) -> str:
    """A message as one printable line: control characters escaped, the middle of a long one left out."""
    text = "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
    return text if len(text) <= limit else f"{text[: limit - 300]} ... {text[-300:]}"
