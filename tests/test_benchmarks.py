"""The list of benchmarks names every program, and what a quick run of one prints or lacks is told."""

import sys
from pathlib import Path

import pytest

from benchmarks import __main__ as listing

ROOT = Path(__file__).parents[1]


def test_every_program_is_listed_with_what_it_measures():
    programs = {file.stem for file in (ROOT / "benchmarks").glob("*.py") if "def main()" in file.read_text()}
    found = {b.name: b for b in listing.benchmarks()}
    assert set(found) == programs - {"__main__"}
    for b in found.values():
        assert b.subject and (ROOT / "benchmarks" / f"{b.name}.py").read_text().count(
            "argparse.ArgumentParser("
        )
        assert b.quick is None or all(isinstance(word, str) for word in b.quick)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Writes a folder with one benchmark of that body, to be listed and run."""
    folder = tmp_path / "benchmarks"
    folder.mkdir()
    monkeypatch.setattr(listing, "HERE", folder)
    monkeypatch.setattr(sys, "argv", ["benchmarks"])

    def write(body: str) -> None:
        lines = ['"""Seconds of a thing:', "at most 5.", "", 'More."""', 'QUICK = "--rounds 1"']
        lines += ['if __name__ == "__main__":', f"    {body}"]
        (folder / "thing.py").write_text("\n".join(lines))

    return write


def test_a_quick_run_gets_its_arguments_and_its_seconds_are_printed(program, capfd):
    program("import sys; print('given', sys.argv[1:])")
    assert listing.main() == 0
    printed = capfd.readouterr().out
    assert "thing  quick    Seconds of a thing: at most 5." in printed
    assert "given ['--rounds', '1']" in printed and "| thing | 0 |  |" in printed


@pytest.mark.parametrize(
    "lack", ["import no_such_peer.of_ours", "raise ValueError('net: no_such_peer is not installed: pip ...')"]
)
def test_a_library_that_is_missing_is_named_and_is_no_failure(program, capfd, lack):
    program(lack)
    assert listing.main() == 0
    assert "| not run: it needs no_such_peer, which is not installed |" in capfd.readouterr().out


def test_a_benchmark_that_fails_is_named_and_its_traceback_shown(program, capfd):
    program("raise RuntimeError('out of luck')")
    assert listing.main() == 1
    printed = capfd.readouterr()
    assert "| failed with status 1 |" in printed.out and "out of luck" in printed.err


def test_a_name_that_there_is_not_is_refused_with_those_that_there_are(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["benchmarks", "pages"])
    with pytest.raises(SystemExit) as ended:
        listing.main()
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "there is no benchmark 'pages'" in error and "page," in error
