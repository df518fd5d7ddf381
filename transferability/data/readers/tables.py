"""Read tables beside folders of images, and compare their labels with the folders."""

import codecs
import csv
import io
import json
import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any
from xml.etree import ElementTree

import numpy as np
import scipy.io

from transferability.data.readers.file_tree import IMAGES, FileTree

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".mat")
MOST_BYTES, MOST_ROWS, SAMPLE = 64 << 20, 1_000_000, 200
NOT_SAID = "\0"  # a class that equals no cell
_NAMED = re.compile("label|class|categor|annotation|metadata|truth")
Row = dict[Any, str]  # column -> text


def contradicting_table(tree: FileTree, classes: dict[str, list[str]]) -> str | None:
    """The first table outside the class folders that names most images and has no column that
    agrees with their folders; None if there is none.
    """
    inside = {posixpath.dirname(name) + "/" for names in classes.values() for name in names}
    wanted = _keys(classes)
    for name in tree.names:
        if not name.lower().endswith(ENDINGS) or name.startswith(tuple(inside)):
            continue
        if 0 < tree.size(name) <= MOST_BYTES and _contradicts(_rows(tree, name), wanted):
            return name
    return None


def label_table(tree: FileTree) -> str | None:
    """The table that may contain the labels: the first that names most images of its folder, else
    the first with a name such as labels.csv; None if there is none.
    """
    named = (
        name
        for name in tree.names
        if name.lower().endswith(ENDINGS) and _NAMED.search(posixpath.basename(name).casefold())
    )
    return next(tables_naming_images(tree), next(named, None))


def tables_naming_images(tree: FileTree) -> Iterator[str]:
    """Tables that name most images of their folder and have other columns, too."""

    @cache
    def wanted(under: str) -> dict[str, set[str]]:
        return _keys({NOT_SAID: tree.images(f"{under}/" if under else "")})

    for name in tree.names:
        if name.lower().endswith(ENDINGS) and 0 < tree.size(name) <= MOST_BYTES:
            keys = wanted(posixpath.dirname(name))
            if keys and _contradicts(_rows(tree, name), keys):
                yield name


