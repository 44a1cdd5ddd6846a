"""What is said of a network that is right for the wrong reason."""

from __future__ import annotations

from collections.abc import Sequence

from vitrine.analyses.plots import wilson_interval
from vitrine.analyses.shortcut_tests import Effects, Evidence, Outside, lies_below


def text_of_maps(outside: Outside, evidence: Evidence, thing: str, limit: str, classes: Sequence[str]) -> str:
    """Of which images most maps lie outside; empty: of none.

    Args:
        limit: how much of a map is to lie on the thing, in words.
    """
    names = [classes[label] for label in outside.classes]
    parts = []
    if outside.overall:
        count = int(evidence.recognised.sum())
        parts.append(f"most maps lie on the {thing} less than {limit}, over {count} recognised images")
    if names:
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        count = f"{len(names)} of {len(evidence.labels.unique())} classes examined"
        parts.append(f"{count} are recognised by what lies outside of the {thing}: {listed}")
    return "; ".join(parts)


def text_of_effects(effects: Effects, evidence: Evidence, thing: str) -> str:
    shortcut, drops = effects.shortcut, effects.drops
    if not (lies_below(drops[thing], drops[shortcut]) and drops[shortcut].mean() > 0):
        return ""
    density = {
        name: [(shares[mask] / evidence.areas[mask]).mean() for mask in (shortcut, thing)]
        for name, shares in evidence.shares.items()
    }
    pointing = [name for name, (on_shortcut, on_thing) in density.items() if on_shortcut > on_thing]
    maps = f". Of {len(density)} maps {len(pointing)} are denser on the {shortcut} than on the {thing}: "
    of_maps = maps + (", ".join(pointing) or "none") if density else ""
    return f"the network goes by the {shortcut}: {measured_in_words(effects, thing)}{of_maps}"


def measured_in_words(effects: Effects, thing: str) -> str:
    """The effects of the shortcut and the object in words, with 95 % intervals over scenes."""
    shortcut, falls, changes = effects.shortcut, {}, {}
    for what, drops in effects.drops.items():
        falls[what] = f"{drops.mean():.2f} ± {1.96 * drops.std() / len(drops) ** 0.5:.2f}"
        hits, count = int(effects.flips[what].sum()), len(drops)
        low, high = wilson_interval(hits, count)
        changes[what] = f"{hits / count:.0%} ({100 * low:.0f} to {100 * high:.0f})"
    return (
        f"without it the logit of the predicted class falls by {falls[shortcut]}, without the {thing} by "
        f"{falls[thing]}; another class's {shortcut} changes {changes[shortcut]} of the predictions, another "
        f"class's {thing} {changes[thing]}"
    )
