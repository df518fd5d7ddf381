"""Tables that lie beside folders of images: their rows, and whether they name the images and say
of them something else than their folders.
"""

import csv
import io
import json
import posixpath
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import islice
from typing import Any
from xml.etree import ElementTree

import numpy as np
import scipy.io

from transferability.data.readers.file_tree import FileTree

ENDINGS = (".csv", ".tsv", ".json", ".jsonl", ".xlsx", ".mat")
MOST_BYTES, MOST_ROWS, SAMPLE = 64 << 20, 1_000_000, 200
NOT_SAID = "\0"  # a class that no cell is
_NAMED = re.compile("label|class|categor|annotation|metadata|truth")
Row = dict[Any, str]  # column -> text


def contradicting_table(tree: FileTree, classes: dict[str, list[str]]) -> str | None:
    """The first table outside of the class folders that names most images, and in no column says
    for them what their folders say; None where there is none.
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
    """The table that may say what the images of a tree show: the first that names most of them,
    else one that is named so; None where there is none.
    """
    named = (
        name
        for name in tree.names
        if name.lower().endswith(ENDINGS) and _NAMED.search(posixpath.basename(name).casefold())
    )
    return next(tables_naming_images(tree), next(named, None))


def tables_naming_images(tree: FileTree) -> Iterator[str]:
    """The tables that name most of the images of their folder, and say something of them."""

    @cache
    def wanted(under: str) -> dict[str, set[str]]:
        return _keys({NOT_SAID: tree.images(f"{under}/" if under else "")})

    for name in tree.names:
        if name.lower().endswith(ENDINGS) and 0 < tree.size(name) <= MOST_BYTES:
            keys = wanted(posixpath.dirname(name))
            if keys and _contradicts(_rows(tree, name), keys):
                yield name


def _keys(classes: dict[str, list[str]]) -> dict[str, set[str]]:
    """How a table may name some of the images, with and without ending -> their classes."""
    named = [(c, name) for c, names in classes.items() for name in names]
    found: dict[str, set[str]] = {}
    for c, name in named[:: -(-len(named) // SAMPLE)]:
        base = posixpath.basename(name)
        for key in {base, posixpath.splitext(base)[0]}:
            # a table may count from 1 to 100 what is no image
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
    # with and without its ending a name is there twice
    enough = 2 * len(seen) >= len({posixpath.splitext(key)[0] for key in wanted})
    agreed = max(agreeing.values(), default=0)
    return bool(seen) and enough and others and agreed < 0.8 * len(seen)


def _rows(tree: FileTree, name: str) -> Iterator[Row]:
    """The rows of a table as far as they can be read; none of one that is damaged."""
    try:
        yield from rows_of(name, tree.read(name))
    except Exception:  # whatever a damaged file does: it then names nothing
        return


def rows_of(name: str, data: bytes) -> Iterator[Row]:
    """The rows of a table; raises anything where it is damaged, or of no kind that is known."""
    for row in _READERS[posixpath.splitext(name)[1].lower()](data):
        yield {column: text.strip() for column, text in row.items()}


def _delimited(data: bytes) -> Iterator[Row]:
    text = data.decode("utf-8-sig", "replace")
    first = text.partition("\n")[0]
    delimiter = max("\t;,", key=first.count)
    for row in csv.reader(io.StringIO(text), delimiter=delimiter):
        yield dict(enumerate(row))


def _listed(data: bytes) -> Iterator[Row]:
    """A file and its class a line, as lists for training have them."""
    lines = data.decode("utf-8-sig", "replace").splitlines()
    if lines and any(sign in lines[0] for sign in "\t;,"):
        yield from _delimited(data)
    else:
        yield from (dict(enumerate(line.split())) for line in lines)


def _json(data: bytes) -> Iterator[Row]:
    value = json.loads(data)
    coco = isinstance(value, dict) and {"images", "annotations", "categories"} <= value.keys()
    yield from _coco(value) if coco else _records(value, {})


def _coco(value: dict[str, Any]) -> Iterator[Row]:
    """A row per annotation."""
    files = {image["id"]: image["file_name"] for image in value["images"]}
    names = {one["id"]: one["name"] for one in value["categories"]}
    for found in value["annotations"]:
        yield {"file_name": files[found["image_id"]], "category": names[found["category_id"]]}


def _json_lines(data: bytes) -> Iterator[Row]:
    for line in data.splitlines():
        yield from _records(json.loads(line), {})


def _records(value: Any, above: Row) -> Iterator[Row]:
    """Each list entry or group of plain values, with the keys that it lies below."""
    if isinstance(value, dict):
        plain = {k: str(v) for k, v in value.items() if not isinstance(v, (dict, list))}
        if plain:
            yield above | plain
        # {"IMAGE": "label", ...} is a table, too
        yield from ({0: k, 1: v} for k, v in plain.items())
        for key, inner in value.items():
            if isinstance(inner, (dict, list)):
                yield from _records(inner, above | {len(above): key})
    elif isinstance(value, list):
        for inner in value:
            if isinstance(inner, (dict, list)):
                yield from _records(inner, above)
            else:
                yield above | {"value": str(inner)}


def _spreadsheet(data: bytes) -> Iterator[Row]:
    """The cells of all sheets of an .xlsx file: a zip file of XML."""

    def elements(file: zipfile.ZipFile, name: str, tag: str) -> Iterator[ElementTree.Element]:
        for _, element in ElementTree.iterparse(file.open(name)):
            if element.tag.endswith(f"}}{tag}"):
                yield element

    with zipfile.ZipFile(io.BytesIO(data)) as file:
        names = file.namelist()
        shared = [
            "".join(element.itertext())
            for name in names
            if name.endswith("sharedStrings.xml")
            for element in elements(file, name, "si")
        ]
        for name in names:
            if not re.search(r"worksheets/[^/]+\.xml$", name):
                continue
            for row in elements(file, name, "row"):
                cells = {}
                for cell in row:
                    text = "".join(cell.itertext())
                    column = re.sub(r"\d+", "", cell.get("r", ""))
                    cells[column] = shared[int(text)] if cell.get("t") == "s" else text
                yield cells


def _matlab(data: bytes) -> Iterator[Row]:
    """The records of structures in a .mat file (to version 7.2)."""
    for value in scipy.io.loadmat(io.BytesIO(data), squeeze_me=True).values():
        if isinstance(value, np.ndarray) and value.dtype.names:
            for record in np.atleast_1d(value):
                yield {name: str(record[name]) for name in value.dtype.names}


_READERS = {
    ".csv": _delimited,
    ".tsv": _delimited,
    ".json": _json,
    ".jsonl": _json_lines,
    ".xlsx": _spreadsheet,
    ".mat": _matlab,
    ".txt": _listed,
}
