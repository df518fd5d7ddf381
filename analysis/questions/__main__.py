"""Draw the figure of a small study's question, and write its table, in the folder of the study's
tables.

python -m analysis.questions FOLDER      writes FOLDER/QUESTION.{csv,pdf,svg,png}; what the study
                                         varies decides the question (with random filters also the
                                         figure "activity"):
"""

import ast
from pathlib import Path

from analysis.command import command
from analysis.page import Page
from analysis.questions import QUESTIONS


def asked(name: str) -> str:
    """The text of a question: the first line of its module's docstring, without importing it."""
    source = Path(__file__).with_name(f"{name}.py").read_text(encoding="utf-8")
    return str(ast.get_docstring(ast.parse(source))).splitlines()[0]


def main(folder: Path, page: Page) -> None:
    from analysis.questions.write import write_question  # a heavy import, not needed for --help

    drawn, paths = write_question(folder, page)
    for drawing in drawn:
        print(drawing.table.to_string(index=False, float_format="%.4f", na_rep=""), end="\n\n")
    for path in paths:
        print(path)


if __name__ == "__main__":
    about = "\n".join([__doc__, *(f"{name:<12}{asked(name)}" for name in QUESTIONS)])
    command("analysis.questions.__main__", about, draws=True)
