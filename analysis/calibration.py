"""Does the study measure what is true by construction?

The synthetic images have tasks that share rules up to a known level.

python -m analysis.calibration FOLDER    writes FOLDER/calibration.{csv,pdf,svg,png} and
                                         half_layers.csv, one row per grammar, from the folders
                                         of analysis.collect in FOLDER

Each folder is a study of natural/man-made with base, BnB and AnB on a different dataset: another
grammar (dataset.grammar.seed), or another number of levels that both families share
(dataset.grammar.shared_levels). The more levels are shared, the higher the layer at which the
features of one family stop being useful for the other.
"""

from analysis.command import command

if __name__ == "__main__":  # above the imports, which --help does not need
    raise SystemExit(command(__spec__.name, __doc__, draws=True))


from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis.csv_files import write_csv
from analysis.page import Page
from analysis.plotting import plot
from analysis.plotting.layout import write
from analysis.plotting.style import BLUE, INK, ORANGE, RED, FigureSpec, Panel, Style, assign_styles
from analysis.statistics.decomposition import shape
from analysis.statistics.intervals import t_interval
from analysis.statistics.linear_model import base_accuracy
from analysis.tables import StudyResults
from transferability.errors import UserError
from transferability.files import remove_leftovers

LOOKS = [(ORANGE, "o"), (RED, "D"), ("#542788", "^"), (BLUE, "s")]  # by shared level
# share of the base's accuracy; a smaller loss has no half-loss layer
LEAST_LOSS = 0.05


def read(folder: Path) -> tuple[pd.DataFrame, int]:
    """The networks of all studies below ``folder``, and the number of levels of their grammars.

    Added columns: ``shared`` (number of shared levels), ``grammar`` (its seed), and ``share``
    (accuracy divided by that of the base of the same block).

    Raises:
        UserError: there is no study, one has no synthetic images, or grammars differ in levels.
    """
    paths = sorted(path.parent for path in folder.glob("*/about.json"))
    if not paths:
        raise UserError(f"{folder} has no folders of analysis.collect")
    parts, levels = [], set()
    for path in paths:
        tables = StudyResults.read(path)
        grammar = tables.metadata["dataset"].get("grammar")
        if grammar is None:
            raise UserError(f"{path} is not a study of synthetic images (dataset=procedural)")
        levels.add(grammar["levels"])
        networks = tables.networks
        share = networks.accuracy / base_accuracy(networks)
        parts.append(
            networks.assign(shared=grammar["shared_levels"], grammar=grammar["seed"], share=share)
        )
    if len(levels) > 1:
        raise UserError(
            f"{folder} mixes grammars of {' and '.join(map(str, sorted(levels)))} levels"
        )
    return pd.concat(parts, ignore_index=True), levels.pop()


def half_layers(networks: pd.DataFrame) -> pd.DataFrame:
    """The layer at which half of the specificity loss (BnB - AnB) has occurred.

    The loss is the mean of both directions: if one of the two bases is better, its layers transfer
    better, and those of the other worse, whatever the tasks share.

    Returns:
        A row per shared level, grammar and seed: shared, grammar, seed, base (accuracy), loss (at
        the last n), half_layer (interpolated; NaN if the loss never exceeds 5% of the base's
        accuracy). Combinations that lack a network have no row.

    Raises:
        UserError: several networks of one cell, or no complete combination.
    """
    rows, layers = [], sorted(set(networks[networks.treatment == "AnB"].n))
    for key, own in networks.groupby(["shared", "grammar", "seed"]):
        if own[["target", "treatment", "n"]].duplicated().any():
            raise UserError(
                f"shared level {key[0]}, grammar {key[1]}, seed {key[2]}: "
                "several networks of one cell"
            )
        accuracy = (
            own.set_index(["treatment", "n", "target"])
            .accuracy.unstack()
            .reindex(columns=["A", "B"])
        )
        curves = accuracy.mean(axis=1, skipna=False).unstack("treatment").reindex([0, *layers])
        curves = curves.reindex(columns=["base", "BnB", "AnB"])
        base, loss = curves.base[0], (curves.BnB - curves.AnB)[layers]
        if np.isnan(base) or loss.isna().any():
            continue
        half = shape(layers, loss.to_numpy())[0] if loss.max() > LEAST_LOSS * base else np.nan
        names = ("shared", "grammar", "seed", "base", "loss", "half_layer")
        rows.append(dict(zip(names, (*key, base, loss.iloc[-1], half), strict=True)))
    if not rows:
        raise UserError("no grammar has its bases, BnB and AnB finished in both directions")
    return pd.DataFrame(rows)


def summary(grammars: pd.DataFrame) -> pd.DataFrame:
    """Means of base, loss and half-loss layer per shared level; the half-loss layer has its
    interval by Student's t over grammars.
    """
    rows = []
    for shared, own in grammars.groupby("shared"):
        by_grammar = own.groupby("grammar").half_layer.mean()
        found = by_grammar.dropna()
        value, low, high = t_interval(found)
        counts = {"grammars": len(by_grammar), "without loss": len(by_grammar) - len(found)}
        means = {"base": own.base.mean(), "loss at the last n": own.loss.mean()}
        rows.append(
            {
                "shared levels": shared,
                **counts,
                **means,
                "half-loss layer": value,
                "low": low,
                "high": high,
            }
        )
    return pd.DataFrame(rows)


