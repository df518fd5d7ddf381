"""Differences with the split as the unit, which generalize to other splits of the same classes.

Networks of one split share classes, images and bases, and the effect of a treatment may differ
between splits. Each split therefore gives one value, the mean over its tasks (both directions) and
their seeds, and the interval is Student's t over these values. The interval covers everything that
differs between splits: classes, networks, seeds, and validation images if splits do not share them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pandas as pd
from scipy import stats
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from analysis.statistics.intervals import within
from analysis.statistics.linear_model import (
    BASE,
    Condition,
    Contrast,
    blocks_of,
    conditions_of,
    least_error,
    limit_of,
)

LEAST = 3  # number of splits from which on the verdict follows the interval over splits


@dataclass(frozen=True)
class OverSplits:
    """A difference over splits.

    Attributes:
        value: the mean over splits.
        error: the standard error of the mean, at least ``least_error``; NaN for a single split.
        df: degrees of freedom of the error.
        splits: the number of splits; if no split has both sides of the difference, the number per
            side. Both sides are then assumed to vary equally from split to split.
        limit: the largest possible value of the difference.
    """

    COLUMNS: ClassVar = ("splits", "over splits", "splits low", "splits high")

    value: float
    error: float
    df: int
    splits: tuple[int, ...]
    limit: float = np.inf

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        if not self.df:
            return np.nan, np.nan
        half = stats.t.isf((1 - confidence) / 2, self.df) * self.error
        ends = (self.value, self.value - half, self.value + half)
        return within(ends, -self.limit, self.limit)[1:]

    @property
    def decides(self) -> bool:
        """Whether there are enough splits for a verdict that holds for other splits."""
        return max(self.splits) >= LEAST

    @property
    def count(self) -> str:
        return " + ".join(map(str, self.splits))

    def columns(self, confidence: float = 0.95) -> dict[str, str | float]:
        """Columns of a table, next to those of the model's estimate."""
        low, high = self.interval(confidence)
        values = (self.count, self.value, low, high)
        return dict(zip(self.COLUMNS, values, strict=True))


def splits_of(networks: pd.DataFrame) -> pd.Series:
    """The name of each network's split.

    Splits that share a task are merged into one, as their networks are not independent.
    """
    tasks, _ = pd.factorize(networks.task)
    names, known = pd.factorize(networks.split)
    ones, shape = np.ones(len(networks)), (len(networks) + len(known),) * 2
    graph = coo_matrix((ones, (tasks, len(networks) + names)), shape)
    label = pd.Series(connected_components(graph, directed=False)[1][len(networks) + names])
    own = (
        pd.Series(networks.split.to_numpy()).groupby(label).agg(lambda x: " + ".join(sorted({*x})))
    )
    return pd.Series(label.map(own).to_numpy(), networks.index, dtype=object)


