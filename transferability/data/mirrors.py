"""Classes whose names suggest mirror images of each other: mirroring of training images, which is
usual, teaches a network not to distinguish them.
"""

import logging
import re
from collections.abc import Sequence

from transferability.errors import and_more, shown

log = logging.getLogger(__name__)

# Pairs of words that describe mirror images of each other.
WORDS = (
    *(("left", "right"), ("links", "rechts"), ("gauche", "droite"), ("izquierd", "derech")),
    *(("sinistr", "destr"), ("west", "east"), ("counterclockwise", "clockwise")),
    *(("anticlockwise", "clockwise"), ("ccw", "cw")),
)
LETTERS = (("b", "d"), ("p", "q"), ("l", "r"))  # the last pair for left and right


def warn_of_mirrored(names: Sequence[str], how: str) -> None:
    """Warn if names of classes suggest mirror images of each other; ``how``: the consequence."""
    if pairs := mirrored(names):
        log.warning(
            "the classes %s and %s%s look like mirror images of each other%s",
            *(shown(name) for name in pairs[0]),
            and_more(pairs),
            how,
        )


def mirrored(names: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of classes whose names suggest mirror images, such as ``turn_left`` and ``turn_right``,
    or ``b`` and ``d``, in the order of the classes.
    """
    known = {name.casefold(): name for name in reversed(names)}
    pairs = []
    for name in names:
        found = next((known[s] for s in _swapped(name.casefold()) if s in known), None)
        found = found or next((s for s in _of_letters(name) if s in names), None)
        if found and found != name and (found, name) not in pairs:
            pairs.append((name, found))
    return pairs


def _swapped(name: str) -> list[str]:
    both = [*WORDS, *((b, a) for a, b in WORDS)]
    return [re.sub(a, b, name) for a, b in both if a in name and not _within(name, a, b)]


def _within(name: str, word: str, other: str) -> bool:
    """Whether ``word`` is in ``name`` only as part of ``other``: clockwise in counterclockwise."""
    return word in other and word not in name.replace(other, "")


def _of_letters(name: str) -> list[str]:
    """``name`` with a letter that stands alone mirrored; lower case, as B and D do not mirror."""
    both = [*LETTERS, *((b, a) for a, b in LETTERS)]
    alone = r"(?<![A-Za-z]){}(?![A-Za-z])"
    swapped = [re.sub(alone.format(a), b, name) for a, b in both]
    return [other for other in swapped if other != name]
