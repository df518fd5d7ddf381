"""How many layers to keep, freeze and fine-tune: chosen on validation images, reported on test
images.

A *way* to train is a cell with its recipe: what all seeds have in common. Own and random layers are
the paper's controls, and no ways. The best is the one with the highest mean validation accuracy, so
selection on validation makes it optimistic; what is said of it comes of test images, which no
choice has seen.
"""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.page import MARGIN
from analysis.statistics.baseline import (
    ACCURACY,
    BALANCED,
    Majority,
    balanced_accuracy,
    balancing,
    majority,
    too_few,
)
from analysis.statistics.intervals import within
from analysis.statistics.paired import two_way_interval
from analysis.tables import StudyResults
from transferability.study.expand import RATE

WAY = ["cell", "recipe"]
BALANCES = ("balanced", "balanced_low", "balanced_high")
# columns that the tables of before do not have
LATER = ("validation_balanced", *BALANCES)
# The four questions, a family of ways each: what it is for every n.
FAMILIES = {
    "base": "trained from scratch",
    "An.B": "linear classifier on n frozen layers, nothing above",
    "AnB": "n layers copied and frozen, the others random",
    "AnB+": "n layers copied, the others random, all fine-tuned",
    "AnB++": "the network AnB or An.B, trained, then all of it fine-tuned",
    "AnB~all": "all layers copied, the first n frozen",
}


