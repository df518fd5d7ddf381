"""Check the classes of a dataset: there are at least two, their names differ, and each has training
images.
"""

import re
import unicodedata
from collections.abc import Iterable

from transferability.data.readers.subsets import WORDS, AmbiguousError
from transferability.errors import UserError, and_more

# parts of a download, shards or folds: not classes
_NUMBERED = re.compile(
    r"(.*?(?<![a-z])(?:part|shard|fold|batch|chunk|split|images?|imgs?|data)[-_ .]?)\d+",
    re.IGNORECASE,
)


def check_classes(
    train: dict[str, list[str]], held_out: dict[str, dict[str, list[str]]], source: str
) -> None:
    """Check the names of classes, and that each class has training images.

    Raises:
        UserError: a name is not UTF-8, two names look the same, or a class has no training images.
    """
    check_names([name for classes in (train, *held_out.values()) for name in classes], source)
    for subset, classes in held_out.items():
        if extra := sorted(classes.keys() - train.keys()):
            raise UserError(
                f"class {extra[0]!r}{and_more(extra)} has {WORDS[subset]} images but no training "
                f"images in {source}: add some, or remove its folder"
            )


def check_several(train: dict[str, list[str]]) -> None:
    """Check that there are at least two classes.

    Raises:
        AmbiguousError: there is only one.
    """
    if len(train) == 1:
        raise AmbiguousError(
            f"there is only one class, {min(train)}, and a task needs at least two"
        )


def check_names(names: Iterable[str], source: str) -> None:
    """Check that names are valid UTF-8, and that different names look different.

    Names may differ only in case, as a and A do in handwriting.
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
    """Normalize accents (NFC) and spaces, and remove invisible characters."""
    seen = "".join(c for c in unicodedata.normalize("NFC", name) if unicodedata.category(c) != "Cf")
    return " ".join(seen.split())


def _is_text(name: str) -> bool:
    """Whether a name from disk was valid UTF-8 (Python keeps other bytes as lone surrogates)."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def numbered(names: Iterable[str]) -> bool:
    """Whether names differ only in the number of a part: images_001, images_002."""
    matches = [_NUMBERED.fullmatch(name) for name in names]
    return len(matches) > 1 and all(matches) and len({match and match[1] for match in matches}) == 1
