"""Small studies that ask one question, each with one figure and one table, from the tables of analysis.collect alone.

python -m analysis.questions FOLDER      FOLDER/QUESTION.{csv,pdf,svg,png}, the question by what the study varies
                                         (with random filters also the figure "activity", of what becomes of them):

volume      images a class of the target task: train from scratch, freeze n, or fine-tune n? (study=reduced)
preserved   copied layers above the frozen ones: A3B~1 copies 4 and freezes 3 (study=preserved)
longer      base networks with a longer recipe, beside AnB+ and BnB+ (study=longer)
variants    everything else that differs between parts: kinds of network, recipes (study=random-filters, batchnorm)
replicates  splits and seeds: do losses and gains at one n hold for other classes? (study=replicates)
"""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from analysis import plot
from analysis.captions import counts, statistic
from analysis.claims import AROUND, MIDDLE
from analysis.decomposition import QUANTITIES, decompose
from analysis.figures import activity
from analysis.paper import published
from analysis.stats import base_accuracy, estimate, mean, minus, t_interval
from analysis.style import (
    FAINT,
    INK,
    KINDS_OF_NETWORK,
    PAPER,
    TREATMENTS,
    Drawing,
    Mark,
    Panel,
    compose,
    save,
    tell_apart,
)
from analysis.tables import VARIANT, Tables, kinds, tool, write_csv
from transferability.errors import UserError
from transferability.files import remove_leftovers

KINDS = {"random": "similar tasks", "user": "two tasks", "natural-manmade": "dissimilar tasks", "all": "all classes"}
KINDS_OF_SPLIT = [("#b2182b", "D", "-"), ("#e08214", "h", "--"), ("#1f4e9c", "s", "-"), ("#8a9a00", "^", "--")]
DIP = {n: weight for (_, n), weight in minus(mean("BnB", AROUND), mean("BnB", MIDDLE)).items()}  # of BnB's accuracy
REPLICATED = ("co-adaptation loss", "specificity loss", "retraining gain", "gain over base", "gain over control")
MEAN = Mark("mean, 95% interval", INK, "o", line="-", size=60)
TASK = ["task", "seed", "images_per_class"]
SAME = [*TASK, "split", "split_kind", "cell", "treatment", "n"]


def question(tables: Tables) -> Drawing:
    """The figure of what the study varies.

    Raises:
        UserError: it varies nothing, or nothing of it is finished.
    """
    networks = tables.networks[tables.networks.accuracy.notna()]
    treated = networks[networks.treatment != "base"]
    if treated.images_per_class.nunique() > 1:
        return volume(tables)
    if treated.treatment.str.contains("~").any():
        return preserved(tables)
    if len(treated[VARIANT].drop_duplicates()) > 1:
        return variants(tables)
    if len(treated) and len(networks[VARIANT].drop_duplicates()) > 1:
        return longer(tables)
    near = treated[treated.split_kind != "natural-manmade"]
    if len(near[["split", "seed"]].drop_duplicates()) > 1:
        return replicates(tables)
    raise UserError(
        "nothing to compare: the finished networks differ neither in network, recipe, images a class, split or seed, "
        "nor are there preserved layers (A3B~1)"
    )