def _keys(classes: dict[str, list[str]]) -> dict[str, set[str]]:
    """File names of a sample of images, with and without extension -> their classes."""
    named = [(c, name) for c, names in classes.items() for name in names]
    found: dict[str, set[str]] = {}
    for c, name in named[:: -(-len(named) // SAMPLE)]:
        base = posixpath.basename(name)
        for key in {base, posixpath.splitext(base)[0]}:
            # small numbers in a table may count something else
            if not (key.isdigit() and len(key) < 4):
                found.setdefault(key, set()).add(c.casefold())
    return found


def _contradicts(rows: Iterator[Row], wanted: dict[str, set[str]]) -> bool:
    seen, agreeing, others = set(), Counter[str](), False
    for row in islice(rows, MOST_ROWS):
        for column, text in row.items():
            base = text.replace("\\", "/").rpartition("/")[2]
            key = next((k for k in (base, posixpath.splitext(base)[0]) if k in wanted), None)
            if key is None:
                continue
            seen.add(key)
            others |= len(row) > 1
            agreeing.update(
                c for c, said in row.items() if c != column and said.casefold() in wanted[key]
            )
            break
    # each name occurs twice, with and without extension
    enough = 2 * len(seen) >= len({posixpath.splitext(key)[0] for key in wanted})
    agreed = max(agreeing.values(), default=0)
    return bool(seen) and enough and others and agreed < 0.8 * len(seen)


def _rows(tree: FileTree, name: str) -> Iterator[Row]:
    """The rows of a table, with undecodable bytes replaced; none if the table is damaged."""
    try:
        for part in parts_of(name, tree.read(name), "replace").values():
            yield from part
    except Exception:  # a damaged file can raise anything, and names no images
        return


def parts_of(name: str, data: bytes, errors: str = "strict") -> dict[str, list[Row]]:
    """The rows of each part of a table: a sheet of a spreadsheet, a structure of a .mat file, or
    the file.

    Raises any exception if the table is damaged or of an unknown kind.

    Args:
        errors: how undecodable bytes are handled, as in ``bytes.decode``.
    """
    ending = posixpath.splitext(name)[1].lower()
    parts: dict[str, Iterable[Row]]
    if ending in _BINARY:
        parts = dict(_BINARY[ending](data))
    else:
        utf16 = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
        parts = {name: _TEXTS[ending](data.decode("utf-16" if utf16 else "utf-8-sig", errors))}
    found = {
        title: [{column: text.strip() for column, text in row.items()} for row in part]
        for title, part in parts.items()
    }
    return {title: [row for row in part if any(row.values())] for title, part in found.items()}


def _delimited(text: str) -> Iterator[Row]:
    text = text.lstrip("\r\n")
    first = text.splitlines()[0] if text else ""
    if said := re.fullmatch(r"sep=(.)", first.strip('"')):  # as Excel writes it
        text, delimiter = text[len(first) :], said[1]
    else:
        delimiter = max("\t;,|", key=first.count)
    file = io.StringIO(text, newline=None)
    for row in csv.reader(file, delimiter=delimiter, skipinitialspace=True):
        yield dict(enumerate(row))


def _listed(text: str) -> Iterator[Row]:
    """Rows of lines with a file and its class, as in training lists. # begins a line of comment."""
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if lines and any(sign in lines[0] for sign in "\t;,|"):
        yield from _delimited("\n".join(lines))
        return
    rows = [line.split() for line in lines]
    if len({*map(len, rows)}) > 1:  # spaces in classes or file names
        ends = [line.rsplit(None, 1) for line in lines]
        last = all(row[0].lower().endswith(IMAGES) for row in ends)
        rows = ends if last else [line.split(None, 1) for line in lines]
    yield from (dict(enumerate(row)) for row in rows)


def _json(text: str) -> Iterator[Row]:
    value = json.loads(text)
    coco = isinstance(value, dict) and {"images", "annotations", "categories"} <= value.keys()
    yield from _coco(value) if coco else _records(value, {})


def _coco(value: dict[str, Any]) -> Iterator[Row]:
    """A row per annotation."""
    files = {image["id"]: image["file_name"] for image in value["images"]}
    names = {one["id"]: one["name"] for one in value["categories"]}
    for found in value["annotations"]:
        yield {"file_name": files[found["image_id"]], "category": names[found["category_id"]]}


def _json_lines(text: str) -> Iterator[Row]:
    return _records([json.loads(line) for line in text.splitlines() if line.strip()], {})


def _records(value: Any, above: Row, record: bool | None = None) -> Iterator[Row]:
    """A row per list entry or group of plain values, with the keys above it.

    Args:
        record: whether the keys of a dictionary are columns: True if its siblings share a key,
            False if they do not ({"IMAGE": "label", ...} is a table, too), None (both) without
            siblings.
    """
    if isinstance(value, dict):
        plain = {k: _plain(v) for k, v in value.items() if not isinstance(v, (dict, list))}
        if plain and record is not False:
            yield above | plain
        if not record:
            yield from (above | {len(above): k, len(above) + 1: v} for k, v in plain.items())
        inner = {k: v for k, v in value.items() if isinstance(v, (dict, list))}
        alike = _same_keys(inner.values())
        for key, one in inner.items():
            yield from _records(one, above | {len(above): key}, alike)
    elif isinstance(value, list):
        alike = _same_keys(value)
        for one in value:
            if isinstance(one, (dict, list)):
                yield from _records(one, above, alike)
            else:
                yield above | {"value": _plain(one)}


def _same_keys(values: Iterable[Any]) -> bool | None:
    """Whether all dictionaries share a key; None for fewer than two."""
    keys = [value.keys() for value in values if isinstance(value, dict)]
    return bool(set.intersection(*map(set, keys))) if len(keys) > 1 else None


def _plain(value: Any) -> str:
    """``value`` as text; empty for None and NaN."""
    return "" if value is None or value != value else str(value)


def _spreadsheet(data: bytes) -> Iterator[tuple[str, list[Row]]]:
    """Name and rows of each sheet of an .xlsx file, which is a zip file of XML."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        names = file.namelist()
        shared = [
            _text_of(element)
            for name in names
            if name.endswith("sharedStrings.xml")
            for element in _elements(file, name, "si")
        ]
        book = next(path for _, kind, path in _related(file, "") if kind == "officeDocument")
        files = {key: path for key, _, path in _related(file, book)}
        for sheet in _elements(file, book, "sheet"):
            path = files[next(v for k, v in sheet.items() if k.endswith("}id"))]
            if "worksheets/" in path:  # not a chart
                yield (
                    sheet.get("name", ""),
                    [
                        {
                            re.sub(r"\d+", "", cell.get("r", "")): _cell(cell, shared)
                            for cell in row
                            if cell.tag.endswith("}c")
                        }
                        for row in _elements(file, path, "row")
                    ],
                )


def _elements(file: zipfile.ZipFile, name: str, tag: str) -> Iterator[ElementTree.Element]:
    for _, element in ElementTree.iterparse(file.open(name)):
        if element.tag.endswith(f"}}{tag}"):
            yield element


def _related(file: zipfile.ZipFile, part: str) -> Iterator[tuple[str, str, str]]:
    """Id, kind and path of every part that a part of an .xlsx file ("": the file) refers to."""
    folder, name = posixpath.split(part)
    for one in _elements(file, posixpath.join(folder, "_rels", f"{name}.rels"), "Relationship"):
        path = posixpath.normpath(posixpath.join("/", folder, one.get("Target", "")))
        yield one.get("Id", ""), posixpath.basename(one.get("Type", "")), path.lstrip("/")


def _cell(cell: ElementTree.Element, shared: list[str]) -> str:
    """The value of a cell, not its formula."""
    if cell.get("t") == "inlineStr":
        return _text_of(cell)
    value = next((one.text or "" for one in cell if one.tag.endswith("}v")), "")
    return shared[int(value)] if cell.get("t") == "s" else value


def _text_of(element: ElementTree.Element) -> str:
    """The text below an element, without phonetic guides (``rPh``)."""
    if element.tag.endswith("}rPh"):
        return ""
    own = element.text or "" if element.tag.endswith("}t") else ""
    return own + "".join(map(_text_of, element))


def _matlab(data: bytes) -> Iterator[tuple[str, list[Row]]]:
    """Name and rows of each structure in a .mat file (up to version 7.2)."""
    for name, value in scipy.io.loadmat(io.BytesIO(data), squeeze_me=True).items():
        if isinstance(value, np.ndarray) and value.dtype.names:
            yield (
                name,
                [
                    {name: str(record[name]) for name in value.dtype.names}
                    for record in np.atleast_1d(value)
                ],
            )


_TEXTS: dict[str, Callable[[str], Iterator[Row]]] = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".json": _json,
    ".jsonl": _json_lines,
    ".txt": _listed,
}
_BINARY: dict[str, Callable[[bytes], Iterator[tuple[str, list[Row]]]]] = {
    ".xlsx": _spreadsheet,
    ".mat": _matlab,
}
