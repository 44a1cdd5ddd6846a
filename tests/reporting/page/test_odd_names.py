"""Class names as people have them, from the file that names them to the page."""

import csv

import numpy as np
import pytest
from PIL import Image

from vitrine.cli import train
from vitrine.runs.store import Store

pytestmark = pytest.mark.slow

NAMES = [
    "a/b", "con", "NUL", "-dash", 'quote "q" \'s', "x" * 240, "été", "🚦 light", "日本語", "<b>bold</b>",
    "..", ".", "a\\b", "=SUM(A1)", "100%", "a\tb", "$x_1$", "#hash?x=1&y", "{brace}", "[0]", "~", "null",
    "True", "step=5",
]  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd")
    with open(folder / "labels.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["file", "label", "split"])
        for label, name in enumerate(NAMES):
            for i in range(3):
                colour = np.array([label * 10, 255 - label * 10, (label * 37) % 255], dtype=np.uint8)
                Image.fromarray(np.broadcast_to(colour, (16, 16, 3)).copy()).save(folder / f"{label}_{i}.png")
                rows.writerow([f"{label}_{i}.png", name, "train" if i < 2 else "val"])
    train.main(
        [
            "data.name=csv", f"data.file={folder / 'labels.csv'}", "data.image_size=16", "data.batch_size=24",
            "trainer.max_epochs=1", "trainer.accelerator=cpu", "trainer.enable_progress_bar=false",
            "analysis.features.steps=4", "analysis.features.classes=24", f"run.root={folder}", "run.name=run",
            "logging.wandb.mode=offline", "logging.tensorboard=true",
        ]
    )  # fmt: skip
    return folder / "run"


def test_every_name_is_on_the_page_as_it_is(run, visit):
    store = Store(run)
    (step,) = store.steps()
    assert [name for name, result in store.results(step).items() if result.error] == []
    tab = visit()
    tab.wait_for_timeout(300)
    assert tab.evaluate("document.documentElement.scrollWidth") <= 1280
    for name in NAMES:
        tab.fill(".table input", name.strip()[:30])
        rows = tab.eval_on_selector_all(
            ".table tbody th", "cells => cells.map(c => c.title || c.textContent)"
        )
        assert name in rows, (name, rows)
    titles = tab.eval_on_selector_all(".tiles .of", "titles => titles.map(t => t.textContent)")
    assert set(titles) <= set(NAMES) and "a/b" in titles


def test_pictures_of_images_are_found_whatever_their_class(run, visit):
    tab = visit()
    for probe in range(8):
        tab.goto((run / "index.html").as_uri() + f"#/image/{probe}")
        tab.wait_for_selector(f"h1:has-text('image {probe}')")
        tab.wait_for_timeout(100)
        broken = tab.eval_on_selector_all(
            "main img", "images => images.filter(i => i.complete && i.naturalWidth === 0).map(i => i.src)"
        )
        assert broken == []