# ----------------------------------------------------------------------------------------------------------------------
def variants(tables: Tables) -> Drawing:
    """Kinds of network or recipe side by side: what is left of the own base's accuracy, a panel a treatment."""
    networks = _with_share(tables.networks)
    names = kinds(networks)
    looks = tell_apart(names.unique(), KINDS_OF_NETWORK, "kinds of network")
    marks = {name: Mark(name, colour, marker, line=line) for name, (colour, marker, line) in looks.items()}
    networks = networks.assign(variant=names)
    treated = networks[networks.treatment != "base"]

    def panel(kind: str, treatment: str) -> Panel:
        rows = networks[(networks.split_kind == kind) & networks.treatment.isin(["base", treatment])]

        def paint(axes: Axes) -> None:
            axes.axhline(1, color=INK, lw=0.8, ls=":")
            for place, (name, mark) in enumerate(marks.items()):
                own = rows[(rows.variant == name) & rows.share.notna()]
                shift = 0.08 * (place - (len(marks) - 1) / 2)
                line = own.groupby("n").share.mean()
                axes.plot(line.index + shift * (line.index > 0), line, mark.line, color=mark.colour, lw=1.5, zorder=2)
                own = own[own.treatment != "base"]
                plot.scatter(axes, own.n + shift, own.share, mark, plot.tips_of(own))
            low, high = axes.get_ylim()
            axes.set_ylim(min(low, 0.95), max(high, 1.02))
            if (chance := (rows.share / rows.accuracy / rows.classes).mean()) > low:
                plot.chance(axes, chance, "left")
            axes.set_ylabel("Accuracy as a share of the base's")
            plot.layer_axis(axes, rows.n.max())

        label = TREATMENTS[treatment].label if treatment in TREATMENTS else treatment
        width = 4.6 if len(shown) > 1 else 7.4  # inches; alone it has the legend's width
        return Panel(f"{label}\n({', '.join(rows.split.unique())})", paint, width)

    shown = treated[treated.share.notna()][["split_kind", "treatment"]].drop_duplicates()
    bases = networks[networks.treatment == "base"].groupby("variant", sort=False).accuracy.mean()
    return Drawing(
        "variants",
        f"{len(marks)} kinds of network: what is left when layers are frozen or copied ({_where(tables)})",
        f"{counts(networks)} A mark is one network, shifted sideways for clarity, lines are means, 1 is the base of "
        "the same kind. Mean accuracy of "
        f"the bases: {'; '.join(f'{name} {value:.3f}' for name, value in bases.items())}. {statistic(tables)}",
        [panel(*row) for row in shown.itertuples(index=False)],
        list(marks.values()),
        _variant_table(networks),
        columns=2,
    )


def _variant_table(networks: pd.DataFrame) -> pd.DataFrame:
    """For each variant, kind of split and treatment: means, and the difference from the first variant, cell by cell.

    ``difference`` is that of accuracy minus own base, in networks of the same split, cell and seed, averaged over n.
    ``dip`` is how much lower BnB lies in the middle, n = 4, 5, than at n = 1, 2, 7 (the paper's sign of co-adaptation).
    Intervals are Student's t over tasks (classes, seed): networks of one task start from one base and share its
    luck.
    """
    done = networks[networks.accuracy.notna()]
    names = list(done.variant.unique())
    first = done[done.variant == names[0]]
    rows = []
    for (name, kind, treatment), own in done.groupby(["variant", "split_kind", "treatment"], sort=False):
        values = {"networks": len(own), "accuracy": own.accuracy.mean(), "share of the base's": own.share.mean()}
        by_n = {f"share at n={n}": share for n, share in own.groupby("n").share.mean().items() if n > 0}
        row = {"variant": name, "splits": kind, "treatment": treatment, **values, **by_n}
        if name != names[0]:
            both = own.merge(first, on=SAME, suffixes=("", "_first"))
            column = "accuracy" if treatment == "base" else "over_base"
            by_task = (both[column] - both[f"{column}_first"]).groupby([both[c] for c in TASK], dropna=False).mean()
            row |= {"against": names[0], "tasks": by_task.count()} | _difference(by_task)
        if treatment == "BnB" and set(DIP) <= set(own.n):
            dips = own.pivot_table(index=[c for c in TASK if own[c].notna().any()], columns="n", values="accuracy")
            found = _difference(dips[list(DIP)] @ pd.Series(DIP))
            row |= {"dip": found["difference"], "dip low": found["low"], "dip high": found["high"]}
        rows.append(row)
    return pd.DataFrame(rows)


def _difference(by_task: pd.Series) -> dict[str, float]:
    return dict(zip(("difference", "low", "high"), t_interval(by_task), strict=True))


