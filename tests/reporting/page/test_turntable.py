"""Things seen from all around: turned by dragging, by a slider and by keys, the verdict under each view."""

from io import BytesIO

import pytest
import torch
from PIL import Image

from vitrine.analyses import picture_table
from vitrine.analyses.base import Figure
from vitrine.analyses.result import AnalysisResult
from vitrine.reporting import page
from vitrine.runs.store import Store

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>"
VIEWS = 4
ROWS = ("clean", HOSTILE)


def shade(step: int, row: int, view: int) -> list[int]:
    """The colour of a view."""
    return [40 * view + 20, 100 * row + 50, step]


def write(run, step):
    pictures = [
        [
            torch.tensor(shade(step, r, v), dtype=torch.uint8).expand(96, 96, 3).contiguous()
            for v in range(VIEWS)
        ]
        for r in range(2)
    ]
    said = [[f"{name} {step}-{v}" for v in range(VIEWS)] for name in ("dots", HOSTILE)]
    marked = [[False] * VIEWS, [v == 2 for v in range(VIEWS)]]
    image, turned = picture_table.turntable(
        pictures, [f"{90 * v}°" for v in range(VIEWS)], ROWS, said, marked
    )
    figure = Figure("cup/as a bowl", image, f"a cup at {step}", label=1, turntable=turned)
    with Store(run).writing(step, weights=str(step)) as writer:
        writer.write("something_new", AnalysisResult([figure], [], 1))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("turned") / "run"
    for step in (100, 200):
        write(folder, step)
    page.build(folder)
    return folder


def of_shade(red: int, green: int, blue: int) -> tuple[int, int, int]:
    """Step, row and view of a colour; pictures are stored with some loss."""
    return 50 * round(blue / 50), round((green - 50) / 100), round((red - 20) / 40)


def seen(tab) -> list[tuple[str, tuple[int, int, int]]]:
    """What the panes are called, and step, row and view of what fills each on the screen."""
    tab.wait_for_function("[...document.querySelectorAll('.view img')].every(i => i.complete)")
    panes = tab.locator(".view")
    names = panes.evaluate_all("all => all.map(pane => pane.getAttribute('aria-label'))")
    boxes = [panes.nth(i).bounding_box() for i in range(len(names))]
    screen = Image.open(BytesIO(tab.screenshot())).convert("RGB")
    return [(name, filling(screen, box)) for name, box in zip(names, boxes)]


def filling(screen: Image.Image, box: dict[str, float]) -> tuple[int, int, int]:
    """What a pane shows near its rounded edges and in its middle: one view, all of it and nothing else."""
    shares = (0.04, 0.5, 0.96)
    xs = [int(box["x"] + share * box["width"]) for share in shares]
    ys = [int(box["y"] + share * box["height"]) for share in shares]
    (found,) = {of_shade(*screen.getpixel((x, y))) for x in xs for y in ys}
    return found


def expected(step: int, view: int) -> list[tuple[str, tuple[int, int, int]]]:
    names = ("dots", HOSTILE)
    return [(f"{ROWS[r]}, {90 * view}°: {names[r]} {step}-{view}", (step, r, view)) for r in range(2)]


def test_the_slider_and_its_keys_turn_all_rows_and_the_verdicts_stand_below(visit):
    tab = visit()
    assert tab.get_by_role("heading", name="Something new", exact=True).count() == 1  # not among tiles
    slider = tab.get_by_role("slider", name="View of cup/as a bowl")
    assert seen(tab) == expected(200, 0) and not tab.locator(".verdict.hit").count()
    slider.focus()
    for _ in range(2):
        tab.keyboard.press("ArrowRight")
    assert seen(tab) == expected(200, 2)
    assert tab.locator(".verdict").all_inner_texts() == ["dots 200-2", f"{HOSTILE} 200-2"]
    assert tab.locator(".verdict.hit").all_inner_texts() == [f"{HOSTILE} 200-2"]
    told = slider.get_attribute("aria-valuetext")
    assert told == f"180°: clean dots 200-2, {HOSTILE} {HOSTILE} 200-2"
    tab.keyboard.press("End")
    assert seen(tab) == expected(200, 3) and "step=200" in tab.url


def test_dragging_turns_it_round_and_round(visit):
    tab = visit()
    pane = tab.locator(".view").first
    box = pane.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    tab.mouse.move(x, y)
    tab.mouse.down()
    tab.mouse.move(x + box["width"] / 2, y)  # the width is half a turn
    assert seen(tab) == expected(200, 1)
    tab.mouse.move(x - box["width"] / 2, y)
    tab.mouse.up()
    assert seen(tab) == expected(200, 3)
    tab.mouse.move(x, y)
    assert seen(tab) == expected(200, 3), "it was let go"


def test_the_view_stays_while_time_moves_and_checkpoints_stand_beside_each_other(visit):
    tab = visit("?step=200&beside=100")
    tab.get_by_role("slider", name="View of").fill("1")
    assert seen(tab) == expected(200, 1) + expected(100, 1)
    assert tab.locator(".stand .mark").all_inner_texts() == ["step 200", "step 100"]
    tab.locator("h1").click()
    tab.keyboard.press("ArrowLeft")
    assert seen(tab) == expected(100, 1) + expected(100, 1)


def test_runs_stand_beside_each_other_and_turn_together(visit, run):
    write(run.parent / "other", 150)
    page.compare([run, run.parent / "other"], run.parent / "both")
    tab = visit(folder=run.parent / "both")
    tab.get_by_role("slider", name="View of").fill("2")
    assert seen(tab) == expected(200, 2) + expected(150, 2)
    assert tab.locator(".stand .mark").all_inner_texts() == ["run", "other, step 150"]


def test_axe_finds_nothing_serious_and_it_fits_a_telephone(visit, serious):
    tab = visit(viewport={"width": 360, "height": 700})
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert serious(tab) == []
