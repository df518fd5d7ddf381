"""Draw every figure of a study, as PDF, SVG and PNG, in the folder of its tables (analysis.collect,
analysis.paper).

python -m analysis.figures figures/demo
python -m analysis.figures FOLDER --only accuracy --treatments BnB AnB --width 3.3 --format pdf
"""

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from analysis.command import command
from analysis.figures import FIGURES
from analysis.page import Page


def settings(parser: ArgumentParser) -> None:
    """Add the options of this command."""
    figures = ", ".join(["design", *FIGURES])
    parser.add_argument("--only", nargs="+", metavar="FIGURE", help=f"only these: {figures}")
    says = "only these, and the bases: such as BnB AnB"
    parser.add_argument("--treatments", nargs="+", metavar="TREATMENT", help=says)


def main(
    folder: Path,
    page: Page,
    only: Sequence[str] | None = None,
    treatments: Sequence[str] | None = None,
) -> None:
    from analysis.figures.write import write_figures  # a heavy import, not needed for --help

    paths, absent = write_figures(folder, page, only, treatments)
    for path in paths:
        print(path)
    for name, why in absent.items():
        print(f"{name}: not drawn: {why}")


if __name__ == "__main__":
    command("analysis.figures.__main__", __doc__, draws=True, settings=settings)
