"""One way to be a command: folders as arguments;
what a user can cause ends in one line and status 2.
"""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

from analysis.style import FORMATS
from transferability.errors import UserError
from transferability.terminal import in_utf8, output


def command(name: str, main: Callable[..., None], about: str, draws: bool = False) -> None:
    """``python -m NAME FOLDER...``: ``main`` of every folder, one after the other.

    Args:
        main: takes a folder; if it ``draws``, also the formats of its figures,
            in which ``--format`` chooses.
        about: what ``--help`` says.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m {name}",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    if draws:
        says = "only figures of this format; may be repeated"
        parser.add_argument("--format", dest="formats", action="append", choices=FORMATS, help=says)
    in_utf8()
    with output():
        try:
            options = parser.parse_args()
            for folder in options.folders:
                if draws:
                    main(folder, options.formats or FORMATS)
                else:
                    main(folder)
        except UserError as error:
            with output():
                print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
