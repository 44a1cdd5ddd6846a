"""Which files a table of labels (CSV) lists, with which label and of which split."""

from __future__ import annotations

import csv
import io
import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from vitrine.core.registry import nearest
from vitrine.core.settings import SettingError
from vitrine.datamodules.class_labels import NO_MULTI_LABEL

log = logging.getLogger(__name__)

_DELIMITERS = ",;\t|"
EXPECTED = "expected a table with a header, such as file,label and below it cats/1.jpg,cat"
_ALSO = {  # what columns are called, too: to say which one was probably meant
    "file": (
        "filename",
        "file_name",
        "path",
        "filepath",
        "file_path",
        "image",
        "image_path",
        "image_id",
        "id",
    ),
    "label": ("class", "target", "category", "class_name", "label_name", "class_id", "labels", "y", "breed"),
    "split": ("set", "subset", "partition", "fold"),
}


class Row(NamedTuple):
    """A row of the table: what its cells say, and its line."""

    file: str
    label: str
    split: str  # empty where there is no such column
    line: int


def read_table(file: Path, columns: dict[str, str | None]) -> list[Row]:
    """The rows of a table whose delimiter (comma, semicolon, tab or bar) its header shows.

    Args:
        columns: of "file", "label" and "split" the name of the column; None: so, and "split" may be missing.

    Raises:
        SettingError: of `data.file` or the column, if the table cannot be read, or has not these columns.
    """
    text = _read_text(file)
    header_line = next((line for line in text.splitlines() if line.strip()), "")
    delimiter = max(_DELIMITERS, key=header_line.count)
    rows = _rows(file, text, delimiter)
    _, header = next(rows, (0, []))
    if not header:
        raise SettingError("data.file", f"{file} is empty; {EXPECTED}")
    header = [name.strip() for name in header]
    places = {kind: _find_column(file, header, kind, name) for kind, name in columns.items()}
    table = []
    for line, cells in rows:
        if len(cells) != len(header):
            problem = f"line {line} of {file} has {len(cells)} fields, expected {len(header)}"
            raise SettingError("data.file", f"{problem} as the header has ({', '.join(header)})")
        values = {kind: "" if place is None else cells[place].strip() for kind, place in places.items()}
        table.append(Row(**values, line=line))
    if not table:
        raise SettingError("data.file", f"{file} has a header but no rows; {EXPECTED}")
    return table


def find_files(table: Sequence[Row], folder: Path, suffix: str = "") -> list[Path]:
    """The file of each row, which is relative to `folder` unless absolute.

    Raises:
        SettingError: of `data.file`, if there are rows without one, or files are not there: how many, and the
            first five.
    """
    files, missing = [], []
    for row in table:
        if not row.file:
            raise SettingError("data.file", f"line {row.line} names no file")
        file = folder / os.path.expanduser(row.file + suffix)
        if not file.is_file() and "\\" in row.file:  # written on Windows
            file = folder / (row.file.replace("\\", "/") + suffix)
        files.append(file)
        if not file.is_file():
            missing.append(str(file))
    if missing:
        shown = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
        problem = f"{len(missing)} of {len(files)} files are not there: {shown}"
        hint = "paths are relative to the table's folder, or to data.root"
        raise SettingError("data.file", f"{problem}; {hint}")
    return files


def drop_repeated(table: Sequence[Row], files: Sequence[Path], name: Path) -> list[int]:
    """Which rows count: of rows that say the same of one file the first; how many do not is logged.

    Raises:
        SettingError: of `data.file`, if rows say different things of one file.
    """
    first: dict[str, int] = {}
    for i, (row, file) in enumerate(zip(table, files)):
        j = first.setdefault(os.path.normpath(file), i)
        for kind, mine, theirs in (
            ("label", table[j].label, row.label),
            ("split", table[j].split, row.split),
        ):
            if mine != theirs:
                lines = f"{mine!r} in line {table[j].line} and {theirs!r} in line {row.line}"
                hint = NO_MULTI_LABEL if kind == "label" else "it would be learned and measured"
                raise SettingError("data.file", f"{row.file} has {kind} {lines}: {hint}")
    if repeated := len(table) - len(first):
        log.warning("%s lists files more than once: %d rows count for nothing", name, repeated)
    return list(first.values())


def _read_text(file: Path) -> str:
    try:
        content = file.read_bytes()
    except IsADirectoryError:
        raise SettingError("data.file", f"{file} is a folder; {EXPECTED}") from None
    except FileNotFoundError:
        folder = file.parent
        tables = sorted(path.name for path in folder.glob("*") if path.suffix in (".csv", ".tsv", ".txt"))
        close = nearest(file.name, tables, most=1) or tables[:1]
        hint = f"; did you mean {folder / close[0]}?" if close else ""
        raise SettingError("data.file", f"{file} is missing{hint}") from None
    except OSError as error:
        raise SettingError("data.file", f"{file} cannot be read: {error.strerror}") from None
    wide = content.startswith((b"\xff\xfe", b"\xfe\xff"))  # as spreadsheets write Unicode text
    try:
        return content.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise SettingError("data.file", f"{file} is not UTF-8 in line {line}: save it as UTF-8") from None


def _rows(file: Path, text: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the line at which it ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for cells in reader:
            if any(cell.strip() for cell in cells):
                yield reader.line_num, cells
    except csv.Error as error:
        raise SettingError("data.file", f"line {reader.line_num} of {file} is no CSV: {error}") from None


def _find_column(file: Path, header: list[str], kind: str, name: str | None) -> int | None:
    key, wanted = f"data.{kind}_column", name or kind
    if header.count(wanted) > 1:
        raise SettingError(key, f"{file} has column {wanted!r} twice, expected once")
    if wanted in header:
        return header.index(wanted)
    if kind == "split" and name is None:
        return None
    lower = {column.lower(): column for column in header}
    usual = [lower[also] for also in (kind, *_ALSO[kind]) if also in lower]
    close = nearest(wanted, header, most=1) or usual
    hint = f"did you mean {key}={close[0]}?" if close else f"{key}=NAME says which; {EXPECTED}"
    raise SettingError(key, f"{file} has no column {wanted!r}, but {', '.join(header)}; {hint}")
