"""Seconds to build the page of a long run, and to open it in a browser: at most 5, and below 2.

    python -m benchmarks.page [--steps 60] [--layers 5] [--units 16] [--rounds 5]

The run is made up, but written through the Store: at every checkpoint feature visualizations and dataset
examples of every unit, maps of eight images, a curve a layer. Opening needs chromium and playwright.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.ratio import hardware
from vitrine.analyses.base import Figure, Histogram, Scalar
from vitrine.analyses.result import AnalysisResult
from vitrine.reporting import page
from vitrine.runs.store import Store

QUICK = "--rounds 1 --steps 20"
IMAGES = 8


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--layers", type=int, default=5)
    parser.add_argument("--units", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    how = parser.parse_args()
    print(hardware(), end="\n\n")
    with tempfile.TemporaryDirectory() as place:
        run = Path(place) / "run"
        for step in range(1, how.steps + 1):
            write(run, 100 * step, how.layers, how.units)
        rows = {"build": timed(lambda: page.build(run), how.rounds)}
        rows |= opened(run, how.rounds)
        title = f"{how.steps} checkpoints x {how.layers} layers x {how.units} units"
        print(f"**{title}; gallery.js {(run / 'gallery.js').stat().st_size / 1e6:.1f} MB**\n")
    print("| | seconds, median | least | most |\n|---|---:|---:|---:|")
    for name, seconds in rows.items():
        print(f"| {name} | {statistics.median(seconds):.3f} | {min(seconds):.3f} | {max(seconds):.3f} |")


def write(run: Path, step: int, layers: int, units: int) -> None:
    with Store(run).writing(step, weights="") as writer:
        for name, result in results(step, layers, units).items():
            writer.write(name, result)


def results(step: int, layers: int, units: int) -> dict[str, AnalysisResult]:
    """One checkpoint, with pictures of a few pixels: the page reads their headers only."""
    drawn = torch.randint(0, 256, (12, 12, 3), generator=torch.Generator().manual_seed(step)).to(torch.uint8)
    names = [(f"stage{depth}.block", unit) for depth in range(layers) for unit in range(units)]
    drawn_beside = {
        "scores": [step / 7, step / 9],
        "class_shares": {"stop": 2 / 3, "yield": 1 / 3},
        "histogram": Histogram(0.0, step / 7, [1 / 32] * 32),
    }
    both = {
        name: [
            Figure(
                f"{layer}/unit-{unit:03d}",
                drawn,
                caption.format(layer, unit, step),
                layer,
                unit,
                values={"activation": step / 7},
                **more,
            )
            for layer, unit in names
        ]
        for name, caption, more in (
            ("examples", "{}, unit {}: what excites it most; activation {}", drawn_beside),
            ("features", "{}, unit {}: activation {}, 2.5 times the data set's maximum", {}),
        )
    }
    maps = [
        Figure(
            f"probe-{i:03d}/stop",
            drawn,
            f"stop: image, Grad-CAM at {step}",
            None,
            None,
            i,
            0,
            {"confidence": 0.5},
        )
        for i in range(IMAGES)
    ]
    curves = [Scalar(f"dead_units/{layer}", 0.1, layer) for layer in dict(names)]
    found = {
        name: AnalysisResult(figures, curves if name == "examples" else [], 1.0)
        for name, figures in both.items()
    }
    return {**found, "cam": AnalysisResult(maps, [], 1.0)}


def timed(what: Callable[[], object], rounds: int) -> list[float]:
    seconds = []
    for _ in range(rounds):
        begun = time.perf_counter()
        what()
        seconds.append(time.perf_counter() - begun)
    return seconds


def opened(run: Path, rounds: int) -> dict[str, list[float]]:
    """Seconds until the first view is painted, and a picture of it; of a layer's view, and a unit's with its
    history; of one step of the slider on the overview and on the layer's view."""
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        program = None
    if not program:
        print("opening: not measured, for want of chromium or playwright\n")
        return {}
    names = ("open", "its first picture", "the overview at another step", "a layer")
    rows: dict[str, list[float]] = {
        name: [] for name in (*names, "a step of the slider", "a unit, all its steps")
    }
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=program, args=["--no-sandbox", "--disable-gpu"])
        for _ in range(rounds):
            tab = browser.new_page(viewport={"width": 1280, "height": 900})
            tab.add_init_script(_WATCH)
            tab.goto((run / "index.html").as_uri())
            tab.wait_for_selector("h1")
            rows["open"].append(tab.evaluate(_DRAWN))
            rows["its first picture"].append(tab.wait_for_function("globalThis.pictured").json_value())
            rows["the overview at another step"].append(tab.evaluate(_MOVED))
            tab.evaluate("location.hash = '#/layer/stage1.block'")
            tab.wait_for_selector(".card")
            rows["a layer"].append(tab.evaluate(_AGAIN))
            rows["a step of the slider"].append(tab.evaluate(_MOVED))
            rows["a unit, all its steps"].append(tab.evaluate(_UNIT))
            tab.close()
        browser.close()
    return rows


# from the navigation's start until the first picture is painted, by the browser's own clock
_DRAWN = """() => new Promise(done => requestAnimationFrame(() => setTimeout(() => {
    done(performance.getEntriesByName('first-contentful-paint')[0].startTime / 1000) })))"""
# when the frame is drawn after a first picture of the view has come, by the same clock
_WATCH = """document.addEventListener('load', ({ target }) => {
    if (target.tagName === 'IMG' && target.closest('main')) requestAnimationFrame(() => setTimeout(() => {
        globalThis.pictured ??= performance.now() / 1000 })) }, true)"""
# until nothing is awaited any more: what a large run shows is loaded when it is looked at
_TIMED = """() => new Promise(done => {{ const begun = performance.now(); {what};
    const look = () => ({ready} ? requestAnimationFrame(look)
        : setTimeout(() => done((performance.now() - begun) / 1000)));
    requestAnimationFrame(look) }})"""
_PENDING = "document.querySelector('main .pending')"
_AGAIN = _TIMED.format(what="dispatchEvent(new HashChangeEvent('hashchange'))", ready=_PENDING)
_MOVED = _TIMED.format(
    what="dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowLeft' }))", ready=_PENDING
)
_UNIT = _TIMED.format(
    what="location.hash = '#/unit/stage1.block/1'",
    ready="!document.querySelector('.film') || document.querySelector('.film img:not([src])')",
)


if __name__ == "__main__":
    main()
