"""The page of a run that was trained: everything it shows, held against what the analyses left on disk."""

import json
import math
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlparse

import numpy as np
import pytest
from PIL import Image
from quick_settings import QUICK

from vitrine.analyses import traits_of
from vitrine.cli import train

pytestmark = pytest.mark.slow

WORDS = [
    *QUICK,
    "data.train_size=96",
    "data.val_size=32",
    "data.image_size=32",
    "data.batch_size=16",
    "trainer.max_steps=4",
    "trainer.log_every_n_steps=1",
    "checkpoint.every_steps=2",
    "analysis.features.negative=true",
    "analysis.features.variants=2",
    "analysis.truth.images=6",
    "analysis.truth.maps=[gradient,grad_cam]",
]
STEPS = (2, 4)
# where a view's pictures stand: not those of other times
SHOWN = "main .picture .cell img"


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("runs")
    train.main([*WORDS, f"run.root={root}", "run.name=signs"])
    return root / "signs"


@pytest.fixture(scope="module")
def entries(run):
    """What every figures.json says, by step, with the picture's file."""
    found = {step: [] for step in STEPS}
    for step in STEPS:
        folder = run / "analysis" / f"step={step:08d}"
        for listing in sorted(folder.glob("*/figures.json")):
            for entry in json.loads(listing.read_text()):
                file = listing.parent / entry["file"]
                found[step].append({**entry, "analysis": listing.parent.name, "file": file})
    assert all(found.values())
    return found


def pictures(tab):
    """File and caption of each picture that is shown at its own time."""
    seen = tab.eval_on_selector_all(
        f"{SHOWN}", "all => all.filter(i => !i.hidden && !i.closest('.stale')).map(i => [i.src, i.alt])"
    )
    return {(Path(unquote(urlparse(src).path)), caption) for src, caption in seen}


def belongs(view, entry):
    """Whether a view has to show an entry: the whole of what the analyses made is somewhere."""
    kind, *of = view
    layer, unit, probe = entry["layer"], entry["unit"], entry["probe"]
    if kind == "unit":
        return probe is None and (layer, unit) == (of[0], int(of[1]))
    if kind == "image":
        return probe == int(of[0])
    if kind == "layer":
        variant = unit is not None and entry["key"].count("/") > 1  # of its unit: shown there
        return layer == of[0] and not variant
    if kind == "page":
        return entry["analysis"] == of[0] and (layer, unit, probe) == (None, None, None)
    return (layer, unit, probe) == (None, None, None) and not traits_of(entry["analysis"]).own_page


def views(tab):
    links = tab.eval_on_selector_all("#top a, main a", "all => all.map(a => a.hash)")
    return {tuple(unquote(part) for part in link[2:].split("?")[0].split("/")) for link in links}


def test_every_link_leads_to_what_figures_json_says(visit, run, entries):
    tab = visit()
    found, visited, seen = views(tab), set(), set()
    while found - visited:
        view = min(found - visited)
        visited.add(view)
        tab.evaluate("to => { location.hash = to }", "/" + "/".join(view))
        tab.wait_for_function("location.hash.includes('?step=')")  # it has arrived
        found |= views(tab)
        for key, step in (("Home", STEPS[0]), ("End", STEPS[-1])):
            tab.keyboard.press(key)
            assert tab.text_content("output") == f"step {step}"
            shown = pictures(tab)
            known = {(e["file"], e["caption"]) for e in entries[step]}
            assert shown <= known, view  # nothing of another time, each with its own caption
            expected = {(e["file"], e["caption"]) for e in entries[step] if belongs(view, e)}
            assert expected <= shown, view
            seen |= shown
    assert seen == {(e["file"], e["caption"]) for step in STEPS for e in entries[step]}
    kinds = [view[0] for view in visited]
    assert (
        kinds.count("page") == 2  # of training images, and of truth
        and kinds.count("image") == 2
        and kinds.count("unit") >= 6
        and kinds.count("layer") >= 3
    )


def first_unit(entries):
    entry = next(e for e in entries[STEPS[-1]] if e["analysis"] == "examples")
    return entry["layer"], entry["unit"]


def test_numbers_are_those_of_figures_json(visit, entries):
    layer, unit = first_unit(entries)
    tab = visit(f"unit/{layer}/{unit}?step=4")
    told = []
    for table in tab.locator(".numbers").all():
        for row in table.locator("tbody tr").all():
            told.append((row.locator("th").text_content(), row.locator(".value").text_content()))
    expected = []
    for entry in entries[4]:
        if belongs(("unit", layer, unit), entry):
            variant = " ".join(entry["key"].split("/")[2:])
            for name, value in entry["values"].items():
                words = re.sub("_", " ", name)
                expected.append((f"{variant}, {words}" if variant else words, value))
    assert sorted(name for name, _ in told) == sorted(name for name, _ in expected)
    for (_, shown), (_, value) in zip(sorted(told), sorted(expected, key=lambda e: e[0])):
        if [name for name, _ in expected].count(_) == 1:
            assert math.isclose(float(shown), value, rel_tol=0.006, abs_tol=1e-9)


