"""A run whose page loads what it shows from many files: it shows the same as one that has all in one."""

import shutil

import pytest
import torch

from vitrine.analyses.base import Figure, Histogram, Scalar, Table, Turntable, alarm
from vitrine.analyses.result import AnalysisResult
from vitrine.reporting import page, page_cache
from vitrine.runs.store import Store

pytestmark = pytest.mark.slow

LAYERS = [f"layer{depth}" for depth in range(30)]  # more than stand in a line
STEPS = (100, 200, 300)


def write(run, step):
    image = torch.full((24, 32, 3), step // 2, dtype=torch.uint8)
    units = [
        Figure(
            f"{layer}/unit-{unit:03d}", image, f"{layer} unit {unit} at {step}", layer, unit,
            values={"activation": step / 7 + unit}, scores=[3.0, 2.0], class_shares={"stop": 1.0},
            histogram=Histogram(0.0, step / 3, [0.5, 0.25, 0.25]),
        )
        for layer in LAYERS
        for unit in range(4 if step > 100 else 2)
    ]  # fmt: skip
    maps = [
        Figure(f"probe-{i:03d}/{name}", image, f"probe {i} at {step}", None, None, i, 0, {"confidence": step})
        for i in range(2)
        for name in ("stop", "Stop", "con")  # of which Windows has files of the first alone
    ]
    classes = [f"class {i}" for i in range(40)]
    table = Table({"class": classes, "recall": [i / 40 + step / 1e4 for i in range(40)]}, "recall")
    turned = Turntable(
        ["0°", "180°"], {"a": [f"x{step}", "y"]}, {"a": [True, False]}, [0, 0], [16, 24], [16, 24]
    )
    curves = [Scalar(f"dead_units/{layer}", step / 1e4, layer) for layer in LAYERS]
    with Store(run).writing(step, "w") as writer:
        writer.write(
            "examples", AnalysisResult(units, [*curves, alarm("odd", "odd!" if step == 200 else "")], 1)
        )
        writer.write("cam", AnalysisResult(maps, [], 1))
        writer.write(
            "confusion", AnalysisResult([Figure("confusion", image, f"at {step}", table=table)], [], 1)
        )
        writer.write(
            "turned", AnalysisResult([Figure("all", image, f"turned at {step}", turntable=turned)], [], 1)
        )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "large #1?"
    for step in STEPS:
        write(folder, step)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(page_cache, "ONE_FILE", 0)
        page.build(folder)
    return folder


@pytest.fixture(scope="module")
def whole(run):
    folder = run.parent.parent / "whole" / run.name
    shutil.copytree(run, folder)
    page.build(folder)
    return folder


MAKE_ALL = """async () => {
    for (let place; (place = document.querySelector('main .awaited'));) {
        place.scrollIntoView();
        await new Promise((done) => setTimeout(done, 20));
    }
}"""


def settled(tab):
    """What a view shows when all of it is made and nothing moves any more."""
    was, now = None, ""
    while was != now:
        was = now
        tab.evaluate(MAKE_ALL)
        tab.wait_for_timeout(150)
        now = tab.evaluate("document.querySelector('main').innerHTML")
    return now


@pytest.mark.parametrize(
    "view", ["", "layer/layer7", "unit/layer7/1", "unit/layer7/3", "image/1", "?step=200"]
)
def test_every_view_is_as_from_one_file(visit, run, whole, view):
    many, one = visit(view, folder=run), visit(view, folder=whole)
    assert settled(many) == settled(one)
    for tab in (many, one):
        tab.keyboard.press("Home")
    assert settled(many) == settled(one)
    for tab in (many, one):
        tab.select_option("#time select", "300")
    assert settled(many) == settled(one) and "at 300" in settled(many)


def test_only_what_is_looked_at_is_loaded(visit, run):
    tab = visit("image/1")
    settled(tab)
    asked = []
    tab.on("request", lambda request: asked.append(request.url))
    tab.evaluate("location.hash = '#/layer/layer7'")
    tab.wait_for_selector(".card img[src]")
    settled(tab)
    pieces = {url.split("analysis/")[1].split("?")[0] for url in asked if "page.parts" in url}
    assert pieces == {"step%3D00000300/examples/page.parts/000.js"}


def test_keys_that_move_through_the_run_are_letters_in_a_search(visit):
    tab = visit("layer/layer7")
    before = tab.text_content("h1"), tab.text_content("output")
    tab.click("summary:has-text('30 layers')")
    tab.keyboard.type("jack")
    tab.keyboard.press("Home")
    tab.keyboard.press("Delete")
    assert tab.locator(".panel input").input_value() == "ack"
    assert (tab.text_content("h1"), tab.text_content("output")) == before


def test_many_layers_are_found_in_a_menu_by_their_name(visit, run, serious):
    tab = visit("layer/layer7")
    tab.click("summary:has-text('30 layers')")
    assert tab.locator(".panel a").count() == 30
    tab.keyboard.type("YER21")
    assert tab.locator(".panel a:visible").all_text_contents() == ["layer21"]
    assert serious(tab) == []
    tab.keyboard.press("Enter")
    tab.wait_for_selector("h1:has-text('layer21')")
    tab.click("summary:has-text('layer21')")
    tab.keyboard.press("Escape")
    assert not tab.locator(".panel").is_visible()


def test_a_page_that_is_open_shows_an_old_step_that_was_redone(visit, run, tmp_path, monkeypatch):
    folder = tmp_path / "redone"
    shutil.copytree(run, folder)
    monkeypatch.setattr(page_cache, "ONE_FILE", 0)
    tab = visit("image/1?step=200", folder=folder)
    assert "probe 1 at 200" in settled(tab)
    image = torch.zeros(24, 32, 3, dtype=torch.uint8)
    with Store(folder).writing(200, "w") as writer:
        writer.write(
            "cam", AnalysisResult([Figure("probe-001/stop", image, "anew", None, None, 1, 0)], [], 1)
        )
    page.build(folder)
    tab.wait_for_selector("text=anew", timeout=60_000)
