"""What the classes of a dataset have to be: at least two, with names that differ, each
with training images.
"""

import re
import unicodedata
from collections.abc import Iterable

from transferability.data.readers.subsets import WORDS, AmbiguousError
from transferability.errors import UserError, and_more

# the first part of a download, a shard, a fold: not a class
_NUMBERED = re.compile(
    r"(.*?(?<![a-z])(?:part|shard|fold|batch|chunk|split|images?|imgs?|data)[-_ .]?)\d+",
    re.IGNORECASE,
)


def check_classes(
    train: dict[str, list[str]], held_out: dict[str, dict[str, list[str]]], source: str
) -> None:
    """Whether these may be the classes of a dataset.

    Raises:
        UserError: names look the same, or a class has no training images.
    """
    check_names([name for classes in (train, *held_out.values()) for name in classes], source)
    for subset, classes in held_out.items():
        if extra := sorted(classes.keys() - train.keys()):
            raise UserError(
                f"class {extra[0]!r}{and_more(extra)} has {WORDS[subset]} images but no training "
                f"images in {source}: add some, or remove its folder"
            )


def check_several(train: dict[str, list[str]]) -> None:
    """Raises:
    AmbiguousError: there is one class only.
    """
    if len(train) == 1:
        raise AmbiguousError(
            f"there is only one class, {min(train)}, and a task needs at least two"
        )


def check_names(names: Iterable[str], source: str) -> None:
    """Names must survive a text file, and look different if they are.
    (Cat and cat do: handwriting has a and A.)
    """
    alike: dict[str, str] = {}
    for name in sorted(set(names)):
        if not _is_text(name):
            raise UserError(f"{source}: the name of class {name} is not UTF-8: rename its folder")
        other = alike.setdefault(_looks(name), name)
        if other != name:
            raise UserError(
                f"{source}: the class folders {other!a} and {name!a} look the same, but are "
                "written with different Unicode characters or spaces: "
                "give them one name, or two that differ"
            )


def _looks(name: str) -> str:
    """One spelling of an accent, any space, and nothing that cannot be seen."""
    seen = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return " ".join(seen.split())


def _is_text(name: str) -> bool:
    """Whether a name from the disk was valid UTF-8 (Python keeps other bytes as
    lone surrogates).
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def numbered(names: Iterable[str]) -> bool:
    """Whether names differ in the number of a part alone: images_001, images_002."""
    matches = [_NUMBERED.fullmatch(name) for name in names]
    return len(matches) > 1 and all(matches) and len({match and match[1] for match in matches}) == 1
