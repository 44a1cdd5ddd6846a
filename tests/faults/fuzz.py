"""Random input of many kinds, made small where it fails.

    python tests/faults/fuzz.py                                        every kind, some seconds each
    python tests/faults/fuzz.py --kind settings --cases 10000 --seed 0

settings    command lines and recipes: one message with status 2, or possible, text taken as written
runs        settings of training: refused before the first step by name, or trained to the end
folders     data sets as programs leave them: hidden files and loops count for nothing, or one message
images      formats, depths and damage: the pixels, or refused by name
networks    layouts, shapes, outputs and wrappers: maps and logits as of the plain network
interrupts  SIGTERM in any hook, averages and validations: as if it had not come
"""

from __future__ import annotations

import argparse
import faulthandler
import importlib
import logging
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

KINDS = {"settings": 500, "runs": 10, "folders": 200, "images": 500, "networks": 50, "interrupts": 10}


def run(kind: str, count: int, seed: int, folder: Path) -> Counter:
    """So many cases of a kind, and what came of them. Raises for one that fails, made small."""
    return importlib.import_module(f"fuzz_{kind}").run(count, seed, folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, action="append")
    parser.add_argument("--cases", type=int)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    faulthandler.enable()
    logging.disable(logging.WARNING)  # what is said of what is left out, and of damage
    warnings.simplefilter("ignore")
    for kind in asked.kind or KINDS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            tally = run(kind, asked.cases or KINDS[kind], asked.seed, Path(folder))
        outcomes = ", ".join(f"{count:,} {outcome}" for outcome, count in tally.most_common())
        seconds = time.monotonic() - started
        print(f"{kind}: {tally.total():,} cases ({outcomes}); {seconds:.0f} s, seed {asked.seed}", flush=True)


if __name__ == "__main__":
    main()