def slope(grammars: pd.DataFrame) -> tuple[float, float, float, int]:
    """The shift of the half-loss layer per additional shared level: mean, 95% interval (two
    values) and number of grammars.

    Each grammar gives a least-squares slope; the interval is Student's t over grammars.
    """
    means = grammars.groupby(["grammar", "shared"]).half_layer.mean().dropna().reset_index()
    slopes = pd.Series(
        [
            np.polyfit(own.shared, own.half_layer, 1)[0]
            for _, own in means.groupby("grammar")
            if len(own) > 1
        ]
    )
    return *t_interval(slopes), len(slopes)


def drawing(networks: pd.DataFrame, levels: int) -> FigureSpec:
    found = half_layers(networks)
    table, done = summary(found), networks[networks.accuracy.notna()]
    looks = {
        shared: Style(f"both tasks share the lowest {shared} of {levels} levels", color, marker)
        for shared, (color, marker) in assign_styles(
            sorted(set(done.shared)), LOOKS, "shared levels"
        ).items()
    }
    return FigureSpec(
        "calibration",
        "Calibration: where transfer breaks, against where the tasks stop sharing rules "
        "(synthetic images)",
        _caption(networks, found),
        [
            Panel("AnB: frozen layers of the other task", _shares(done, looks, "AnB")),
            Panel("BnB: frozen same-task layers (control)", _shares(done, looks, "BnB")),
            Panel(
                "Where half of the specificity loss (BnB − AnB) happens",
                lambda axes: _half_layers(axes, found, table, looks, levels, done.n.max()),
            ),
        ],
        list(looks.values()),
        table,
        columns=3,
    )


def _caption(networks: pd.DataFrame, found: pd.DataFrame) -> str:
    done = networks[networks.accuracy.notna()]
    studies = networks[["shared", "grammar", "seed"]].drop_duplicates()
    missing, seeds = len(networks) - len(done), done.seed.nunique()
    remark, moved = "", ""
    if absent := int(found.half_layer.isna().sum()):
        remark += (
            f"; {absent} lost less than {LEAST_LOSS:.0%} of the base's accuracy at every n "
            "and have no mark"
        )
    if lacking := len(studies) - len(found):
        remark += f"; {lacking} lack a network and have no mark"
    value, low, high, grammars = slope(found)
    if grammars > 1:
        moved = (
            f" One more shared level moves the half-loss layer by {value:.2f} [{low:.2f}, "
            f"{high:.2f}] layers "
        )
        moved += f"({grammars} grammars)."
    return (
        f"{len(done)} networks{f' ({missing} are missing)' if missing else ''}: "
        f"{done.grammar.nunique()} grammars, both directions, {seeds} training "
        f"{'seed' if seeds == 1 else 'seeds'}. Small marks: one network (right: one grammar, mean "
        f"of both directions{remark}); lines: means; n = 0 is the base. Black: mean and 95% "
        f"interval over grammars.{moved} Accuracy: top-1 on all validation images of the task at "
        "the end of training."
    )


def _shares(
    networks: pd.DataFrame, looks: dict[int, Style], treatment: str
) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        axes.axhline(1, color=INK, lw=0.8, ls=":")
        for shared, shift in plot.side_by_side(looks, 0.14).items():
            mark = looks[shared]
            own = networks[(networks.shared == shared) & (networks.treatment == treatment)]
            line = own.groupby("n").share.mean()
            axes.plot([0, *line.index], [1, *line], color=mark.color, lw=1.8, zorder=2)
            tips = [
                f"grammar {r.grammar}, {r.cell}: {r.accuracy:.3f}, {r.share:.2f} of base"
                for r in own.itertuples()
            ]
            plot.scatter(
                axes, own.n + shift, own.share, Style("", mark.color, mark.marker, size=16), tips
            )
        axes.set_ylim(0, max(1.1, networks.share.max() * 1.03))
        plot.layer_axis(axes, networks.n.max())
        axes.set_ylabel("Accuracy as a share of the base's")

    return paint


def _half_layers(
    axes: Axes,
    found: pd.DataFrame,
    table: pd.DataFrame,
    looks: dict[int, Style],
    levels: int,
    last: int,
) -> None:
    for row in found.itertuples():
        mark = looks[row.shared]
        tips = [f"grammar {row.grammar}, seed {row.seed}: {row.half_layer:.2f}"]
        x = row.shared - 0.2 + 0.04 * row.grammar
        plot.scatter(
            axes, [x], [row.half_layer], Style("", mark.color, mark.marker, False, size=26), tips
        )
    middle, low, high = table["half-loss layer"], table.low, table.high
    axes.errorbar(
        table["shared levels"],
        middle,
        [middle - low, high - middle],
        color=INK,
        fmt="o-",
        lw=1.3,
        capsize=3,
    )
    axes.set_xticks(sorted(looks))
    axes.set_xlim(min(looks) - 0.5, max(looks) + 0.4)
    axes.set_ylim(0, last + 0.5)
    axes.set_xlabel(f"Levels that both tasks share (of {levels}, from below)")
    axes.set_ylabel("Layer n by which half of it has happened")


def main(folder: Path, page: Page) -> None:
    networks, levels = read(folder)
    made, by_grammar = drawing(networks, levels), half_layers(networks)
    remove_leftovers(folder)
    write_csv(folder / "calibration.csv", made.table)
    write_csv(folder / "half_layers.csv", by_grammar)
    paths = write(made, folder, page)
    print(by_grammar.to_string(index=False, float_format="%.3f"))
    print(made.table.to_string(index=False, float_format="%.3f"))
    print(made.caption)
    for path in paths:
        print(path)
