"""The check of words finds what it looks for, where people read it, and nowhere else."""

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
