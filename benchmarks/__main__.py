"""List all benchmarks, then run the quick ones in turn, each as a program of its own: about five minutes.

    python -m benchmarks [--list] [NAME ...]

A benchmark is quick if it has QUICK, the arguments with which it ends in about twenty seconds on two cores.
So short a run shows that a program works and where its ratios lie; tables of BENCHMARKS.md are taken with the
program's own defaults, or with the arguments that stand beside them. `python -m benchmarks.NAME --help`
says what one measures and takes.
"""

from __future__ import annotations

import argparse
import ast
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Benchmark:
    """A program of this folder: what it measures, and the arguments of a quick run, None if it has none."""

    name: str
    subject: str
    quick: tuple[str, ...] | None


def benchmarks() -> list[Benchmark]:
    """The programs of this folder by name, read without importing them, as some need libraries of peers."""
    found = []
    for file in sorted(HERE.glob("*.py")):
        source = file.read_text()
        if file.name == "__main__.py" or 'if __name__ == "__main__":' not in source:
            continue
        tree = ast.parse(source)
        first = (ast.get_docstring(tree) or "").split("\n\n")[0]
        found.append(Benchmark(file.stem, " ".join(first.split()), _quick(tree)))
    return found


def run(benchmark: Benchmark) -> tuple[float, str]:
    """Run one with its quick arguments; its seconds, and what was wrong, empty if nothing."""
    command = [sys.executable, "-m", f"benchmarks.{benchmark.name}", *(benchmark.quick or ())]
    print(f"\n## {' '.join(['python', *command[1:]])}\n", flush=True)
    start = time.perf_counter()
    ended = subprocess.run(command, cwd=HERE.parent, stderr=subprocess.PIPE, text=True)
    seconds = time.perf_counter() - start
    if ended.returncode == 0:
        return seconds, ""
    missing = re.search(r"ModuleNotFoundError: No module named '(\w+)|: (\w+) is not installed", ended.stderr)
    if missing:
        return seconds, f"not run: it needs {missing[1] or missing[2]}, which is not installed"
    print(ended.stderr[-2000:], file=sys.stderr)
    return seconds, f"failed with status {ended.returncode}"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help="run these only, as far as they are quick")
    parser.add_argument("--list", action="store_true", help="list them, and run nothing")
    wanted = parser.parse_args()
    known = {b.name: b for b in benchmarks()}
    unknown = [name for name in wanted.names if name not in known]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(known)}")
    chosen = [known[name] for name in wanted.names] or list(known.values())
    width = max(len(b.name) for b in chosen)
    for b in chosen:
        print(f"{b.name:<{width}}  {'quick  ' if b.quick is not None else 'by hand'}  {b.subject}")
    if wanted.list:
        return 0
    results = {b.name: run(b) for b in chosen if b.quick is not None}
    print("\n| benchmark | seconds | |\n|---|---:|---|")
    for name, (seconds, problem) in results.items():
        print(f"| {name} | {seconds:.0f} | {problem} |")
    print(f"| all | {sum(seconds for seconds, _ in results.values()):.0f} | |")
    return int(any(problem.startswith("failed") for _, problem in results.values()))


def _quick(tree: ast.Module) -> tuple[str, ...] | None:
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(t, ast.Name) and t.id == "QUICK" for t in node.targets
        ):
            return tuple(ast.literal_eval(node.value).split())
    return None


if __name__ == "__main__":
    sys.exit(main())