@dataclass(frozen=True)
class Advice:
    """What a study of a pretrained base says, for one number of training images.

    Attributes:
        strategies: one row per strategy: its WAY, what it is in words, n, copied, frozen, short
            (nothing but a classifier above layer n), steps, longer (times as many as most),
            cost (operations of training, best = 1), seeds, validation (mean accuracy), test with
            test_low and test_high (of ``part``, with its interval), behind, low, high (how far it
            is behind the best on the same images, by what was chosen by), apart (whether that
            interval leaves 0 out), run (of its first seed), validation_balanced, balanced,
            balanced_low, balanced_high (means over classes). By validation, the best first, of
            equals the cheapest.
        unfinished: how many more ways lack a network, and are left out.
        part: the images that it is reported on: test, or validation where there are no others.
        optimism: by how much more the best falls from validation to test than all strategies do on
            average: the optimism of picking the best by validation.
        images_per_class: training images per class; None: all that there are.
        top: the layers below the classifier.
        chosen_by: accuracy or balanced accuracy: what "best" and "behind" are of.
        majority: what always answering the commonest class has; None of a single class.
        few: a sentence where the images of ``part`` are too few.
        margin: how far behind the best a way may be and still count as good.
    """

    strategies: pd.DataFrame
    unfinished: int
    part: str
    optimism: float
    images_per_class: int | None
    top: int
    chosen_by: str = ACCURACY
    majority: Majority | None = None
    few: str | None = None
    margin: float = MARGIN

    @property
    def sentences(self) -> list[str]:
        """What to do, what it is worth, and what would serve as well."""
        best = self.best
        covers = "images and seeds" if best.seeds > 1 else "images only: one seed"
        how = " by balanced accuracy" if self.chosen_by == BALANCED else ""
        said = [
            f"Of {len(self.strategies)} strategies, chosen on validation images{how}: "
            f"{best.words} ({best.cell}, recipe {best.recipe}). It has {best.test:.3f} "
            f"[{best.test_low:.3f}, {best.test_high:.3f}] of the {self.part} images right (95%, "
            f"over {covers})."
        ]
        if self.majority:
            said.append(
                f"Its balanced accuracy, the mean over classes, is {best.balanced:.3f} "
                f"[{best.balanced_low:.3f}, {best.balanced_high:.3f}]. {self.majority.sentence}"
            )
        if self.few:
            said.append(self.few)
        if self.unfinished:
            said.append(f"{self.unfinished} more lack a network, and are left out.")
        beside = {"training from scratch": self.scratch, "a linear probe": self.probe}
        for name, other in beside.items():
            if other is not None and other.cell != best.cell:
                said.append(
                    f"It is {_points(other)} above {name} at its best ({other.words}; "
                    f"{other.cell}, {other[self.shown]:.3f})."
                )
        points = f"{100 * self.margin:g} {'point' if self.margin == 0.01 else 'points'}"
        if len(cheap := self.as_good_and_cheaper):
            row = cheap.iloc[0]
            said.append(
                f"Cheaper and as good (less than {points} behind with 95%): {len(cheap)} of them. "
                f"The cheapest takes {row.cost:.0%} of its operations: {row.words} ({row.cell}, "
                f"recipe {row.recipe}), {_points(row)} behind."
            )
        elif (self.strategies.cost < 1).any():
            said.append(f"Nothing cheaper is shown to be as good (less than {points} behind).")
        else:
            said.append("Nothing that was trained is cheaper.")
        if len(cheap := self.open_and_cheaper):
            row = cheap.iloc[0]
            said.append(
                f"Cheaper, with no evidence that they are as good or worse: {len(cheap)} of them. "
                f"The cheapest takes {row.cost:.0%} of its operations: {row.words} ({row.cell}, "
                f"recipe {row.recipe}), {_points(row)} behind."
            )
        if self.part == "test":
            said.append(
                "Estimated optimism from selecting on validation accuracy: "
                f"{self.optimism:+.3f} (its fall from validation to test, beyond the mean of all "
                "strategies)."
            )
        else:
            said.append(
                "There are no test images (dataset.test_fraction): it is reported on the images "
                "that it was chosen on, which is optimistic."
            )
        return said

    @property
    def settings(self) -> list[str]:
        """What trains the best way on all images, beside dataset, network, recipe and weights."""
        *_, rate = self.best.recipe.partition(RATE)
        return [
            "study=pretrained",
            "all_images=true",
            f"cell={self.best.cell}",
            f"recipe.steps={self.best.steps}",
            *([f"recipe.lr={rate}"] if rate else []),
            "seed=0",
        ]

    @property
    def best(self) -> pd.Series:
        return self.strategies.iloc[0]

    @property
    def shown(self) -> str:
        """The column of what was chosen by."""
        return "balanced" if self.chosen_by == BALANCED else "test"

    @property
    def as_good_and_cheaper(self) -> pd.DataFrame:
        """The ways that cost less and are not inferior: their interval excludes that they are as
        much as the margin behind the best. The cheapest first.
        """
        rows = self.strategies[(self.strategies.high < self.margin) & (self.strategies.cost < 1)]
        return rows.sort_values("cost", kind="stable")

    @property
    def open_and_cheaper(self) -> pd.DataFrame:
        """The strategies that cost less, with no evidence that they are as good or that they are
        worse. The cheapest first.
        """
        w = self.strategies
        return w[~w.apart & (w.high >= self.margin) & (w.cost < 1)].sort_values(
            "cost", kind="stable"
        )

    @property
    def scratch(self) -> pd.Series | None:
        """The best way to train from scratch."""
        return first(self.family("base"))

    @property
    def probe(self) -> pd.Series | None:
        """The best linear classifier on frozen layers."""
        return first(self.family("An.B"))

    def family(self, name: str) -> pd.DataFrame:
        """The ways of one of FAMILIES, the best on validation first; the networks at the ends of
        AnB~all are of two.
        """
        w = self.strategies
        again = w.cell.str.endswith("++")
        chosen = {
            "base": w.copied + w.frozen == 0,
            "An.B": w.short & (w.frozen > 0),
            "AnB": ~w.short & (w.frozen > 0) & (w.frozen == w.copied),
            "AnB+": ~w.short & (w.copied > 0) & (w.frozen == 0) & ~again,
            "AnB++": again,
            "AnB~all": ~w.short & (w.copied == self.top) & ~again,
        }[name]
        n = w.frozen if name == "AnB~all" else w.n
        return w[chosen].assign(n=n[chosen])

    def curve(self, name: str) -> pd.DataFrame:
        """Of a family the best on validation at each n, by n; without what trained longer."""
        rows = self.family(name)
        return rows[rows.longer == 1].drop_duplicates("n").sort_values("n", kind="stable")


def first(ways: pd.DataFrame) -> pd.Series | None:
    """The first row; None of none."""
    return None if ways.empty else ways.iloc[0]


def _points(way: pd.Series) -> str:
    return f"{way.behind:.3f} [{way.low:.3f}, {way.high:.3f}]"


