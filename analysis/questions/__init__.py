"""Small studies that ask one question each, with one figure and one table,
from the tables of analysis.collect alone.

A question is a module here: its first line says what is asked, ``asked(networks)`` whether finished
networks vary what it is about, ``draw(tables)`` returns the drawing. A new one is a file, and its
name in QUESTIONS (and in the import above it).
"""

from pathlib import Path

from analysis.figures import activity
from analysis.questions import longer, preserved, replicates, variants, volume, wordnet
from analysis.style import Drawing, Page, write
from analysis.tables import Tables, write_csv
from transferability.errors import UserError
from transferability.files import remove_leftovers

# The first that a study asks is drawn.
QUESTIONS = {
    "volume": volume,
    "preserved": preserved,
    "variants": variants,
    "longer": longer,
    "wordnet": wordnet,
    "replicates": replicates,
}


def question(tables: Tables) -> Drawing:
    """The figure of what the study varies.

    Raises:
        UserError: it varies nothing, or nothing of it is finished.
    """
    networks = tables.networks[tables.networks.accuracy.notna()]
    for one in QUESTIONS.values():
        if one.asked(networks):
            return one.draw(tables)
    raise UserError(
        "nothing to compare: the finished networks differ neither in network, recipe, images a "
        "class, split or seed, nor are there preserved layers (A3B~1)"
    )


def write_question(folder: Path, page: Page) -> tuple[list[Drawing], list[Path]]:
    """Draw the folder's question, and with random filters what becomes of them,
    and write the question's table.
    """
    tables = Tables.read(folder)
    asked, inside = question(tables), activity.draw(tables)
    drawn = [asked, inside] if isinstance(inside, Drawing) else [asked]
    remove_leftovers(folder)
    write_csv(folder / f"{asked.name}.csv", asked.table)
    paths = []
    for drawing in drawn:
        paths += write(drawing, folder, page)
    return drawn, paths