def _with_share(networks: pd.DataFrame) -> pd.DataFrame:
    """With ``over_base`` (accuracy minus that of the same task's and variant's base) and ``share`` (their ratio)."""
    own = base_accuracy(networks)
    return networks.assign(over_base=networks.accuracy - own, share=networks.accuracy / own)


# ----------------------------------------------------------------------------------------------------------------------
def longer(tables: Tables) -> Drawing:
    """Bases of several recipes at n = 0, AnB+ and BnB+ against n: is the boost of transfer only more training?"""
    networks = tables.networks[tables.networks.accuracy.notna()]
    tuned = networks[networks.treatment.isin(["BnB+", "AnB+"])]
    if tuned.empty:
        raise UserError("bases of several recipes, but neither BnB+ nor AnB+ is finished, which they are compared with")
    usual = tuned.recipe.iloc[0]
    bases = networks[networks.treatment == "base"]
    recipes = [usual, *[r for r in bases.recipe.unique() if r != usual]]
    looks = tell_apart(recipes, [(INK, "o", ":"), ("#8a5a00", "s", "--"), ("#1b7837", "^", "-.")], "recipes")
    marks = {r: Mark(f"base, recipe: {r}", c, m, False, line=style) for r, (c, m, style) in looks.items()}
    half = 1.96 * np.sqrt(bases.accuracy * (1 - bases.accuracy) / bases.val_images)
    shown = pd.concat([tuned.accuracy, bases.accuracy - half, bases.accuracy + half])
    tasks = list(tuned[["split", "target", "task"]].drop_duplicates("task").itertuples(index=False, name=None))

    def panel(split: str, target: str, task: str) -> Panel:
        def paint(axes: Axes) -> None:
            here = networks[networks.task == task]
            for place, (recipe, mark) in enumerate(marks.items()):
                own = here[(here.treatment == "base") & (here.recipe == recipe)]
                x = 0.2 * (place - (len(marks) - 1) / 2) + 0.06 * (own.seed - own.seed.mean())
                axes.axhline(own.accuracy.mean(), color=mark.colour, lw=1.2, ls=mark.line)
                axes.errorbar(x, own.accuracy, half[own.index], color=mark.colour, fmt="none", lw=1)
                plot.scatter(axes, x, own.accuracy, mark, plot.tips_of(own))
            for treatment in ("BnB+", "AnB+"):
                own = here[here.treatment == treatment]
                line = own.groupby("n").accuracy.mean()
                axes.plot(line.index + TREATMENTS[treatment].offset, line, color=TREATMENTS[treatment].colour, lw=1.5)
                plot.points(axes, own, TREATMENTS[treatment])
            plot.layer_axis(axes, networks.n.max())
            axes.set_ylim(shown.min() - 0.01, shown.max() + 0.01)
            axes.set_ylabel("Top-1 accuracy on the target task")

        return Panel(f"{split}, target {target}", paint, 5.4)

    return Drawing(
        "longer",
        f"Fine-tuned transfer against base networks that are trained longer ({_where(tables)})",
        f"{counts(tables.networks)} A mark is one network, lines are means; bars: 95% intervals of each base from its "
        f"validation images. AnB+ and BnB+ start from bases of the recipe {usual} and train as long again. "
        f"{statistic(tables)}",
        [panel(*task) for task in tasks],
        [*marks.values(), TREATMENTS["BnB+"], TREATMENTS["AnB+"]],
        _longer_table(tuned, bases, recipes),
        columns=2,
    )


