"""The figure of the one question that a small study asks, and its table,
into the folder of its tables.

python -m analysis.questions FOLDER      FOLDER/QUESTION.{csv,pdf,svg,png}, the question by what the
                                         study varies (with random filters also the figure
                                         "activity", of what becomes of them):
"""

from pathlib import Path

from analysis.command import command
from analysis.questions import QUESTIONS, write_question
from analysis.style import Page


def main(folder: Path, page: Page) -> None:
    drawn, paths = write_question(folder, page)
    for drawing in drawn:
        print(drawing.table.to_string(index=False, float_format="%.4f", na_rep=""), end="\n\n")
    for path in paths:
        print(path)


if __name__ == "__main__":
    asked = [f"{name:<12}{module.__doc__.splitlines()[0]}" for name, module in QUESTIONS.items()]
    command("analysis.questions", main, "\n".join([__doc__, *asked]), draws=True)
