"""The check of words finds what it looks for, where people read it, and nowhere else."""

import ast
from pathlib import Path

import pytest

from tests.words import uses


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "Images of the textbook"),
        ("a.yaml", "key: 1 # the textbook"),
        ("Makefile", "demo: setup ## as in the textbook"),
        ("a.py", 'raise UserError(f"{key} as the textbook says")'),
        ("a.j2", "<p>{{ x }} the textbook</p>"),
    ],
)
def test_a_word_is_found_where_it_is_read(name, text):
    ((line, word, instead),) = uses(Path(name), text)
    assert (line, word) == (1, "textbook") and "CS231n" in instead


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.md", "`textbook` and [it](textbook.md)"),
        ("a.md", "```\ntextbook\n```"),
        ("a.yaml", "textbook: 1"),
        ("a.py", 'textbook = tables["textbook"]  # the textbook'),
        ("a.j2", "{{ textbook }}"),
    ],
)
def test_names_and_programs_are_left_alone(name, text):
    assert list(uses(Path(name), text)) == []


@pytest.mark.parametrize("folder", ["analysis", "experiments", "transferability", "tests"])
def test_no_message_loses_its_second_line(folder):
    """A text that continues on a line of its own, without parentheses, is a statement there: the
    message ends in the middle of a sentence.
    """
    lost = [
        f"{path}:{node.lineno}"
        for path in (Path(__file__).parent.parent / folder).rglob("*.py")
        for node in _statements(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        if node.value.value is not Ellipsis
    ]
    assert lost == []


def _statements(tree):
    """All but docstrings."""
    for parent in ast.walk(tree):
        documented = isinstance(parent, (ast.Module, ast.ClassDef, ast.FunctionDef))
        for field in ("body", "orelse", "finalbody"):
            own = getattr(parent, field, None)
            if isinstance(own, list):
                yield from own[documented and field == "body" :]
