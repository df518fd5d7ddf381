"""Two studies side by side, such as two networks, recipes or datasets: what copied and frozen
layers cost in each, relative to its own bases, and the difference with its interval.

python -m analysis.compare results/tiny_imagenet-first results/tiny_imagenet

Writes FIRST-SECOND/compare.{csv,pdf,svg,png} below figures/, or below --out.
"""

from argparse import ArgumentParser
from pathlib import Path

from analysis.command import command

if __name__ == "__main__":  # above the imports, which --help does not need

    def settings(parser: ArgumentParser) -> None:
        """Add the options of this command alone."""
        says = "where to write (default: figures/FIRST-SECOND)"
        parser.add_argument("--out", type=Path, metavar="FOLDER", help=says)

    raise SystemExit(command(__spec__.name, __doc__, draws=True, settings=settings, together=True))

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from analysis.csv_files import write_csv
from analysis.page import Page
from analysis.plotting.layout import write
from analysis.plotting.selection import with_share
from analysis.plotting.style import FigureSpec
from analysis.questions import variants
from analysis.statistics.intervals import t_interval, within
from analysis.statistics.linear_model import BLOCK
from analysis.statistics.over_images import difference_interval
from analysis.tables import VARIANT, StudyResults, mixed, split_and_target
from transferability.errors import UserError
from transferability.study.config import current_name

TASK = [name for name in BLOCK if name not in VARIANT]


def compared(first: StudyResults, second: StudyResults, names: tuple[str, str]) -> FigureSpec:
    """The figure of two studies, with a table of a row per kind of split, treatment and n. For both
    studies, accuracy is the statistic that figures of the first show.

    Raises:
        UserError: the studies cannot be compared: different numbers of layers, several kinds of
            network in one study, no treatment and n in common, or no such statistic in the second.
    """
    if first.layers != second.layers:
        raise UserError(
            f"{names[0]} has networks of {first.layers} layers, {names[1]} of {second.layers}: the "
            "same n is another depth; compare networks of equally many layers"
        )
    for tables, name in zip((first, second), names, strict=True):
        if why := mixed(tables.networks):
            raise UserError(f"{name}: {why}")
    same = _checksum(first) is not None and _checksum(first) == _checksum(second)
    statistic = first.metadata["statistic"]
    one, other = (
        _networks(tables, name, same, statistic)
        for tables, name in zip((first, second), names, strict=True)
    )
    if same and (first.without_tasks or second.without_tasks):
        one, other = (rows.assign(task=split_and_target(rows)) for rows in (one, other))
    table = _differences(one, other, statistic)
    if table.empty:
        raise UserError(f"{names[0]} and {names[1]} have no finished treatment of the same n")
    shared = set(zip(table.split_kind, table.treatment, strict=True))
    results = pd.concat([one, other], ignore_index=True)
    results = results.drop(columns=["right", "weights"], errors="ignore")
    in_both = [pair in shared for pair in zip(results.split_kind, results.treatment, strict=True)]
    both = StudyResults(first.metadata, results[in_both])
    drawn = variants.draw(both)
    caption = f"{drawn.caption} {_differ(first, second, names)}"
    title = f"{names[0]} and {names[1]}: what is left when layers are frozen or copied"
    return replace(drawn, name="compare", title=title, caption=caption, table=table)


def _checksum(tables: StudyResults) -> str | None:
    return tables.metadata["dataset"].get("checksum")


def _networks(tables: StudyResults, name: str, same_images: bool, statistic: str) -> pd.DataFrame:
    """The networks of a study, labeled with its name, with ``statistic`` as accuracy. Tasks get the
    name as a prefix unless the studies share their images.
    """
    networks = tables.networks
    if statistic not in networks or networks[statistic].isna().all():
        raise UserError(
            f"{name} has no numbers of the column {statistic}, which the first of two studies is "
            f"compared by: name {name} first, or collect it again"
        )
    networks = with_share(networks.assign(accuracy=networks[statistic]))
    networks = networks.assign(network=name, recipe="")
    return networks if same_images else networks.assign(task=f"{name} " + networks.task)


def _differences(first: pd.DataFrame, second: pd.DataFrame, statistic: str) -> pd.DataFrame:
    """A row per kind of split, treatment and n of both studies: mean accuracy minus base (for
    bases, accuracy) in each, and ``difference``, second minus first. If the studies have networks
    in common, only these are compared.

    Intervals: for several common tasks, Student's t over tasks; for one common task with stored
    predictions, a paired interval over the same images (and seeds, if there are several); without
    common tasks, Welch's t over the tasks of each, if both have several. ``covers`` states which.
    """
    rows = []
    conditions = ["split_kind", "treatment", "n"]
    groups = second.groupby(conditions)
    for condition, own in first.groupby(conditions, sort=False):
        if condition not in groups.groups:
            continue
        theirs = groups.get_group(condition)
        column = "accuracy" if condition[1] == "base" else "over_base"
        own, theirs = (rows[rows[column].notna()] for rows in (own, theirs))
        if own.empty or theirs.empty:
            continue
        keys = [*TASK, "cell"]
        if own.duplicated(keys).any() or theirs.duplicated(keys).any():
            keys.append("split")  # one target with several sources
        both = own.merge(theirs, on=keys, suffixes=("", "_second"))
        *found, covers = (
            _within(both, column, first, second, statistic)
            if len(both)
            else _between(own, theirs, column)
        )
        limit = 1 if column == "accuracy" else 2
        value, low, high = within((found[0], found[1], found[2]), -limit, limit)
        row = dict(zip(conditions, condition, strict=True))
        if len(both):
            own, theirs = both[[column]], both[[f"{column}_second"]].set_axis([column], axis=1)
        row |= {"first": own[column].mean(), "second": theirs[column].mean()}
        row |= {"difference": value, "low": low, "high": high}
        rows.append(row | {"networks in both": len(both), "covers": covers})
    return pd.DataFrame(rows)


