import pytest

from transferability.errors import UserError
from transferability.study.cells import Cell, expand, parse

TABLE = [  # text, source, copied, frozen, n, treatment
    ("baseB", None, 0, 0, 0, "base"),
    ("B3B", "B", 3, 3, 3, "BnB"),
    ("B3B+", "B", 3, 0, 3, "BnB+"),
    ("A3B", "A", 3, 3, 3, "AnB"),
    ("A3B+", "A", 3, 0, 3, "AnB+"),
    ("R3B", "R", 0, 3, 3, "RnB"),
    ("A3B~1", "A", 4, 3, 3, "AnB~1"),
    ("B5A", "B", 5, 5, 5, "AnB"),
    ("A5.B", "A", 5, 5, 5, "An.B"),
    ("A5.B+", "A", 5, 0, 5, "An.B+"),
    ("B5.B", "B", 5, 5, 5, "Bn.B"),
    ("R5.B", "R", 0, 5, 5, "Rn.B"),
    ("A5A+", "A", 5, 0, 5, "BnB+"),
    ("A5B++", "A", 5, 0, 5, "AnB++"),
    ("A5.B++", "A", 5, 0, 5, "An.B++"),
    ("R7all", "R", 0, 7, 7, "RnB"),
    ("baseall", None, 0, 0, 0, "base"),
]


@pytest.mark.parametrize(("text", "source", "copied", "frozen", "n", "treatment"), TABLE)
def test_two_integers_and_a_source_say_everything(text, source, copied, frozen, n, treatment):
    cell = parse(text)
    assert (cell.source, cell.copied, cell.frozen, cell.n, cell.treatment) == (
        source,
        copied,
        frozen,
        n,
        treatment,
    )
    assert str(cell) == text


def test_n_0_is_the_base_itself():
    assert parse("A0B") == parse("B0B") == parse("baseB") == Cell("B")


@pytest.mark.parametrize("text", ["A8B", "A9B+", "R0B", "R8B", "A0B~1", "A7B~1", "A6B~2"])
def test_n_outside_the_network_is_one_clear_line(text):
    with pytest.raises(UserError, match=text) as error:
        parse(text, n_layers=8)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "base",
        "A3",
        "3B",
        "C3B",
        "A3B+++",
        "R3B++",
        "A3B+~1",
        "R3B+",
        "R3B~1",
        "a3b",
        "A-1B",
        "A3.",
        "A0.B",
        "A3.B~1",
        "R3.B+",
    ],
)
def test_what_is_no_cell_is_refused(text):
    with pytest.raises(UserError):
        parse(text)


def test_every_cell_prints_and_parses_to_itself():
    for n in range(1, 8):
        for text in [
            f"A{n}B",
            f"A{n}B+",
            f"B{n}B",
            f"B{n}A+",
            f"R{n}A",
            *(f"A{n}B~{k}" for k in range(1, 8 - n)),
        ]:
            assert str(parse(text)) == text


def test_treatments_expand_in_both_directions():
    assert [str(c) for c in expand("AnB+", "A", [1, 7], 8)] == ["B1A+", "B7A+"]
    assert [str(c) for c in expand("BnB", "A", [2], 8)] == ["A2A"]
    assert [str(c) for c in expand("RnB", "B", [3], 8)] == ["R3B"]
    assert [str(c) for c in expand("AnB~2", "B", [3], 8)] == ["A3B~2"]
    assert [str(c) for c in expand("base", "all", [3], 8)] == ["baseall"]
    assert [str(c) for c in expand("An.B+", "A", [3, 7], 8)] == ["B3.A+", "B7.A+"]
    assert [str(c) for c in expand("BnB", "B", None, 4)] == ["B1B", "B2B", "B3B"], "every layer"
    assert [str(c) for c in expand("AnB~2", "B", None, 5)] == ["A1B~2", "A2B~2"], (
        "as far as there are layers to copy"
    )
    assert [str(c) for c in expand("AnB++", "B", [3, 7], 8)] == ["A3B++", "A7B++"]
    with pytest.raises(UserError, match="not a treatment"):
        expand("CnB", "B", [1], 8)


def test_all_layers_below_the_classifier_are_copied_and_the_lowest_n_frozen():
    """No k from study to study: the ends of the row are networks that have a name already."""
    cells = expand("AnB~all", "B", None, 6)
    assert [str(c) for c in cells] == ["A5B+", "A1B~4", "A2B~3", "A3B~2", "A4B~1", "A5B"]
    assert {c.copied for c in cells} == {5} and [c.frozen for c in cells] == [0, 1, 2, 3, 4, 5]
    assert [c.treatment for c in cells] == ["AnB+", *["AnB~all"] * 4, "AnB"]
    assert [str(c) for c in expand("AnB~all", "A", [3], 8)] == ["B7A+", "B3A~4"]
    assert expand("AnB~all", "B", [3], 8)[1] == parse("A3B~4"), "what was asked is no identity"


def test_other_depths_are_possible():
    assert parse("A11B", n_layers=12).frozen == 11
    with pytest.raises(UserError, match=r"1\.\.3"):
        parse("A4B", n_layers=4)


def test_the_second_of_two_phases_names_its_first():
    assert parse("A5B++").first_phase == parse("A5B") and parse("A5B+").first_phase is None
    assert parse("A5.B++").first_phase == parse("A5.B")
    assert parse("A5B++") != parse("A5B+")
