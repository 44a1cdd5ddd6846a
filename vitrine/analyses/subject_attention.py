"""Where the network of a Subject attends, and what analyses of attention say where it does not."""

from __future__ import annotations

import logging

from vitrine.analyses.attention_structure import AttentionStructure, attention_structure
from vitrine.analyses.base import Subject
from vitrine.analyses.layout import layouts

log = logging.getLogger(__name__)


def structure_of(subject: Subject) -> AttentionStructure:
    """Where the subject's network attends, found once for all analyses."""
    return subject.cached(
        "attention_structure", lambda: attention_structure(subject.network, subject.probes.images[:1])
    )


def log_missing_attention(subject: Subject, analysis: str) -> None:
    """Log why an analysis has nothing to show of a network's attention; of a network without tokens, nothing.

    Args:
        analysis: its name.
    """
    if structure_of(subject).blocks:
        reason = (
            "no attention of a grid's tokens to one another is seen (it is a class token's or the channels' "
            "alone, its heads are mixed, or the grid cannot be told)"
        )
    elif _has_tokens(subject):
        reason = "the network computes no softmax over its tokens that is multiplied with their values"
    else:
        return
    log.log(subject.log_level(analysis), "%s is left out: %s", analysis, reason)


def _has_tokens(subject: Subject) -> bool:
    """Whether any of the subject's layers gives a grid of tokens."""
    try:
        found = layouts(subject.network, subject.probes.images[:1], subject.layers)
    except ValueError:
        return False
    return any(layout.grid is not None for layout in found.values())