def _longer_table(tuned: pd.DataFrame, bases: pd.DataFrame, recipes: list[str]) -> pd.DataFrame:
    """Mean over n of AnB+ and BnB+, and the longer bases, minus each base.

    The interval is Student's t over tasks (classes, seed), or of a single task that of the validation images.
    """
    above = {treatment: tuned[tuned.treatment == treatment] for treatment in ("BnB+", "AnB+")}
    above |= {f"base, {recipe}": bases[bases.recipe == recipe] for recipe in recipes[1:]}
    rows = []
    for name, own in above.items():
        means = own.groupby(["task", "seed"]).accuracy.agg(["mean", "size"])
        for recipe in recipes[: 1 if name.startswith("base") else None]:
            base = bases[bases.recipe == recipe].set_index(["task", "seed"])
            both = means.join(base[["accuracy", "val_images"]], how="inner")
            found = _difference(both["mean"] - both.accuracy)
            if len(both) == 1:
                one = both.iloc[0]
                half = 1.96 * np.sqrt(
                    (one["mean"] * (1 - one["mean"]) + one.accuracy * (1 - one.accuracy)) / one.val_images
                )
                found |= {"low": found["difference"] - half, "high": found["difference"] + half}
            rows.append(
                {"treatment": name, "over the base of recipe": recipe, "tasks": len(both)}
                | {"networks": int(both["size"].sum()), "mean": both["mean"].mean(), "base": both.accuracy.mean()}
                | found
                | {"covers": "tasks" if len(both) > 1 else "validation images only"}
            )
    return pd.DataFrame(rows)


# ----------------------------------------------------------------------------------------------------------------------
def preserved(tables: Tables) -> Drawing:
    """AnB~k: n frozen layers and k more, copied and fine-tuned (an unpublished plot of the original's authors)."""
    networks = tables.networks
    done = networks[networks.accuracy.notna()]
    kept = sorted(t for t in set(done.treatment) if "~" in t)
    looks = {t: TREATMENTS[t] for t in ("AnB", "AnB+") if (done.treatment == t).any()}
    kinds = tell_apart(
        kept, [("#e08214", "s", -0.06), ("#8073ac", "^", -0.18), ("#35978f", "v", -0.3)], "preserved depths"
    )
    for treatment, (colour, marker, offset) in kinds.items():
        label = f"{treatment}: {treatment.split('~')[1]} more copied, fine-tuned"
        looks[treatment] = Mark(label, colour, marker, offset=offset)
    rows = []
    compared = [(treatment, n) for treatment in kept for n in sorted(set(done[done.treatment == treatment].n))]
    for treatment, n in compared:
        difference = minus(mean(treatment, [n]), mean("AnB", [n]))
        if found := estimate(done, difference, 1 - 0.05 / len(compared)):
            rows.append({"treatment": treatment, "n": n, **vars(found), "covers": found.covers})
    if not rows:
        raise UserError("preserved layers are compared with AnB of the same n: none is finished in the same task")
    table = pd.DataFrame(rows).drop(columns="df")

    def lines(axes: Axes) -> None:
        axes.axhline(done[done.treatment == "base"].accuracy.mean(), color=INK, lw=0.8, ls=":")
        for treatment, mark in looks.items():
            own = done[done.treatment == treatment]
            line = own.groupby("n").accuracy.mean()
            axes.plot(line.index + mark.offset, line, color=mark.colour, lw=1.5, zorder=2)
            plot.points(axes, own, mark)
        plot.layer_axis(axes, done.n.max(), first=1)
        axes.set_xlabel("Frozen layers n (of AnB+: copied)")
        axes.set_ylabel("Top-1 accuracy on the target task")

    def gains(axes: Axes) -> None:
        axes.axhline(0, color=INK, lw=0.8)
        for treatment in kept:
            own = table[table.treatment == treatment]
            plot.estimates(axes, own.assign(quantity=f"{treatment} - AnB"), looks[treatment])
        plot.layer_axis(axes, done.n.max(), first=1)
        axes.set_xlabel("Frozen layers n")
        axes.set_ylabel("Accuracy minus AnB with the same n")

    spread = "the spread between networks" if (table.covers == "networks").all() else "the validation images alone"
    return Drawing(
        "preserved",
        f"Layers that are copied above the frozen ones: {_where(tables)}",
        f"{counts(networks)} A mark is one network, lines are means, dotted: base. Bars: intervals from {spread}, "
        f"so wide that all of them hold together with 95%. {statistic(tables)}",
        [Panel("Every network", lines), Panel("What copying more is worth", gains)],
        list(looks.values()),
        table,
        columns=2,
    )


