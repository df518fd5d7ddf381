"""Words that must not come back, with what stands in their place: ``make lint``.

python -m tests.words        each use, in documents, comments of conf/, docstrings and messages
"""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import yaml

ROOT = Path(__file__).parent.parent
WORDS = {
    re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE): instead
    for pattern, instead in yaml.safe_load(Path(__file__).with_suffix(".yaml").read_text()).items()
}
CODE = re.compile(r"`[^`\n]+`|\]\([^)]*\)|https?://\S+")  # names of code, and links
FILES = [
    *ROOT.glob("*.md"),
    *ROOT.glob("docs/**/*.md"),
    *ROOT.glob("docs/*.ipynb"),
    *ROOT.glob("results/**/*.md"),
    *ROOT.glob("conf/**/*.yaml"),
    ROOT / "Makefile",
    *(
        p
        for folder in ("transferability", "experiments", "analysis")
        for p in ROOT.glob(f"{folder}/**/*.py")
    ),
    *ROOT.glob("analysis/*.j2"),
]


def prose(path: Path, text: str) -> Iterator[tuple[int, str]]:
    """What is written for people in a file: line numbers and text."""
    if path.suffix == ".py":
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
                yield node.lineno, node.value
    elif path.suffix == ".ipynb":
        for number, cell in enumerate(nbformat.reads(text, as_version=4).cells):
            if cell.cell_type == "markdown":
                yield number, cell.source
    elif path.suffix == ".md":
        fenced = False
        for number, line in enumerate(text.splitlines(), 1):
            fenced ^= line.startswith("```")
            if not fenced:
                yield number, line
    else:  # comments, or a page between its tags
        mark = r"(?<![^\s])##?\s(.*)" if path.suffix in (".yaml", "") else r"(.*)"
        for number, line in enumerate(text.splitlines(), 1):
            line = re.sub(r"\{[{%].*?[%}]\}|<[^>]*>", " ", line) if path.suffix == ".j2" else line
            if found := re.search(mark, line):
                yield number, found[1]


def uses(path: Path, text: str) -> Iterator[tuple[int, str, str]]:
    """Line, word and what stands in its place."""
    for number, written in prose(path, text):
        for pattern, instead in WORDS.items():
            for found in pattern.finditer(CODE.sub(" ", written)):
                yield number, found[0], instead


def main() -> int:
    found = 0
    for path in FILES:
        for number, word, instead in uses(path, path.read_text()):
            print(f"{path.relative_to(ROOT)}:{number}: {word!r}: {instead}")
            found += 1
    return int(found > 0)


if __name__ == "__main__":
    sys.exit(main())
