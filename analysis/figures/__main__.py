"""Every figure of a study, as PDF, SVG and PNG, into the folder of its tables.

python -m analysis.figures figures/figures-procedural
"""

import argparse
from pathlib import Path

from analysis.figures import write_figures
from analysis.tables import tool


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of analysis.collect or analysis.paper")
    options = parser.parse_args()
    paths, absent = write_figures(options.folder)
    for path in paths:
        print(path)
    for name, why in absent.items():
        print(f"{name}: not drawn: {why}")


if __name__ == "__main__":
    tool(main)()
