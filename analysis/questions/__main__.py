"""The figure of the one question that a small study asks, and its table, into the folder of its tables.

python -m analysis.questions FOLDER      FOLDER/QUESTION.{csv,pdf,svg,png}, the question by what the study varies
                                         (with random filters also the figure "activity", of what becomes of them):
"""

import argparse
from pathlib import Path

from analysis.questions import modules, write_question
from analysis.tables import tool


def main() -> None:
    about = "\n".join(f"{name:<12}{module.__doc__.splitlines()[0]}" for name, module in modules().items())
    parser = argparse.ArgumentParser(
        description=f"{__doc__}\n{about}", formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, help="a folder of analysis.collect")
    options = parser.parse_args()
    drawn, paths = write_question(options.folder)
    for drawing in drawn:
        print(drawing.table.to_string(index=False, float_format="%.4f", na_rep=""), end="\n\n")
    for path in paths:
        print(path)


if __name__ == "__main__":
    tool(main)()
