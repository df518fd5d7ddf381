"""Suggest settings, each of them tried, where the role of folders is unclear."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

from transferability.data.readers.class_names import numbered
from transferability.data.readers.subsets import (
    NO_CLASSES,
    SUBSETS,
    AmbiguousError,
    Folders,
    class_root,
    look_like_subsets,
    subset_named,
    word_of,
)
from transferability.errors import UserError

_OFFERED, _DEEPEST = 3, 4


@dataclass(frozen=True)
class StatedLayout:
    """The user's settings on the role of folders, see ``DatasetConfig``."""

    subsets: dict[str, str] | None = None
    class_level: int | None = None
    leave_out: tuple[str, ...] = ()

    def __str__(self) -> str:
        """The settings as command-line arguments."""
        words = []
        if self.subsets is not None:
            listed = (f"{s}: {_quoted(self.subsets[s])}" for s in SUBSETS if s in self.subsets)
            words.append(f'"dataset.parts={{{", ".join(listed)}}}"')
        if self.leave_out:
            words.append(f'"dataset.leave_out=[{", ".join(map(_quoted, self.leave_out))}]"')
        if self.class_level:
            words.append(f"dataset.class_level={self.class_level}")
        return " ".join(words)


def _quoted(text: str) -> str:
    return text if re.fullmatch(r"[\w./-]+", text) else repr(text)


def tried_settings(
    folders: Folders,
    stated: StatedLayout,
    error: AmbiguousError,
    read: Callable[[Folders, StatedLayout], Any],
) -> Iterator[str]:
    """Settings with which ``read`` finds a layout, as text, each with its classes; at most
    ``_OFFERED``.
    """
    seen: list[Any] = []
    for candidate in _candidates(folders, stated, error):
        if len(seen) == _OFFERED:
            return
        if seen and candidate.subsets == {}:
            continue  # all folders as classes: only if nothing else is possible
        try:
            found = read(Folders(folders.tree, candidate.leave_out), candidate)
        except UserError:
            continue
        names = sorted(found.train)
        subsets = [found.train, found.val, found.test]
        if subsets in seen or not _may_be_classes(names, candidate):
            continue
        seen.append(subsets)
        yield f"{candidate} ({classes_named(names)})"


def _candidates(
    folders: Folders, stated: StatedLayout, error: AmbiguousError
) -> Iterator[StatedLayout]:
    """Settings that the user may have meant, the most probable first."""
    levels = [None, *range(1, _DEEPEST + 1)]
    if stated.class_level:
        levels = [stated.class_level]
    subsets = _subsets_by_words(folders) | error.subsets
    subsets = subsets if "train" in subsets else {}
    if error.odd and not any(path.endswith(error.odd) for path in subsets.values()):
        for level in levels[:2]:
            yield replace(
                stated,
                leave_out=(*stated.leave_out, *error.odd),
                class_level=level or stated.class_level,
            )
    if stated.subsets is None and subsets:
        # a level without subsets, here or below, would mix the subsets
        inner = {subset: _only_inside(folders, f"{path}/") for subset, path in subsets.items()}
        for some in (subsets, inner):
            kept = {p: at for p, at in some.items() if len(folders.folders(f"{at}/")) > 1}
            for level in levels:
                yield replace(stated, subsets=some, class_level=level)
                if "train" in kept:
                    yield replace(stated, subsets=kept, class_level=level)
    elif not subsets:
        for level in levels[1:]:
            yield replace(stated, class_level=level)
    if stated.subsets is None and not (subsets and levels[0]):
        yield replace(stated, subsets={})


def _subsets_by_words(folders: Folders) -> dict[str, str]:
    """Subset -> its folder, by the words in the names of sibling folders; empty unless there are
    several distinct subsets with training images among them. If no name has a word for training,
    the only folder without a word counts as training.
    """
    at = class_root(folders)
    words = {name: word_of(name) for name in folders.folders(at)}
    named = [(word.subset, at + name) for name, word in words.items() if word]
    plain = [at + name for name, word in words.items() if not word]
    if len(plain) == 1 and "train" not in dict(named):
        named.append(("train", plain[0]))
    found = {subset: path for subset, path in named if subset in SUBSETS}
    return found if len(dict(named)) == len(named) > 1 and "train" in found else {}


def _only_inside(folders: Folders, at: str) -> str:
    """The deepest folder that contains everything in ``at``."""
    while not folders.direct_images(at) and len(folders.folders(at)) == 1:
        at = f"{at}{folders.folders(at)[0]}/"
    return at.rstrip("/")


def _may_be_classes(names: list[str], stated: StatedLayout) -> bool:
    """Whether folders of these names are plausible as classes."""
    words = sum(subset_named(name) is not None for name in names)
    return (
        len(names) > 1
        and not numbered(names)
        and not any(name.casefold() in NO_CLASSES for name in names)
        and words < 2
        and not (words and stated.class_level)
        and not look_like_subsets(names)
    )


def classes_named(names: list[str]) -> str:
    dots = ", ..." if len(names) > 3 else ""
    return f"{len(names)} classes: {', '.join(names[:3])}{dots}"