class BySplit:
    """The finished networks of a study as mean accuracies by block and condition.

    Attributes:
        conditions: the columns of ``accuracy``.
        accuracy: (blocks, conditions), NaN where there is no network. An additional last axis, of
            studies of the same design, is preserved.
        tasks, splits: the task and split of each block.
    """

    def __init__(self, networks: pd.DataFrame):
        rows = networks[networks.accuracy.notna()]
        blocks, conditions = blocks_of(rows), conditions_of(rows)
        self.least = least_error(rows)
        self.conditions: list[Condition] = sorted(set(conditions))
        known = pd.DataFrame({"block": blocks, "split": splits_of(rows), "task": rows.task})
        known = known.drop_duplicates("block").set_index("block")
        table = rows.accuracy.groupby([blocks, conditions], sort=False).mean().unstack()
        table = table.reindex(index=known.index, columns=pd.Index(self.conditions, tupleize_cols=0))
        self.accuracy = table.to_numpy(float)
        self.tasks, self.splits = known.task.to_numpy(str), known.split.to_numpy(str)

    def layers(self, treatment: str) -> dict[str, list[set[int]]]:
        """The values of n in each block, per split with networks of the treatment."""
        there: dict[str, list[set[int]]] = {}
        for split, row in zip(self.splits, self.accuracy, strict=True):
            known = [c for c, value in zip(self.conditions, row, strict=True) if value == value]
            if own := {n for name, n in known if name == treatment}:
                there.setdefault(split, []).append(own)
        return there

    def values(self, weights: Contrast) -> list[tuple[list[str], np.ndarray]]:
        """The difference in each split that has it: the names of the splits, and (splits, ...).
        Splits with fewer directions than others are left out.

        The difference is within tasks if some task has all conditions. Otherwise each treatment is
        relative to the base of its task, and treatments are added within the split. If no split has
        all treatments either, the list has one entry per treatment.
        """
        if not {c for c in weights if weights[c]} <= set(self.conditions):
            return []
        wanted = np.array([weights.get(c, 0.0) for c in self.conditions])
        if whole := self._means(self.accuracy, wanted):
            return [_stacked(whole, list(whole))]
        if BASE not in self.conditions:
            return []
        base = self.conditions.index(BASE)
        relative = self.accuracy - self.accuracy[:, base : base + 1]
        named = {c[0] for c in weights if weights[c]} - {BASE[0]}
        sides = [
            self._means(
                relative,
                np.array(
                    [w * (c[0] == name) for c, w in zip(self.conditions, wanted, strict=True)]
                ),
            )
            for name in sorted(named)
        ]
        if common := [split for split in sides[0] if all(split in side for side in sides)]:
            return [(common, sum((_stacked(side, common)[1] for side in sides), np.zeros(())))]
        return [_stacked(side, list(side)) for side in sides] if all(sides) else []

    def estimate(self, weights: Contrast) -> OverSplits | None:
        """The difference over splits; None if it cannot be computed in any split."""
        if not (sides := self.values(weights)):
            return None
        value, error, df = over(*(values for _, values in sides))
        counts, limit = tuple(len(names) for names, _ in sides), limit_of(weights)
        wide = max(float(error), self.least * limit)  # NaN stays NaN
        return OverSplits(float(value), wide, df, counts, limit)

    def _means(self, accuracy: np.ndarray, wanted: np.ndarray) -> dict[str, np.ndarray]:
        """The weighted sum in each block with all of its conditions, averaged over the blocks of a
        task, then over the tasks of a split.
        """
        named = np.flatnonzero(wanted)
        parts = np.moveaxis(accuracy[:, named], 1, -1) @ wanted[named]
        whole = ~np.isnan(parts.reshape(len(parts), -1)).any(axis=1)
        by_split: dict[str, dict[str, list[np.ndarray]]] = {}
        for block in np.flatnonzero(whole):
            tasks = by_split.setdefault(self.splits[block], {})
            tasks.setdefault(self.tasks[block], []).append(parts[block])
        most = max(map(len, by_split.values()), default=0)
        return {
            split: np.mean([np.mean(blocks, axis=0) for blocks in tasks.values()], axis=0)
            for split, tasks in by_split.items()
            if len(tasks) == most
        }


def over(*sides: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """The sum of the sides' means, its standard error, and the degrees of freedom.

    Args:
        sides: the values of each side, (splits, ...). The variance is pooled over sides.
    """
    centers = [side.mean(axis=0) for side in sides]
    df = sum(len(side) - 1 for side in sides)
    squares = sum(((s - c) ** 2).sum(axis=0) for s, c in zip(sides, centers, strict=True))
    variance = squares / df if df else np.full_like(squares, np.nan)
    return sum(centers), np.sqrt(variance * sum(1 / len(side) for side in sides)), df


def _stacked(values: dict[str, np.ndarray], names: Sequence[str]) -> tuple[list[str], np.ndarray]:
    return list(names), np.stack([values[name] for name in names])
