"""The page of a run that several processes write to."""

import json
import re

from vitrine.reporting import page
from vitrine.runs.store import Store


def write(run_dir, report):
    with Store(run_dir).writing(report.step, weights="") as writer:
        for name, result in report.results.items():
            writer.write(name, result)


def shown(run_dir):
    text = (run_dir / "gallery.js").read_text(encoding="utf-8")
    (run,) = json.loads(re.fullmatch(r"vitrine\((.*)\);\n", text, re.DOTALL)[1])["runs"]
    return [at["step"] for at in run["steps"]]


def test_a_page_written_late_has_what_others_have_added_meanwhile(tmp_path, report, monkeypatch):
    write(tmp_path, report(1))
    original, turns = page._write, []

    def late(*arguments):
        """The first time, another process finishes a step, and its page, before this one is written."""
        turns.append(1)
        if len(turns) == 1:
            write(tmp_path, report(2))
            page.PageSink(tmp_path).close()
            assert shown(tmp_path) == [1, 2]
        return original(*arguments)

    monkeypatch.setattr(page, "_write", late)
    page.PageSink(tmp_path).close()
    assert shown(tmp_path) == [1, 2]
    assert len(turns) == 3
