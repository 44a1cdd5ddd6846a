"""Each view, the slider, the keys and the addresses, on a run that was made up."""

import json

import pytest
import torch

from vitrine.analyses.base import Figure, Scalar, Table, alarm
from vitrine.analyses.result import AnalysisResult
from vitrine.reporting import page
from vitrine.runs import held_out
from vitrine.runs.store import Store

pytestmark = pytest.mark.slow

HOSTILE = "<img src=x onerror=alert(1)>"
UNITS = (0, 5, 9)


def colour(*channels):
    return torch.tensor(channels, dtype=torch.uint8).expand(24, 32, 3).contiguous()


def write(run, step):
    """One checkpoint: features only at every other one, a class that is called like an attack."""
    units = [
        Figure(
            f"{layer}/unit-{u:03d}", colour(step // 10, u, 90), f"{layer} unit {u} at {step} {HOSTILE}",
            layer=layer, unit=u, values={"activation": step / 100 + u},
        )
        for layer in ("layer1", "block.0")
        for u in UNITS
    ]  # fmt: skip
    features = [
        Figure(f.key, colour(9, 9, f.unit), f"what excites {f.key}", layer=f.layer, unit=f.unit)
        for f in units
    ]
    maps = [
        Figure(f"probe-{p:03d}/{HOSTILE}", colour(p, step // 10, 0), f"probe {p} {HOSTILE}", probe=p, label=1)
        for p in range(3)
    ]
    unknown = [Figure("all", colour(1, 2, 3), "a technique that the page has never heard of")]
    with Store(run).writing(step, weights=str(step)) as writer:
        writer.write("examples", AnalysisResult(units, [Scalar("dead_units/layer1", 0.1, "layer1")], 1))
        if step % 1000 == 0:
            writer.write("features", AnalysisResult(features, [], 1))
        alarms = [alarm("odd", HOSTILE if step == 1000 else ""), alarm("quiet")]
        writer.write(
            "cam", AnalysisResult(maps, alarms, 1, f"ValueError: {HOSTILE}" if step == 500 else None)
        )
        writer.write("something_new", AnalysisResult(unknown, [], 1))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "first #1?"
    for step in (500, 1000, 1500, 2000):
        write(folder, step)
    (folder / "config.yaml").write_text("data: {name: signs}\nmodel: {name: convnet}\n")
    rows = [f"{i},0,{2 - i / 2000},{i / 2000 if i % 500 == 499 else ''}" for i in range(2000)]
    (folder / "metrics.csv").write_text("\n".join(["step,epoch,train/loss,val/accuracy", *rows]) + "\n")
    page.build(folder)
    return folder


def shown(tab, selector="main img"):
    """Step and caption of every picture on the page, in order."""
    found = tab.eval_on_selector_all(
        selector, "images => images.filter(i => !i.hidden).map(i => [i.src, i.alt])"
    )
    return [(int(src.split("step%3D")[1].split("/")[0]), alt) for src, alt in found]


def captions(run, step, name, **of):
    entries = json.loads((run / "analysis" / f"step={step:08d}" / name / "figures.json").read_text())
    return [e["caption"] for e in entries if all(e[k] == v for k, v in of.items())]


def test_an_alarm_is_told_at_its_checkpoint_and_at_no_other(visit):
    assert visit().locator(".alarm").count() == 0
    (text,) = visit("#/?step=1000").locator(".alarm").all_text_contents()
    assert HOSTILE in text


def test_the_latest_checkpoint_is_shown_first(visit):
    tab = visit()
    assert tab.text_content("h1") == "first #1?"
    assert {step for step, _ in shown(tab)} == {2000}
    assert tab.text_content("output") == "step 2000"
    assert tab.locator("text=Something new").count() == 1
    assert tab.locator(".chart").count() == 4  # one of them of the alarms


def test_every_picture_that_is_in_view_loads(visit):
    tab = visit("layer/layer1")
    tab.wait_for_function(
        "[...document.querySelectorAll('main img')].every(i => i.complete && i.naturalWidth === 32)"
    )


def test_a_layer_shows_what_figures_json_says(visit, run):
    tab = visit("layer/block.0?step=1000")
    pictures = shown(tab, ".card [data-technique=examples] img")
    assert [caption for _, caption in pictures] == captions(run, 1000, "examples", layer="block.0")
    assert {step for step, _ in pictures} == {1000}
    assert tab.locator(".card").count() == len(UNITS)


def test_a_layer_of_maps_on_images_alone_is_no_empty_row_but_has_its_view(visit, tmp_path):
    run = tmp_path / "run"
    write(run, 1000)
    maps = [Figure("probe-000/a", colour(1, 2, 3), "a map", layer="block.0.norm", probe=0, label=1)]
    with Store(run).writing(2000, weights="2000") as writer:
        writer.write("cam", AnalysisResult(maps, [], 1))
    page.build(run)
    tab = visit(folder=run)
    assert tab.locator(".row h3").all_text_contents() == ["layer1", "block.0"]
    assert all(tab.locator(".row .strip").nth(i).locator("img").count() for i in range(2))
    assert visit("layer/block.0.norm", folder=run).locator("main img").count() == 1


def test_a_layer_begins_with_its_pictures_and_ends_with_its_tables(visit, tmp_path):
    run = tmp_path / "run"
    write(run, 1000)
    table = Table({"unit": [0, 5], "name": ["round", "red"]})
    of_layer = {"filters": {}, "names": {"table": table}}
    with Store(run).writing(1000, weights="1000") as writer:
        for name, more in reversed(of_layer.items()):
            shown = Figure(name, colour(1, 2, 3), name, layer="layer1", **more)
            writer.write(name, AnalysisResult([shown], [], 1))
    page.build(run)
    heads = visit("layer/layer1", folder=run).locator("main h2").all_text_contents()
    assert heads[:3] == ["Filters", f"{len(UNITS)} units", "Names"]


def test_the_slider_and_the_keys_move_every_picture(visit):
    tab = visit("layer/layer1?step=1000")
    tab.keyboard.press("ArrowLeft")
    assert {step for step, _ in shown(tab, "[data-technique=examples] img")} == {500}
    tab.locator("input[type=range]").focus()
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("ArrowRight")
    assert {step for step, _ in shown(tab, "[data-technique=examples] img")} == {1500}
    assert "step=1500" in tab.url
    assert tab.get_attribute("input[type=range]", "aria-valuetext") == "step 1500"


def test_a_picture_without_a_version_shows_its_last_one_marked(visit):
    tab = visit("unit/layer1/5?step=1500")
    stale = tab.locator(".cell.stale")
    assert stale.count() == 1 and "of step 1000" in stale.text_content()
    tab.keyboard.press("Home")  # before the first one
    assert tab.locator(".cell.none").text_content() == "not yet"


def test_time_holds_while_views_change_and_back_works(visit):
    tab = visit("?step=1000")
    tab.click("nav >> text=layer1")
    tab.click(".card >> text=unit 5")
    assert tab.text_content("h1") == "unit 5 of layer1"
    tab.keyboard.press("ArrowRight")
    tab.keyboard.press("j")
    tab.wait_for_function("document.querySelector('h1').textContent === 'unit 9 of layer1'")
    assert tab.text_content("output") == "step 1500"
    tab.go_back()
    tab.go_back()
    tab.wait_for_function("document.querySelector('h1').textContent === 'layer1'")
    address = tab.url
    again = visit(address.split("#/")[1])
    assert again.text_content("h1") == "layer1" and again.text_content("output") == tab.text_content("output")


def test_two_checkpoints_stand_side_by_side(visit):
    tab = visit("image/1?step=2000")
    tab.select_option("select", "500")
    assert [step for step, _ in shown(tab, ".cell img")] == [2000, 500]
    assert tab.locator(".cell .mark").all_text_contents() == ["step 2000", "step 500"]
    assert visit(tab.url.split("#/")[1]).locator(".cell img").count() == 2


def test_play_runs_to_the_end(visit):
    tab = visit("image/1?step=1500")
    tab.click("[aria-label='Play through time']")
    tab.wait_for_selector("[aria-label='Play through time']", timeout=5000)
    assert tab.text_content("output") == "step 2000"


def test_names_are_text_in_every_view(visit):
    for view in ("", "layer/layer1", "unit/layer1/5", "image/1"):
        tab = visit(f"{view}?step=500")
        assert tab.locator("img[src=x]").count() == 0
    assert HOSTILE in tab.text_content("main")
    assert f"cam failed at step 500: ValueError: {HOSTILE}" in visit("?step=500").text_content(
        ".failed summary"
    )


def test_a_wrong_address_is_the_overview(visit):
    for address in ("unit/layer9/3", "nonsense/%E0%A4%A", "image/99?step=banana"):
        tab = visit(address)
        assert tab.text_content("h1") == "first #1?"
        assert "There is no" in tab.text_content("[role=status]")
    assert visit("").locator("[role=status]").count() == 0
    tab = visit(f"unit/{HOSTILE}/3?step=1000")
    assert f"no unit 3 of {HOSTILE} here" in tab.text_content("[role=status]")
    assert tab.text_content("output") == "step 1000"


def test_an_address_of_what_is_not_there_yet_is_shown_once_it_is(visit, tmp_path):
    folder = tmp_path / "growing"
    page.build(folder)
    tab = visit("unit/layer1/5", folder=folder)
    assert "No checkpoint" in tab.text_content("main")
    write(folder, 500)
    page.build(folder)
    tab.wait_for_function("document.querySelector('h1').textContent === 'unit 5 of layer1'", timeout=20000)


def test_the_page_grows_while_training_runs(visit, tmp_path):
    folder = tmp_path / "growing"
    page.build(folder)
    tab = visit(folder=folder)
    assert "No checkpoint" in tab.text_content("main")
    for step in (500, 1000):
        write(folder, step)
        page.build(folder)
        tab.wait_for_function(
            f"document.querySelector('output').textContent === 'step {step}'", timeout=20000
        )
    tab.keyboard.press("Home")  # whoever looks at an older one is left there
    write(folder, 1500)
    page.build(folder)
    tab.wait_for_function("document.querySelector('input[type=range]').max === '2'", timeout=20000)
    assert tab.text_content("output") == "step 500"


def test_runs_stand_side_by_side(visit, run, tmp_path):
    other = run.parent / "other"
    write(other, 1000)
    write(other, 2500)
    folder = run.parent / "both"
    page.compare([run, other], folder)
    tab = visit("unit/layer1/5?step=1000", folder=folder)
    urls = tab.eval_on_selector_all(".wide img", "images => images.map(i => decodeURIComponent(i.src))")
    assert "/first #1?/analysis" in urls[0] and "/other/analysis" in urls[1]
    tab.keyboard.press("End")
    marks = tab.locator(".wide .cell .mark").all_text_contents()
    assert marks[:2] == ["first #1?, step 2000", "other, of step 1000"]  # has ended; has no features at 2500
    stale = tab.locator(".wide .cell").evaluate_all("cells => cells.map(c => c.classList.contains('stale'))")
    assert stale[:2] == [False, True]
    told = tab.locator(".wide .cell .cell-caption").all_text_contents()
    assert told[:2] == captions(run, 2000, "features", layer="layer1", unit=5) * 2  # each its own
    table = tab.locator(".numbers").first
    assert table.locator("thead th").all_text_contents() == ["first #1?", "other"]
    assert table.locator(".value").all_text_contents() == ["25", "30"]  # examples' activations
    tab.wait_for_function(
        "[...document.querySelectorAll('.wide img')].every(i => i.complete && i.naturalWidth)"
    )


def test_it_fits_and_follows_the_scheme(visit, tmp_path):
    tab = visit()
    for view in ("", "layer/layer1", "unit/layer1/5", "image/1"):
        tab.evaluate("to => { location.hash = to }", f"#/{view}")
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            paper = tab.evaluate("getComputedStyle(document.body).backgroundColor")
            assert (sum(map(int, paper[4:-1].split(","))) < 384) == (scheme == "dark")
            for width, height in ((1280, 900), (390, 844)):
                tab.set_viewport_size({"width": width, "height": height})
                assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    tab.click("[aria-label='Light or dark']")
    assert tab.evaluate("getComputedStyle(document.body).backgroundColor") != paper


def test_numbers_keep_their_size(visit, tmp_path):
    folder = tmp_path / "numbers"
    values = {"a": 119.7, "b": 100.4, "c": 640.2, "d": 2.5, "e": 0.0234, "f": -30.04, "g": 7.0, "h": 1e-9}
    figure = Figure("layer1/unit-000", colour(1, 2, 3), "", layer="layer1", unit=0, values=values)
    with Store(folder).writing(1, weights="") as writer:
        writer.write("examples", AnalysisResult([figure], [], 1))
    page.build(folder)
    shown = visit("unit/layer1/0", folder=folder).locator(".numbers .value").all_text_contents()
    assert shown == ["120", "100", "640", "2.5", "0.0234", "-30", "7", "1.0e-9"]


def test_every_control_and_picture_has_a_name(visit):
    tab = visit("unit/layer1/5")
    named = "i => i.getAttribute('aria-label') || i.textContent.trim() || i.closest('label')"
    controls = "button, a, input, select, [role=img]"
    assert tab.eval_on_selector_all(controls, f"all => all.every({named})")
    assert all(alt for _, alt in shown(tab, ".wide img"))


@pytest.mark.parametrize(
    "view", ["", "layer/layer1", "unit/layer1/5?step=1500&beside=500", "image/1", "?step=500"]
)
def test_axe_finds_nothing_serious(visit, serious, view):
    assert serious(visit(view)) == []


@pytest.mark.parametrize("view", ["", "layer/layer1", "unit/layer1/5", "image/1"])
def test_axe_finds_nothing_serious_in_a_comparison(visit, serious, run, view):
    write(run.parent / "axe", 1000)
    page.compare([run, run.parent / "axe"], run.parent / "compared")
    assert serious(visit(view, folder=run.parent / "compared")) == []


def test_axe_finds_nothing_serious_before_the_first_checkpoint(visit, serious, tmp_path):
    page.build(tmp_path / "new")
    assert serious(visit(folder=tmp_path / "new")) == []


def test_sixty_checkpoints_are_opened_and_stepped_through(visit, tmp_path):
    folder = tmp_path / "long"
    write(folder, 1000)
    page.build(folder)
    text = (folder / "gallery.js").read_text()
    told = json.loads(text[len("vitrine(") : -3])
    run = told["runs"][0]
    only = Store(folder).step_folder(1000)
    for i in range(1, 60):
        Store(folder).step_folder(1000 * (i + 1)).symlink_to(only, target_is_directory=True)
    run["steps"] = [{**run["steps"][0], "step": 1000 * (i + 1)} for i in range(60)]
    for analysis in run["analyses"]:
        if analysis["name"] in ("examples", "features"):
            file = analysis["figures"][0][5]
            analysis["figures"] = [
                [f"layer{d}/unit-{u:03d}", f"layer{d}", u, None, None, file, 32, 24]
                for d in range(5)
                for u in range(16)
            ]
        count = len(analysis["figures"])
        versions = [[i, f"caption {i}, activation 1.25", {"activation": i}, None] for i in range(count)]
        analysis["at"] = {str(1000 * (i + 1)): versions for i in range(60)}
    (folder / "gallery.js").write_text(f"vitrine({json.dumps(told)});\n")
    tab = visit("?step=1000", folder=folder)
    assert tab.locator("#top .group a").count() == 5 + 3
    tab.evaluate("location.hash = '#/layer/layer3'")
    tab.wait_for_selector(".card")
    tab.keyboard.press("ArrowRight")
    assert tab.text_content("output") == "step 2000"


@pytest.fixture(scope="module")
def many_classes(tmp_path_factory):
    """Two checkpoints with a table of a hundred classes, one called like an attack, two alike."""
    folder = tmp_path_factory.mktemp("tables") / "run"
    names = [HOSTILE, *(f"class {98 if i == 50 else i}" for i in range(1, 100))]
    for step in (10, 20):
        recalls = [None if i == 7 else ((i + step // 10) % 100) / 100 for i in range(100)]
        table = Table({"class": names, "images": [5] * 100, "recall": recalls}, sort_by="recall")
        figure = Figure("matrix", colour(1, 2, 3), "a matrix", table=table)
        with Store(folder).writing(step, weights=str(step)) as writer:
            writer.write("something_new", AnalysisResult([figure], [], 1))
    page.build(folder)
    return folder


def rows(place):
    cells = "rows => rows.map(r => [...r.cells].map(c => c.textContent))"
    return place.locator(".table tbody tr").evaluate_all(cells)


def test_a_long_table_is_searched_sorted_and_follows_the_slider(visit, many_classes):
    tab = visit(folder=many_classes)
    found = rows(tab)
    # the least recall first, those without one last
    assert [row[0] for row in found[:2]] == ["class 98", "class 99"]
    assert found[12][0] == "76 more" and found[-1][0] == "class 7" and len(found) == 25
    assert tab.locator(".table svg.spark path").count() == 23
    tab.keyboard.press("ArrowLeft")
    assert rows(tab)[0][:3] == ["class 99", "5", "0"]
    tab.click(".table th:has-text('recall') button")
    assert rows(tab)[0][0] == "class 98" and rows(tab)[-1][0] == "class 7"
    assert tab.get_attribute(".table th:has-text('recall')", "aria-sort") == "descending"
    tab.fill(".table input", "ONERROR")
    assert [row[0] for row in rows(tab)] == [HOSTILE]
    tab.fill(".table input", "class 98")  # two, of which the first fell and the second rose
    went = tab.locator(".table svg.spark path").evaluate_all("paths => paths.map(p => p.getAttribute('d'))")
    assert [[point.split()[1] for point in path[1:].split("L")] for path in went] == [
        ["2.0", "18.0l.01"], ["18.0", "2.0l.01"]
    ]  # fmt: skip
    tab.fill(".table input", "nobody")
    assert "none is called “nobody”" in rows(tab)[0][0]
    tab.fill(".table input", "")
    tab.click("text=76 more")
    assert len(rows(tab)) == 100


def test_the_test_split_stands_apart_with_its_classes_the_worst_first(visit, tmp_path):
    run = tmp_path / "tested"
    write(run, 500)
    classes = [{"name": f"class {i}", "images": 30, "accuracy": 1 - i / 20} for i in range(14)]
    classes.append({"name": HOSTILE, "images": 4, "accuracy": 0.25})
    one = {"checkpoint": "best.ckpt", "chosen": "the best", "step": 500, "images": 424}
    one |= {"metrics": {"test/accuracy": 0.875, "test/ece": None}, "classes": classes, "weights_hash": "a"}
    for digest in "aab":
        held_out.add(run, one | {"weights_hash": digest})
    page.build(run)
    tab = visit(folder=run)
    section = tab.locator("section", has=tab.get_by_role("heading", name="Test split"))
    text = section.inner_text()
    assert "87.5 %" in text and "best.ckpt at step 500, the best; 424 images" in text
    assert "The latest of 2 checkpoints that were measured" in text
    names = section.locator(".by-class dt").all_inner_texts()
    assert names[:2] == [HOSTILE, "class 13"]
    assert section.locator("summary").inner_text() == "3 more classes"
    assert section.locator(".tested dd").all_inner_texts() == ["87.5 %", "–"]
    assert "test" not in " ".join(tab.locator(".chart figcaption").all_inner_texts())


def test_a_run_without_a_test_has_no_such_section(visit):
    assert not visit().get_by_role("heading", name="Test split").count()


@pytest.fixture(scope="module")
def suspects(tmp_path_factory):
    """Two checkpoints of an analysis that lists training images, in a table and in a file."""
    folder = tmp_path_factory.mktemp("suspects") / "run <b>"
    for step in (10, 20):
        labels = ["cat", HOSTILE, "dog", HOSTILE] + (["bird"] if step == 20 else ["cat"])
        columns = {"file": [f"{HOSTILE}/{i}.png" for i in range(5)], "label": labels, "rank": [5, 4, 3, 2, 1]}
        table = Table(columns, sort_by="rank", filter_by="label")
        figures = [Figure("suspects", colour(1, 2, 3), "suspects", table=table)]
        result = AnalysisResult(figures, [], 1, files={"suspects.csv": f"step\n{step}\n"})
        with Store(folder).writing(step, weights=str(step)) as writer:
            writer.write("something_new", result)
            several = [Figure(key, colour(1, 2, 3), key, table=table) for key in ("by loss", HOSTILE)]
            writer.write(
                "two_tables", AnalysisResult([*several, Figure("plain", colour(4, 5, 6), "")], [], 1)
            )
    page.build(folder)
    return folder


def test_a_table_shows_the_rows_of_one_class_and_its_file_is_that_of_the_checkpoint(visit, suspects):
    tab = visit(folder=suspects)
    first = tab.locator("section", has=tab.get_by_role("heading", name="Something new"))
    names = first.locator("option").evaluate_all("all => all.map(one => one.value)")
    assert names == ["", HOSTILE, "bird", "cat", "dog"]
    assert [row[0] for row in rows(first)] == [f"{HOSTILE}/{i}.png" for i in (4, 3, 2, 1, 0)]
    first.get_by_label("label").select_option(HOSTILE)
    assert [row[0] for row in rows(first)] == [f"{HOSTILE}/{i}.png" for i in (3, 1)]
    first.get_by_label("label").select_option("bird")
    assert len(rows(first)) == 1
    tab.keyboard.press("Escape")
    tab.locator("h1").click()
    tab.keyboard.press("ArrowLeft")
    assert rows(first) == [["none"]]
    link = tab.get_by_role("link", name="suspects.csv")
    with tab.expect_download() as download:
        link.click()
    assert download.value.path().read_text() == "step\n10\n"
    tab.keyboard.press("ArrowRight")
    assert "00000020" in link.get_attribute("href")


def test_of_several_tables_each_stands_with_its_picture_and_is_folded_away(visit, suspects):
    tab = visit(folder=suspects)
    own = tab.locator("section", has=tab.get_by_role("heading", name="Two tables"))
    assert own.locator("h3").all_inner_texts() == ["by loss", HOSTILE, "plain"]
    assert own.locator(".picture").count() == 3 and not own.locator("table").first.is_visible()
    own.get_by_text("by loss as a table").click()
    assert own.locator("table").first.is_visible() and not own.locator("table").nth(1).is_visible()
    assert own.locator(".with-table").last.locator("details").count() == 0


def test_axe_finds_nothing_serious_in_a_table_that_is_filtered(visit, serious, suspects):
    assert serious(visit(folder=suspects)) == []
