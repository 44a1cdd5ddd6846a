"""What `analyze.py` does beside its main road, by name: one file a command."""

from __future__ import annotations

from registry import Registry

COMMANDS = Registry(
    "command",
    {
        "dream": "commands.dream:main",
        "style": "commands.style:main",
        "compare": "commands.compare:main",
        "report": "commands.report:main",
        "sync": "commands.sync:main",
    },
)
