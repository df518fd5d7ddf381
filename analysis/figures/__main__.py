"""Every figure of a study, as PDF, SVG and PNG, into the folder of its tables (analysis.collect,
analysis.paper).

python -m analysis.figures figures/figures-procedural
"""

from collections.abc import Sequence
from pathlib import Path

from analysis.command import command
from analysis.figures import write_figures
from analysis.style import FORMATS


def main(folder: Path, formats: Sequence[str] = FORMATS) -> None:
    paths, absent = write_figures(folder, formats)
    for path in paths:
        print(path)
    for name, why in absent.items():
        print(f"{name}: not drawn: {why}")


if __name__ == "__main__":
    command("analysis.figures", main, __doc__, draws=True)
