"""What one would zip and send of a run, by technique: its folder without checkpoints and W&B's.

    python -m benchmarks.page_weight RUN [BEFORE]

RUN is a finished run; BEFORE the same of earlier code, for a column beside. Wanted of the default run: 15 MB.
"""

from __future__ import annotations

import argparse
import zipfile
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryFile

LEFT_OUT = ("checkpoints", "wandb")
KINDS = {  # of files, by how their names end
    "pictures": (".webp", ".png"),
    "listings": (".json",),
    "states for resuming": (".safetensors",),
    "tables and objects": (".csv", ".tsv", ".txt", ".obj", ".mtl"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("runs", metavar="RUN", type=Path, nargs="+")
    runs = parser.parse_args().runs[:2]
    weighed = [weigh(run) for run in runs[::-1]]
    heads = ["MB", "pictures"] if len(runs) == 1 else ["MB before", "MB", "pictures"]
    print(f"| | {' | '.join(heads)} |\n|---|{'---:|' * len(heads)}")
    names = sorted(weighed[-1], key=lambda name: -sum(weighed[-1][name].values()))
    for name in names:
        row(name, [sum(of[name].values()) for of in weighed], count(runs[0], name))
    for kind in KINDS:
        row(f"of all: {kind}", [sum(of[kind] for of in found.values()) for found in weighed])
    row("**all**", [sum(sum(of.values()) for of in found.values()) for found in weighed], count(runs[0]))
    row("zipped", [zipped(run) for run in runs[::-1]])


def row(name: str, sizes: list[int], pictures: int | str = "") -> None:
    print(f"| {name} | {' | '.join(f'{size / 1e6:.2f}' for size in sizes)} | {pictures} |", flush=True)


def files(run: Path) -> list[Path]:
    found = (file for file in run.rglob("*") if file.is_file() and not file.is_symlink())
    return sorted(file for file in found if file.relative_to(run).parts[0] not in LEFT_OUT)


def technique(run: Path, file: Path) -> str:
    """Whose file it is; of the page itself, the curves and the settings "page"."""
    parts = file.relative_to(run).parts
    return parts[2] if parts[0] == "analysis" and len(parts) > 3 else "page"


def weigh(run: Path) -> dict[str, dict[str, int]]:
    """Bytes by technique and kind."""
    sizes: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for file in files(run):
        kind = next((kind for kind, ends in KINDS.items() if file.suffix in ends), "others")
        sizes[technique(run, file)][kind] += file.stat().st_size
    return sizes


def count(run: Path, name: str | None = None) -> int:
    """How many pictures there are, of one technique or all."""
    own = (file for file in files(run) if file.suffix in KINDS["pictures"])
    return sum(1 for file in own if name is None or technique(run, file) == name)


def zipped(run: Path) -> int:
    with TemporaryFile() as place:
        with zipfile.ZipFile(place, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files(run):
                archive.write(file, file.relative_to(run))
        return place.tell()


if __name__ == "__main__":
    main()
