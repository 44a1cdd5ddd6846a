"""The page in a real browser: Debian's chromium, driven by playwright."""

import os
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="session")
def browser():
    program = shutil.which("chromium") or shutil.which("chromium-browser")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not program:
        pytest.skip("no chromium")
    with playwright.sync_playwright() as driver:
        options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        opened = driver.chromium.launch(executable_path=program, args=options)
        yield opened
        opened.close()


def given_up(request) -> bool:
    """Whether the page itself no longer wanted what it asked for: another step or view was shown first."""
    return request.failure == "net::ERR_ABORTED"


@pytest.fixture
def visit(browser, run, tmp_path):
    """Opens an address of the page; what the console complains of, or leaves the folder, fails the test. Asks
    for `tmp_path` so that a folder there is still there while the last pictures arrive."""
    contexts, complaints = [], []

    def opened(address="", folder=run, **options):
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        tab = context.new_page()
        tab.on(
            "console", lambda message: complaints.append(message.text) if message.type == "error" else None
        )
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("dialog", lambda dialog: complaints.append(dialog.message))
        tab.on("requestfailed", lambda request: None if given_up(request) else complaints.append(request.url))
        inside = folder.parent.as_uri()
        tab.on(
            "request",
            lambda r: (
                None if r.url.startswith((inside, "data:,")) else complaints.append(f"asked for {r.url}")
            ),
        )
        tab.goto((folder / "index.html").as_uri() + f"#/{address}")
        tab.wait_for_selector("h1")
        return tab

    yield opened
    for context in contexts:
        context.close()
    assert complaints == []


@pytest.fixture(scope="session")
def axe() -> str:
    """axe-core as one script: `.ci/run` has npm install it, and says where it is."""
    file = Path(os.environ.get("VITRINE_AXE", ROOT / "node_modules" / "axe-core" / "axe.min.js"))
    if not file.exists():
        pytest.skip("no axe-core (VITRINE_AXE is the path of its axe.min.js)")
    return file.read_text(encoding="utf-8")


@pytest.fixture
def serious(axe):
    """What axe-core finds in a tab that keeps somebody from using the page, in both colour schemes."""

    def found(tab):
        told = []
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            if not tab.evaluate("'axe' in globalThis"):
                tab.evaluate(axe)
            for one in tab.evaluate("axe.run()")["violations"]:
                if one["impact"] in ("serious", "critical"):
                    node = one["nodes"][0]
                    told.append((scheme, one["id"], node["html"], node["failureSummary"]))
        return told

    return found