def advise(tables: StudyResults, margin: float = MARGIN) -> list[Advice]:
    """The advice of a study of a pretrained base for one task, for each number of training images,
    from the fewest to all; none of any other study, or where predictions were not kept.

    Args:
        margin: how far behind the best a way may be and still count as good.
    """
    networks = tables.networks
    if "given" not in tables.metadata or "right" not in networks or networks.task.nunique() > 1:
        return []
    asked = networks[(networks.treatment == "base") | (networks.source == "A")]
    sizes = sorted(asked.images_per_class.unique(), key=lambda size: (pd.isna(size), size))
    found = [_of_size(tables, asked, None if pd.isna(size) else int(size)) for size in sizes]
    return [replace(advice, margin=margin) for advice in found if advice]


def _of_size(tables: StudyResults, asked: pd.DataFrame, size: int | None) -> Advice | None:
    """The advice for so many training images per class; None of fewer than two treatments."""
    asked = _at(asked, size)
    finished = asked.groupby(WAY).right.transform("count") == asked.seed.nunique()
    done = asked[finished]
    if done.treatment.nunique() < 2:
        return None
    part = "test" if "test_top1" in done and done.test_top1.notna().all() else "validation"
    ways = []
    for _, rows in done.groupby(WAY, dropna=False, sort=False):
        right = {
            row.seed: own.astype(float)
            for row in rows.itertuples()
            if (own := tables.correct(row.run, row.task, part)) is not None
        }
        ways.append((_described(rows, right, tables), right))
    task, by = done.task.iloc[0], tables.metadata.get("choose_by")
    chosen = "validation_balanced" if by == BALANCED else "validation"
    ways.sort(key=lambda way: -way[0][chosen])  # stable
    if by:  # of equals the cheapest; tables that do not say it have the first of the study
        ways.sort(key=lambda way: (-round(way[0][chosen], 12), way[0]["cost"]))
    weights = balancing(tables.predictions[f"{task} {part}"])
    of_best, shares = ways[0][1], []
    for row, right in ways:
        scores = np.stack(list(right.values()))
        row["test"], row["test_low"], row["test_high"] = accuracy(scores)
        row |= dict(zip(BALANCES, within(two_way_interval(scores * weights), 0), strict=True))
        pairs = np.stack([of_best[seed] - right[seed] for seed in of_best])
        shares.append(float((pairs != 0).mean()))
        pairs = pairs * weights if by == BALANCED else pairs
        row["behind"], row["low"], row["high"] = within(two_way_interval(pairs))
        row["apart"] = not row["low"] <= 0 <= row["high"]
    differing = float(np.median(shares[1:])) if len(shares) > 1 else 0.0
    frame = pd.DataFrame([row for row, _ in ways])
    frame["cost"] /= frame.cost[0]
    frame["longer"] = frame.longer / frame.longer.mode()[0]
    falls = frame[chosen] - frame["balanced" if by == BALANCED else "test"]
    left = len(asked[~finished].drop_duplicates(WAY))
    optimism = float(falls[0] - falls.mean())
    top = len(tables.metadata["layer_costs"]) - 1
    best = np.stack(list(of_best.values()))
    found = majority(tables, task, part, best, by == BALANCED)
    few = too_few(best.shape[1], differing, part)
    return Advice(frame, left, part, optimism, size, top, by or ACCURACY, found, few)


def accuracy(right: np.ndarray) -> tuple[float, float, float]:
    """With its interval, (seeds, images) right; where all are, or none is, that of Clopper and
    Pearson: few images that are all right are no proof that every image is.
    """
    estimate = two_way_interval(right)
    if len(np.unique(right)) == 1:
        rest = 1 - 0.025 ** (1 / right.shape[1])
        return (1.0, 1 - rest, 1.0) if right.all() else (0.0, 0.0, rest)
    return within(estimate, 0)


