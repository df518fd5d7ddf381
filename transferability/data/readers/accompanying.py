"""Find files among the images of a class that are not images of it: masks, thumbnails, copies."""

import posixpath
import re
from collections import Counter

from transferability.data.readers.offers import StatedLayout
from transferability.data.readers.subsets import ACCOMPANYING, AmbiguousError, Folders

# what the name of a mask or similar image adds to the name of its image
_BELONGS = re.compile(
    r"[-_. ](?:annotation|depth|gt|heatmap|labels?|masks?|seg|segmentation|superpixels)(?:_\d+)?$",
    re.IGNORECASE,
)


def check_folders_inside(folders: Folders, at: str, level: int) -> None:
    """Check that no folder in a class is named like masks or thumbnails, which are not images of
    the class.
    """
    for path in folders.own:
        inside = path.removeprefix(at).split("/")[level:-1] if path.startswith(at) else []
        if odd := next((name for name in inside if name.casefold() in ACCOMPANYING), None):
            raise AmbiguousError(
                f"{path} is named like something that belongs to images, not like images", odd=odd
            )


def check_names_beside(
    read: list[dict[str, list[str]]], subsets: dict[str, str], stated: StatedLayout
) -> list[str]:
    """Notes on images that may be masks or copies of images beside them, by their names.

    Args:
        read: class -> its images, for each subset.

    Raises:
        AmbiguousError: more than 1% of the images, and more than one, are named like masks, and
            ``class_level`` is not set.
    """
    by_class = [{n: _stem(n) for n in names} for classes in read for names in classes.values()]
    images, notes = {name: stem for names in by_class for name, stem in names.items()}, []
    if masks := _masks(images):
        globs = tuple(sorted(set(masks.values())))
        what = f"{len(masks)} images have names of masks, or the like, of images beside them, "
        what += f"the first {min(masks)}"
        if len(masks) > max(1, len(images) / 100) and not stated.class_level:
            known = {subset: path.rstrip("/") for subset, path in subsets.items()}
            way = ", and are read as images only where dataset.class_level is set"
            raise AmbiguousError(what + way, known, globs)
        leaves = f"{StatedLayout(leave_out=(*stated.leave_out, *globs))} leaves them out"
        notes.append(f": {what}, and are read as images: {leaves}")
    if twins := [name for names in by_class for name in _twins(names)]:
        first = twins[0]
        other = next(name for name in twins[1:] if images[name] == images[first])
        without = StatedLayout(leave_out=(*stated.leave_out, f"*{_ending(other)}"))
        leaves = f": {without} leaves out the latter"
        alike = {name for name in images if _ending(name) == _ending(other)} <= {*twins}
        notes.append(
            f": {len(twins)} images have the same name as another beside them, except the ending "
            f"({first}, {other}): some may be masks or copies{leaves if alike else ''}"
        )
    return notes


def _masks(stems: dict[str, str]) -> dict[str, str]:
    """Image -> its pattern for dataset.leave_out, for images named like an image beside them with
    ``_mask`` or similar at the end. ``stems``: image -> its path without extension.
    """
    known = set(stems.values())
    found = {name: _BELONGS.search(stem, len(stem) - 24) for name, stem in stems.items()}
    return {
        name: f"*{re.sub('[0-9]+$', '*', end[0])}{_ending(name)}"
        for name, end in found.items()
        if end and name[: end.start()] in known
    }


def _twins(stems: dict[str, str]) -> list[str]:
    """Images of a class that differ from one beside them only in extension, if most images do."""
    counts = Counter(stems.values())
    twins = [name for name, stem in stems.items() if counts[stem] > 1]
    return twins if len(twins) > len(stems) / 2 else []


def _stem(name: str) -> str:
    return posixpath.splitext(name)[0]


def _ending(name: str) -> str:
    return posixpath.splitext(name)[1]
