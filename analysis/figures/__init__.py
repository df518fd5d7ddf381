"""The figures of a study, from its tables alone (never from the run store).

Every mark is one network. A network that is missing from the study is never dropped silently: the
caption counts it.

A figure is a module here with ``draw(tables)``, which returns the drawing, or in words why the
study has none. A new one is a file, and its name in FIGURES (and in the import above it).
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from analysis.figures import (
    accuracy,
    activity,
    advice,
    curves,
    decomposition,
    design,
    dissimilar,
    distance,
    filters,
    predictors,
    similarity,
    volume,
)
from analysis.style import Drawing, compose, save
from analysis.tables import Tables
from transferability.files import remove_leftovers

# In the order in which they are drawn. The design of the study, which needs no networks,
# is not one of them.
FIGURES = {
    "advice": advice,
    "accuracy": accuracy,
    "distance": distance,
    "dissimilar": dissimilar,
    "decomposition": decomposition,
    "volume": volume,
    "predictors": predictors,
    "filters": filters,
    "similarity": similarity,
    "activity": activity,
    "curves": curves,
}


def drawings(tables: Tables) -> tuple[list[Drawing], dict[str, str]]:
    """Every figure that the study has networks for, and for the others the reason why not."""
    made = {name: figure.draw(tables) for name, figure in FIGURES.items()}
    encoding = tables.about["dataset"].get("encoding")  # of raw pixels there is nothing to say
    label = f" Images: {encoding}." if encoding else ""
    return (
        [
            replace(d, caption=f"{d.caption}{label}")
            for d in made.values()
            if isinstance(d, Drawing)
        ],
        {name: why for name, why in made.items() if isinstance(why, str)},
    )


def write_figures(folder: Path, formats: Sequence[str]) -> tuple[list[Path], dict[str, str]]:
    """Draw every figure of the folder's tables into it;
    paths, and the figures that were not drawn with the reason.
    """
    tables = Tables.read(folder)
    made, absent = drawings(tables)
    remove_leftovers(folder)
    paths = []
    for drawing in [design.draw(tables.layers), *made]:
        paths += save(compose(drawing), folder / drawing.name, formats)
    return paths, absent