def _within(
    both: pd.DataFrame, column: str, first: pd.DataFrame, second: pd.DataFrame, statistic: str
) -> tuple[float, float, float, str]:
    change = both[f"{column}_second"] - both[column]
    by_task = change.groupby([both[c] for c in TASK], dropna=False).mean()
    if both.task.nunique() > 1:
        return *t_interval(by_task), f"{len(by_task)} tasks"
    if statistic != "top1":  # other statistics are not means over images
        return float(change.mean()), np.nan, np.nan, f"no interval: one task, {statistic}"
    images = [_on_images(row, column, first, second) for row in both.itertuples()]
    if all(one is not None for one in images):
        unit = "seeds" if both.seed.is_unique else "networks"
        several = f" and {len(images)} {unit}" if len(images) > 1 else ""
        return *difference_interval(np.array(images)), f"the same images{several}"
    return float(change.mean()), np.nan, np.nan, "no interval: one task, no predictions"


def _on_images(
    row: Any, column: str, first: pd.DataFrame, second: pd.DataFrame
) -> np.ndarray | None:
    """Second minus first on each image, (images,), relative to the bases if ``column`` is
    ``over_base``; None if predictions were not kept.
    """
    parts = []
    for networks, run in ((second, row.run_second), (first, row.run)):
        if "right" not in networks:
            return None
        own = networks[networks.run == run].iloc[0]
        bases = networks[networks.treatment == "base"]
        same = [(a == b) | (pd.isna(a) & pd.isna(b)) for a, b in ((bases[k], own[k]) for k in TASK)]
        base = bases[np.logical_and.reduce(same)]
        known = [own.right] + ([base.right.iloc[0]] if column == "over_base" and len(base) else [])
        if any(right is None for right in known):
            return None
        parts.append(known[0].astype(float) - (known[1] if len(known) > 1 else 0.0))
    return parts[0] - parts[1]


def _between(
    own: pd.DataFrame, theirs: pd.DataFrame, column: str
) -> tuple[float, float, float, str]:
    means = [rows.groupby(TASK, dropna=False)[column].mean() for rows in (theirs, own)]
    value = float(means[0].mean() - means[1].mean())
    counts = [len(mean) for mean in means]
    if min(counts) < 2:
        return value, np.nan, np.nan, "no interval: no task in both, one in one of them"
    with warnings.catch_warnings(action="ignore", category=RuntimeWarning):
        # SciPy's, where the tasks of one study are equal up to rounding, as equal counts of images
        found = stats.ttest_ind(*means, equal_var=False).confidence_interval(0.95)
    return value, float(found.low), float(found.high), f"{counts[1]} and {counts[0]} other tasks"


def _differ(first: StudyResults, second: StudyResults, names: tuple[str, str]) -> str:
    """A sentence on the settings in which two studies differ."""
    found = []
    for part in ("dataset", "network", "recipe"):
        one, other = (  # older tables have settings by their old names
            {current_name(f"{part}.{k}").partition(".")[2]: v for k, v in tables[part].items()}
            for tables in (first.metadata, second.metadata)
        )
        keys = [k for k in one if k in other and one[k] != other[k]]
        keys = [k for k in keys if not isinstance(one[k], (list, tuple, dict))]
        found += [f"{part} {k} {one[k]} and {other[k]}" for k in keys if k != "checksum"]
    return f"They differ in: {'; '.join(found)}." if found else "Their settings are equal."


def main(folders: Sequence[Path], page: Page, out: Path | None = None) -> None:
    if len(folders) != 2:
        raise UserError(f"{len(folders)} folders: two are compared")
    names = tuple(folder.resolve().name for folder in folders)
    if names[0] == names[1]:
        names = tuple(str(folder) for folder in folders)
    first, second = (StudyResults.read(folder) for folder in folders)
    made = compared(first, second, (names[0], names[1]))
    out = out or Path("figures") / "-".join(folder.resolve().name for folder in folders)
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "compare.csv", made.table)
    print(made.table.to_string(index=False, float_format="%.4f", na_rep=""))
    print(made.caption)
    for path in write(made, out, page):
        print(path)