# ----------------------------------------------------------------------------------------------------------------------
def volume(tables: Tables) -> Drawing:
    """Scratch, freeze n, fine-tune n against the images a class of the target task: a grid for each kind of split.

    And whether to freeze or to fine-tune, over all n.
    """
    table = _volume_table(tables.networks)
    either = _freeze_minus_fine_tune(table)
    limit = 1.4 * table["minus scratch"].abs().max()  # text and frames stay readable on the strongest colour
    shown = [kind for kind in KINDS if (table.splits == kind).any()]
    looks = tell_apart(shown, KINDS_OF_SPLIT, "kinds of split")
    marks = {k: Mark(KINDS[k], colour, marker, line=line) for k, (colour, marker, line) in looks.items()}

    def panel(kind: str) -> Panel:
        rows = table[table.splits == kind]
        columns = list(dict.fromkeys(rows.sort_values(["order", "n"]).arrangement))
        volumes = sorted(set(rows["images a class"]), reverse=True)

        def paint(axes: Axes) -> None:
            axes.grid(False)
            shown = rows.pivot(index="images a class", columns="arrangement", values="minus scratch")
            axes.imshow(shown.loc[volumes, columns], cmap="PuOr_r", vmin=-limit, vmax=limit, aspect="auto")
            for row in rows.itertuples():
                x, y = columns.index(row.arrangement), volumes.index(row[rows.columns.get_loc("images a class") + 1])
                dark = abs(row[rows.columns.get_loc("minus scratch") + 1]) > 0.6 * limit
                text = f"{row.accuracy:.3f}"[1:] + ("*" if row.among_the_best and not row.best else "")
                axes.text(x, y, text, ha="center", va="center", fontsize=8, color=PAPER if dark else "#222222")
                if row.best:
                    axes.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, fill=False, ec=INK, lw=2))
            axes.set_xticks(range(len(columns)), columns, rotation=45, ha="right")
            axes.set_yticks(range(len(volumes)), [str(v) for v in volumes])
            axes.set_ylabel("Images a class")

        splits = ", ".join(sorted(set(tables.networks[tables.networks.split_kind == kind].split)))
        return Panel(f"{KINDS[kind].capitalize()} ({splits})", paint, 8.4, 2.9)

    def freeze_or_tune(axes: Axes) -> None:
        volumes = sorted(set(either["images a class"]))
        axes.axhline(0, color=INK, lw=0.8)
        for kind, mark in marks.items():
            own = either[either.splits == kind]
            x = own["images a class"].map(volumes.index) + 0.08 * shown.index(kind)
            axes.plot(x, own.difference, mark.line, color=mark.colour, lw=1.3, zorder=2)
            axes.vlines(x, own.low, own.high, color=mark.colour, lw=1, zorder=2)
            tips = [f"{KINDS[kind]}: {r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}]" for r in own.itertuples()]
            plot.scatter(axes, x, own.difference, mark, tips)
        axes.set_xticks(range(len(volumes)), [str(v) for v in volumes])
        axes.set_xlim(-0.4, len(volumes) - 0.6)
        axes.set_xlabel("Images a class")
        axes.set_ylabel("Frozen minus fine-tuned")

    return Drawing(
        "volume",
        f"Little data: train from scratch, freeze n copied layers, or fine-tune them? {_where(tables)}",
        f"{counts(tables.networks)} Numbers: top-1 accuracy. Colour: better (orange) or worse (violet) than from "
        "scratch on the same images. Framed: the best of a row; *: not to be told from it (95% interval of the "
        "validation images, not corrected for choosing the best). Last: above 0 it is better to freeze the copied "
        "layers, below to fine-tune them (mean over n; the 95% interval is as wide as that of a single n, as all n "
        f"share the validation images). {statistic(tables)}",
        [*map(panel, shown)] + [Panel("Freeze or fine-tune?", freeze_or_tune, 8.4, 2.9)] * bool(len(either)),
        list(marks.values()),
        pd.concat([table.drop(columns=["order", "treatment", "val_images"]), either]),
    )