def confusions(tables: StudyResults, advice: Advice, most: int = 12) -> pd.DataFrame:
    """What the best way of an advice predicts for images, over all its seeds.

    Returns:
        Up to ``most`` classes: a row per class, a column per predicted class; of more classes the
        ``most`` frequent mistakes, a row each: shows, ``taken for``, images, share (of the class).
    """
    networks, best = tables.networks, advice.best
    own = networks[(networks.cell == best.cell) & (networks.recipe == best.recipe)]
    own = _at(own, advice.images_per_class)
    names = tables.metadata["dataset"]["class_names"]
    task = own.task.iloc[0]
    classes = [names[c] for c in tables.predictions[f"{task} classes"]]
    matrix = np.zeros((len(classes), len(classes)), int)
    for run in own.run:
        taken = tables.predictions[f"{run} {advice.part}"]
        np.add.at(matrix, (tables.predictions[f"{task} {advice.part}"], taken), 1)
    if len(classes) <= most:
        return pd.DataFrame(matrix, columns=classes).assign(**{"": classes})[["", *classes]]
    wrong = np.where(np.eye(len(classes), dtype=bool), 0, matrix)
    places = np.argsort(-wrong, axis=None, kind="stable")[:most]
    rows = [divmod(int(place), len(classes)) for place in places]
    return pd.DataFrame(
        {
            "shows": [classes[i] for i, _ in rows],
            "taken for": [classes[j] for _, j in rows],
            "images": [wrong[i, j] for i, j in rows],
            "share": [wrong[i, j] / matrix[i].sum() for i, j in rows],
        }
    )


def _at(networks: pd.DataFrame, size: int | None) -> pd.DataFrame:
    """The networks that trained on so many images per class; None: on all."""
    sizes = networks.images_per_class
    return networks[sizes.isna() if size is None else sizes == size]


def summary(advice: list[Advice]) -> pd.DataFrame:
    """What more training images are worth: a row per number of images per class, the accuracies of
    the best way, from scratch, of the best linear classifier, with all layers copied and frozen,
    and with all copied and fine-tuned, each the best of its kind on validation.
    """
    rows = []
    for a in advice:
        whole = a.family("AnB~all")
        kinds = {
            "from scratch": a.scratch,
            "linear classifier": a.probe,
            "all frozen": first(whole[whole.n == a.top]),
            "all fine-tuned": first(whole[whole.n == 0]),
        }
        rows.append(
            {
                "images a class": a.images_per_class or "all",
                "best": f"{a.best.cell}, {a.best.recipe}",
                a.part: a.best[a.shown],
                "low": a.best[f"{a.shown}_low"],
                "high": a.best[f"{a.shown}_high"],
                **{name: np.nan if way is None else way[a.shown] for name, way in kinds.items()},
                "optimism": a.optimism,
                "seeds": a.best.seeds,
            }
        )
    return pd.DataFrame(rows)


def _described(rows: pd.DataFrame, right: dict[int, np.ndarray], tables: StudyResults) -> dict:
    """A way's row, before it is compared."""
    first = rows.iloc[0]
    costs, short = tables.metadata["layer_costs"], "." in first.cell
    top = first.n if short else len(costs)
    trained = range(first.frozen, top)
    return {
        **first[[*WAY, "n", "copied", "frozen"]],
        "short": short,
        "steps": int(first.images // tables.metadata["recipe"]["batch_size"]),
        "longer": first.images,
        "words": words(first, short, len(costs) - 1),
        "cost": first.images * (sum(costs[:top]) + 2 * sum(costs[i] for i in trained)),
        "seeds": len(right),
        "validation": rows.top1.mean(),
        "validation_balanced": np.mean(
            [
                balanced_accuracy(*(tables.predictions[f"{of} validation"] for of in (run, task)))
                for run, task in zip(rows.run, rows.task, strict=True)
            ]
        ),
        "run": first.run,
    }


def words(row: pd.Series, short: bool, top: int) -> str:
    """What a way does, as one would tell a colleague."""
    if row.treatment == "base":
        return "train from scratch"
    base = f"{'layer' if row.copied == 1 else 'layers'} of the pretrained network"
    if row.cell.endswith("++"):
        above = "a linear classifier" if short else "randomly initialized layers"
        above = "a randomly initialized head" if not short and row.copied == top else above
        return f"keep {row.n} {base}, train {above} on them, then fine-tune all"
    if short:
        then = (
            "frozen, and a linear classifier" if row.frozen else "and a classifier, fine-tune all"
        )
        return f"keep {row.n} {base}, {then}"
    kept = f"copy all {top} {base}" if row.copied == top else f"copy {row.copied} {base}"
    frozen = f"freeze {row.frozen}" if row.frozen else "freeze none"
    rest = "" if row.copied == top else ", the others random"
    return f"{kept}, {frozen}{rest}"
