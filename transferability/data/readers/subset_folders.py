"""Find the subset of images by their folders, where a table or pattern defines the classes."""

from collections.abc import Collection
from dataclasses import dataclass

from transferability.data.readers.offers import StatedLayout
from transferability.data.readers.subsets import (
    WORDS,
    AmbiguousError,
    Folders,
    look_like_subsets,
    stated_subsets,
    subset_of_folder,
)
from transferability.errors import UserError

LEFT_OUT = "pred"  # the subset of images that are not for training, validation or test


@dataclass(frozen=True)
class _Place:
    """The first folder in an image's path that is named like a subset."""

    above: str
    folder: str
    subset: str

    @property
    def path(self) -> str:
        return f"{self.above}{self.folder}"


def subsets_by_folder(
    folders: Folders, stated: StatedLayout, labeled: Collection[str]
) -> dict[str, str]:
    """Image -> its subset, as ``stated`` or by the names of the folders above it.

    Empty if no ``labeled`` image is in a folder named like a subset, if all of them are in one
    subset other than training, or if train is one of several classes.

    Raises:
        AmbiguousError: folders of ``labeled`` images look like subsets, some of these images lie
            beside the folders of subsets, or no folder is named like training images.
        UserError: two sibling folders are named like the same subset.
    """
    if stated.subsets is not None:
        return _stated(folders, stated.subsets)
    places = {name: place for name in folders.images if (place := _place(name))}
    own = {name: places[name] for name in labeled if name in places}
    _check_look(labeled)
    known = {place.subset: place.path for place in own.values()}
    outside = sorted(name for name in labeled if name not in own)
    if not own or (len(known) == 1 and "train" not in known and not outside):
        return {}
    if outside:
        if {*known} == {"train"} and _beside(own, labeled) > 1:
            return {}  # train may be a class of vehicles
        beside = ", ".join(sorted({f"{place.path}/" for place in own.values()})[:3])
        raise AmbiguousError(f"{outside[0]} lies beside {beside} and is in no subset", known)
    if "train" not in known:
        raise AmbiguousError(
            f"{', '.join(f'{path}/' for path in known.values())} are named as subsets, but there "
            "is no train/",
            known,
        )
    _check_once(own, str(folders.tree.source))
    return {name: place.subset for name, place in places.items()}


def _stated(folders: Folders, subsets: dict[str, str]) -> dict[str, str]:
    paths = {path: subset for subset, path in stated_subsets(folders, subsets).items()}
    others = {name: LEFT_OUT for name in folders.images} if paths else {}
    inside = {
        n: subset for path, subset in paths.items() for n in folders.images if n.startswith(path)
    }
    return others | inside


def _place(image: str) -> _Place | None:
    parts = image.split("/")[:-1]
    for depth, folder in enumerate(parts):
        if subset := subset_of_folder(folder):
            return _Place("".join(f"{part}/" for part in parts[:depth]), folder, subset)
    return None


def _beside(own: dict[str, _Place], labeled: Collection[str]) -> int:
    """The number of folders beside those of subsets that are not named like subsets."""
    above = next(iter(own.values())).above
    inside = [name.removeprefix(above) for name in labeled if name.startswith(above)]
    names = {name.split("/")[0] for name in inside if "/" in name}
    return sum(subset_of_folder(name) is None for name in names)


def _check_look(labeled: Collection[str]) -> None:
    """Check that the first folders in which the paths of labeled images differ do not look like
    subsets.
    """
    at, below = "", {name.split("/")[0] for name in labeled if "/" in name}
    while len(below) == 1 and all(name.startswith(f"{at}{min(below)}/") for name in labeled):
        at = f"{at}{min(below)}/"
        inside = [name.removeprefix(at) for name in labeled]
        below = {name.split("/")[0] for name in inside if "/" in name}
    if len(below) > 1 and look_like_subsets(below):
        named = {subset: f"{at}{name}" for name in below if (subset := subset_of_folder(name))}
        shown = ", ".join(f"{at}{name}/" for name in sorted(below)[:3])
        raise AmbiguousError(f"{shown} look like subsets of a dataset", named)


def _check_once(own: dict[str, _Place], source: str) -> None:
    """Check that no two sibling folders are named like the same subset."""
    seen: dict[tuple[str, str], str] = {}
    for place in own.values():
        other = seen.setdefault((place.above, place.subset), place.folder)
        if other != place.folder and place.subset != LEFT_OUT:
            raise UserError(
                f"dataset.source={source}: {other} and {place.folder} are both named "
                f'as {WORDS[place.subset]} images: set "dataset.parts={{train: FOLDER, val: '
                'FOLDER}"'
            )