def _volume_table(networks: pd.DataFrame) -> pd.DataFrame:
    """A row a kind of split, volume and arrangement: mean accuracy, difference from scratch, the best, its equals."""
    done = _with_share(networks[networks.accuracy.notna() & networks.images_per_class.notna()])
    names = {"base": "scratch", "AnB": "freeze {}", "AnB+": "fine-tune {}"}
    done = done[done.treatment.isin(names)]
    keys = ["split_kind", "images_per_class", "treatment", "n"]
    table = done.groupby(keys).agg(accuracy=("accuracy", "mean"), networks=("accuracy", "size"))
    images = done.drop_duplicates([*keys, "task"])  # seeds share them
    table["val_images"] = images.groupby(keys).val_images.sum()
    table["minus scratch"] = done.groupby(keys).over_base.mean()
    table = table.reset_index().rename(columns={"split_kind": "splits", "images_per_class": "images a class"})
    table["images a class"] = table["images a class"].astype(int)
    table["order"] = table.treatment.map(list(names).index)
    table.insert(2, "arrangement", [names[t].format(n) for t, n in zip(table.treatment, table.n, strict=True)])
    parts = []
    for _, row in table.groupby(["splits", "images a class"]):
        top = row.accuracy.max()
        error = np.sqrt((row.accuracy * (1 - row.accuracy) + top * (1 - top)) / row.val_images)
        best = row.accuracy == top
        equal = top - row.accuracy <= 1.96 * error
        parts.append(row.assign(best=best, among_the_best=equal))
    return pd.concat(parts)


def _freeze_minus_fine_tune(table: pd.DataFrame) -> pd.DataFrame:
    """A row a kind of split and volume: AnB minus AnB+, averaged over n, with the interval of a single n.

    The networks of one task share its validation images, so the mean over n may be no surer than one n is.
    """
    done = table.assign(variance=table.accuracy * (1 - table.accuracy) / table.val_images)
    rows = []
    for (kind, images), own in done.groupby(["splits", "images a class"]):
        frozen, tuned = (own[own.treatment == treatment] for treatment in ("AnB", "AnB+"))
        both = frozen.merge(tuned, on="n", suffixes=("", "_tuned"))
        difference = (both.accuracy - both.accuracy_tuned).mean()
        half = 1.96 * (both.variance + both.variance_tuned).mean() ** 0.5
        row = {"splits": kind, "images a class": images, "arrangement": "freeze - fine-tune, mean over n"}
        row |= {"networks": (both.networks + both.networks_tuned).sum(), "best": False, "among_the_best": False}
        rows.append(row | {"difference": difference, "low": difference - half, "high": difference + half})
    return pd.DataFrame(rows).dropna(subset="difference")


