"""Draw and write the question of a study."""

from importlib import import_module
from pathlib import Path

from analysis.csv_files import write_csv
from analysis.figures import activity
from analysis.page import Page
from analysis.plotting.layout import write
from analysis.plotting.style import FigureSpec
from analysis.questions import QUESTIONS
from analysis.tables import StudyResults
from transferability.errors import UserError
from transferability.files import remove_leftovers


def question(tables: StudyResults) -> FigureSpec:
    """The figure of the first question that applies to the study.

    Raises:
        UserError: the finished networks vary no factor of a question, or lack what it compares.
    """
    networks = tables.networks[tables.networks.accuracy.notna()]
    for name in QUESTIONS:
        one = import_module(f"analysis.questions.{name}")
        if one.asked(networks):
            return one.draw(tables)
    raise UserError(
        "nothing to compare: the finished networks with a base differ neither in network, recipe, "
        "images per class (of AnB or AnB+), split or seed, nor are there preserved layers "
        "(A3B~1); strategies for a pretrained base are compared by the figure `advice` "
        "(python -m analysis.figures)"
    )


def write_question(folder: Path, page: Page) -> tuple[list[FigureSpec], list[Path]]:
    """Draw the question of the folder's study and write its table; with random filters, also draw
    the figure "activity".
    """
    tables = StudyResults.read(folder)
    asked, inside = question(tables), activity.draw(tables)
    drawn = [asked, inside] if isinstance(inside, FigureSpec) else [asked]
    remove_leftovers(folder)
    write_csv(folder / f"{asked.name}.csv", asked.table)
    paths = []
    for drawing in drawn:
        paths += write(drawing, folder, page)
    return drawn, paths
