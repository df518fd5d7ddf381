"""The command line shared by analysis modules: folders as arguments; user errors end in one line
and status 2.
"""

import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from analysis.page import FORMATS, MARGIN, Page
from transferability.console import in_utf8, output
from transferability.errors import UserError


def command(
    name: str,
    about: str,
    draws: bool = False,
    settings: Callable[[ArgumentParser], None] | None = None,
    together: bool = False,
) -> int:
    """Run ``python -m NAME FOLDER...``: call the module's ``main`` on every folder in turn.

    The module calls this function above its imports. Once the arguments are valid, it is imported
    under its own name, so ``--help`` does not wait for its imports.

    Args:
        name: the module. Its ``main`` takes a folder and, by name, the values of ``settings``.
        about: the text of ``--help``.
        draws: add options of figures; ``main`` also takes ``page``, a :class:`Page`.
        settings: adds options of this command to the parser.
        together: call ``main`` once, with the list of all folders.

    Returns:
        The exit status, 0.
    """
    prog = f"python -m {name.removesuffix('.__main__')}"
    parser = ArgumentParser(
        prog=prog, description=about, formatter_class=RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", metavar="FOLDER", nargs="+", type=Path)
    if settings:
        settings(parser)
    if draws:
        _add_page(parser)
    in_utf8()
    with output():
        try:
            options = vars(parser.parse_args())
            folders = options.pop("folders")
            if draws:
                formats, width, font = (options.pop(key) for key in ("formats", "width", "font"))
                options["page"] = Page(formats or FORMATS, width, font)
            main = import_module(name).main
            for one in [folders] if together else folders:
                main(one, **options)
        except UserError as error:
            with output():
                print(f"error: {error}", file=sys.stderr)
            sys.exit(2)
    return 0


def _add_page(parser: ArgumentParser) -> None:
    says = "only figures of this format; may be repeated"
    parser.add_argument("--format", dest="formats", action="append", choices=FORMATS, help=says)
    says = (
        "for a paper: one file per panel, so many inches wide, with its legend and without a "
        "caption"
    )
    parser.add_argument("--width", type=_size, metavar="INCHES", help=says)
    says = f"of the text, in points, beside --width (default: {Page.font:g})"
    parser.add_argument("--font", type=_size, metavar="SIZE", default=Page.font, help=says)


def with_margin(parser: ArgumentParser) -> None:
    """Add the option ``--margin`` of commands that test whether one is as good as another."""
    says = f"accuracy up to which one counts as good as the other (default: {MARGIN:g}, 1 point)"
    parser.add_argument("--margin", type=_margin, default=MARGIN, help=says)


def _margin(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < 1:
        raise ArgumentTypeError(f"{text} is not possible: an accuracy from 0 to below 1")
    return value


def _size(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 100:
        raise ArgumentTypeError(f"{text} is not possible: a number above 0 and below 100")
    return value