def test_the_spread_of_activations_and_the_classes_are_drawn(visit, entries):
    layer, unit = first_unit(entries)
    (entry,) = (
        e for e in entries[4] if e["analysis"] == "examples" and (e["layer"], e["unit"]) == (layer, unit)
    )
    tab = visit(f"unit/{layer}/{unit}?step=4")
    path = tab.get_attribute(".spread path", "d")
    heights = [80 - float(y) for y in re.findall(r"L[\d.]+ ([\d.]+)h", path)]
    shares = entry["histogram"]["shares"]
    drawn = np.array(heights) / max(heights)
    np.testing.assert_allclose(drawn, np.array(shares) / max(shares), atol=0.02)
    classes = entry["class_shares"]
    rows = zip(tab.locator(".mix dt").all_text_contents(), tab.locator(".mix b").all_text_contents())
    assert dict(rows) == {name: f"{math.floor(100 * share + 0.5)} %" for name, share in classes.items()}


def test_slider_keys_and_links_move_through_the_run(visit):
    tab = visit()
    tab.click("#top >> text=Overview")
    tab.locator(".row h3 a").first.click()
    tab.wait_for_selector(".card")
    tab.locator(".card a").first.click()
    tab.wait_for_function("document.querySelector('h1').textContent.startsWith('unit')")
    unit = tab.text_content("h1")
    tab.keyboard.press("ArrowLeft")
    assert {"step=00000002" in str(file) for file, _ in pictures(tab)} == {True}
    tab.keyboard.press("j")
    tab.wait_for_function("old => document.querySelector('h1').textContent !== old", arg=unit)
    assert tab.text_content("output") == "step 2"
    tab.locator("input[type=range]").fill("1")
    assert {"step=00000004" in str(file) for file, _ in pictures(tab)} == {True}
    tab.locator(".frame").first.click()  # an earlier picture leads to its time
    assert tab.text_content("output") == "step 2"
    tab.go_back()
    tab.wait_for_function("old => document.querySelector('h1').textContent === old", arg=unit)
    tab.click("h1 a")
    tab.wait_for_selector(".card")


def test_a_probe_has_its_twin_and_how_sure_the_network_is(visit, entries):
    tab = visit("image/1?step=4")
    titles = tab.locator("h2").all_text_contents()
    assert {"Class activation maps", "Saliency", "Adversarial examples"} <= set(titles)
    legend = tab.locator(".aside .chart .legend").first.text_content()
    (own,) = (e for e in entries[4] if e["analysis"] == "adversarial" and e["probe"] == 1)
    assert "under attack" in legend
    shown = float(re.search(r"under attack ([\d.e-]+)", legend)[1])
    assert math.isclose(shown, own["values"]["adversarial/true"], rel_tol=0.006, abs_tol=1e-9)


def addresses(entries):
    layer, unit = first_unit(entries)
    return {
        "overview": "/",
        "layer": f"/layer/{layer}",
        "unit": f"/unit/{layer}/{unit}",
        "image": "/image/0",
        "page": "/page/truth",
    }


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 390)])
def test_every_view_shows_its_pictures_in_both_schemes_and_on_a_phone(
    visit, entries, tmp_path, scheme, width
):
    """Where VITRINE_SCREENSHOTS names a folder, they are kept there, to be looked at."""
    folder = Path(os.environ.get("VITRINE_SCREENSHOTS", tmp_path))
    tab = visit(viewport={"width": width, "height": 900}, color_scheme=scheme)
    for view, address in addresses(entries).items():
        tab.evaluate("to => { location.hash = to }", address)
        tab.wait_for_function("location.hash.includes('?step=')")
        tab.wait_for_function(
            "[...document.images].filter(i => !i.hidden && i.getBoundingClientRect().top < innerHeight && "
            "i.getBoundingClientRect().left < innerWidth).every(i => i.complete && i.naturalWidth)"
        )
        file = folder / f"{view}-{scheme}-{width}.png"
        tab.screenshot(path=file)
        pixels = np.array(Image.open(file).convert("RGB")).reshape(-1, 3)
        assert len(np.unique(pixels // 32, axis=0)) > 30, f"no picture on {file}"
        assert (np.median(pixels) < 128) == (scheme == "dark")


@pytest.mark.parametrize("view", ["overview", "layer", "unit", "image", "page"])
def test_axe_finds_nothing_serious(visit, entries, serious, view):
    assert serious(visit(addresses(entries)[view][1:])) == []