# ----------------------------------------------------------------------------------------------------------------------
def replicates(tables: Tables) -> Drawing:
    """Losses and gains of every target task, and their mean over splits and seeds: a panel an n."""
    compared = {treatment for name in REPLICATED for treatment in QUANTITIES[name]}
    own = tables.networks[tables.networks.treatment.isin(compared)]
    networks = own[own.split_kind != "natural-manmade"]
    tasks = _task_differences(networks[networks.accuracy.notna()])
    if tasks.empty:
        raise UserError("several splits or seeds, but none has two of base, BnB, BnB+, AnB, AnB+ finished in one task")
    table = _replicates_table(tasks)
    looks = tell_apart(tasks.split.unique(), KINDS_OF_NETWORK[1:], "splits")
    marks = {split: Mark(split, colour, marker, line="") for split, (colour, marker, _) in looks.items()}
    labels = {row.quantity: f"{row.quantity}\n{row.compared}" for row in table.itertuples()}
    quantities = list(labels)

    def panel(n: int) -> Panel:
        def paint(axes: Axes) -> None:
            axes.axhline(0, color=INK, lw=0.8)
            for (split, target), own in tasks[tasks.n == n].groupby(["split", "target"]):
                shift = 0.1 * (list(marks).index(split) - (len(marks) - 1) / 2)
                tips = [f"{r.quantity}, {split}, seed {r.seed}: {r.difference:+.3f}" for r in own.itertuples()]
                mark = replace(marks[split], filled=target == "A")
                plot.scatter(axes, own.quantity.map(quantities.index) + shift, own.difference, mark, tips)
            own = table[table.n == n]
            x = own.quantity.map(quantities.index) + 0.33
            axes.vlines(x, own.low, own.high, color=INK, lw=1.2)
            tips = [f"{r.quantity}: {r.difference:+.3f} [{r.low:+.3f}, {r.high:+.3f}]" for r in own.itertuples()]
            plot.scatter(axes, x, own.difference, MEAN, tips)
            axes.hlines(own.paper, x - 0.66, x + 0.1, color=FAINT, lw=1, ls="--", zorder=1)
            axes.set_xticks(range(len(quantities)), labels.values(), fontsize=8)
            axes.set_ylabel("Difference in top-1 accuracy")

        return Panel(f"n = {n}", paint, 8.4, 4.2)

    return Drawing(
        "replicates",
        f"Do losses and gains hold for other splits? {_where(tables)}",
        f"{counts(networks)} A coloured mark is one target task, filled: A, hollow: B. Large: the mean over splits and "
        "seeds with its 95% interval (Student's t; the two directions of a split, whose networks "
        f"start from the same two bases, count as one). {statistic(tables)}",
        [panel(n) for n in sorted(set(table.n))],
        [*marks.values(), MEAN, Mark("the paper's published numbers", FAINT, line="--")],
        table,
    )


def _task_differences(networks: pd.DataFrame) -> pd.DataFrame:
    """A row a quantity, n and target task."""
    parts = []
    for n in sorted(set(networks[networks.n > 0].n)):
        rows = networks[(networks.n == n) | (networks.treatment == "base")]
        accuracy = rows.pivot_table(index=["split", "seed", "target"], columns="treatment", values="accuracy")
        for name in REPLICATED:
            first, second = QUANTITIES[name]
            if {first, second} <= set(accuracy.columns):
                found = (accuracy[first] - accuracy[second]).dropna().rename("difference").reset_index()
                parts.append(found.assign(n=n, quantity=name, compared=f"{first} − {second}"))
    return pd.concat(parts) if parts else pd.DataFrame()


def _replicates_table(tasks: pd.DataFrame) -> pd.DataFrame:
    """A row an n and quantity: the mean over splits and seeds with both directions, and the published study's value."""
    paper = decompose(published().networks).set_index(["quantity", "n"]).value
    rows = []
    for (n, name, compared), own in tasks.groupby(["n", "quantity", "compared"], sort=False):
        whole = own.pivot_table(index=["split", "seed"], columns="target", values="difference").dropna()
        row = {"n": n, "quantity": name, "compared": compared, "splits and seeds": len(whole)}
        above = int((own.difference > 0).sum())
        rows.append(
            row
            | _difference(whole.mean(axis=1))
            | {"tasks above 0": f"{above} of {len(own)}", "paper": paper.get((name, n), np.nan)}
        )
    return pd.DataFrame(rows)


# ----------------------------------------------------------------------------------------------------------------------
def _where(tables: Tables) -> str:
    return tables.about["dataset"]["name"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of analysis.collect")
    options = parser.parse_args()
    tables = Tables.read(options.folder)
    drawn = [d for d in (question(tables), activity.draw(tables)) if isinstance(d, Drawing)]
    remove_leftovers(options.folder)
    write_csv(options.folder / f"{drawn[0].name}.csv", drawn[0].table)
    paths = [path for drawing in drawn for path in save(compose(drawing), options.folder / drawing.name)]
    for drawing in drawn:
        print(drawing.table.to_string(index=False, float_format="%.4f", na_rep=""), end="\n\n")
    for path in paths:
        print(path)


if __name__ == "__main__":
    tool(main)()
