"""Noting what a strategy saves, whoever else has wrapped its `save_checkpoint` or will."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_NAME = "save_checkpoint"


class NotingSave:
    """A strategy's `save_checkpoint` that calls `note(checkpoint, filepath)` once the file is written.

    What a file holds is known here and nowhere else: callbacks may have replaced the weights, and with
    `save_weights_only` no hook of a callback is called. What the strategy had is called for the writing, so
    several wrappers chain; they may end in any order.

    Args:
        strategy: of a Trainer; of its own, the method is shadowed until `end`.
    """

    def __init__(self, strategy: Any, note: Callable[[dict[str, Any], Any], None]):
        self._strategy, self._note = strategy, note
        _remove_ended(strategy)
        self._save = strategy.save_checkpoint
        strategy.save_checkpoint = self

    def __call__(self, checkpoint: dict[str, Any], filepath: Any, *more: Any, **options: Any) -> None:
        self._save(checkpoint, filepath, *more, **options)
        if self._note is not None:
            self._note(checkpoint, filepath)

    def end(self) -> None:
        """Note nothing more, and give the strategy its method back; where another wrapper came later, that
        one's end does."""
        self._note = None
        _remove_ended(self._strategy)


def _remove_ended(strategy: Any) -> None:
    """Put what ended wrappers have wrapped in their place, as far as no other is around them."""
    while isinstance(saving := vars(strategy).get(_NAME), NotingSave) and saving._note is None:
        if getattr(saving._save, "__func__", None) is getattr(type(strategy), _NAME):
            delattr(strategy, _NAME)
        else:
            setattr(strategy, _NAME, saving._save)
