"""`data.masks` on folders of images: a class that can be told outside of the masks, and one that cannot."""

import json
import logging

import numpy as np
import pytest
from PIL import Image
from quick_settings import QUICK

from vitrine.analyses import ANALYSES
from vitrine.cli import train
from vitrine.runs.store import Store

pytestmark = pytest.mark.slow
COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}
GRAY, SIDE, OBJECT, CORNER = (128, 128, 128), 24, 8, 5
SETTINGS = [
    *QUICK,
    *(f"analysis.{name}.enabled=false" for name in ANALYSES if name != "shortcut"),
    "data.name=folder",
    "data.batch_size=32",
    "data.workers=0",
    "model.options={widths: [8, 16]}",
    "optimizer.lr=0.01",
    "trainer.max_epochs=5",
    "run.name=run",
]


def draw(folder, shortcut):
    """Noise with a square, of which there are masks, and a corner, one of them in the colour of the class."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 32), ("val", 10)):
        for name, colour in COLOURS.items():
            for i in range(count):
                pixels = generator.integers(100, 156, (SIDE, SIDE, 3), dtype=np.uint8)
                mask = np.zeros((SIDE, SIDE), np.uint8)
                top, left = generator.integers(CORNER + 1, SIDE - OBJECT, 2)
                mask[top : top + OBJECT, left : left + OBJECT] = 1
                pixels[mask > 0] = GRAY if shortcut else colour
                pixels[:CORNER, :CORNER] = colour if shortcut else GRAY
                for root, levels in (("images", pixels), ("masks", mask)):
                    file = folder / root / split / name / f"{i}.png"
                    file.parent.mkdir(parents=True, exist_ok=True)
                    Image.fromarray(levels).save(file)


@pytest.mark.parametrize("shortcut", [True, False], ids=["corner", "object"])
def test_classes_that_look_outside_of_the_masks_raise_an_alarm_in_log_and_page_and_no_others_do(
    tmp_path, caplog, shortcut
):
    draw(tmp_path, shortcut)
    places = [f"data.root={tmp_path}/images", f"data.masks={tmp_path}/masks", f"run.root={tmp_path}"]
    with caplog.at_level(logging.INFO):
        train.main([*SETTINGS, *places])
    run = tmp_path / "run"
    store = Store(run)
    step = store.steps()[-1]
    found = {point.key: point for point in store.scalars(step, "shortcut")}
    said = [record.getMessage() for record in caplog.records if "alarm at step" in record.getMessage()]
    text = (run / "gallery.js").read_text(encoding="utf-8")
    (page,) = json.loads(text[text.index("{") : text.rindex("}") + 1])["runs"]
    assert "masks: 126 of 126 images have one" in caplog.text
    assert {figure.key for figure in store.figures(step, "shortcut")} == {"classes", "outside"}
    chance, outside = (found[f"outside/{name}"].value for name in ("chance", "integrated_gradients"))
    assert chance == pytest.approx(1 - (OBJECT / SIDE) ** 2, abs=1e-3)
    if not shortcut:
        assert found["alarm/shortcut"].value == found["classes_outside"].value == 0
        assert not said and not page["alarms"]
        assert outside < chance
        return
    expected = "3 of 3 classes examined are recognised by what lies outside of the object: blue, green, red"
    assert found["alarm/shortcut"].value == 1 and found["classes_outside"].value == 3
    assert expected in found["alarm/shortcut"].text and expected in said[-1]
    assert [expected in alarm["text"] for alarm in page["alarms"] if alarm["step"] == step] == [True]
    assert outside > chance
