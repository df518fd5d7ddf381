"""The figures of a study, from its tables alone (never from the run store).

python -m analysis.figures figures/figures-procedural      every figure of the folder, as PDF, SVG and PNG

Every mark is one network. A network that is missing from the study is never dropped silently: the caption counts it.
"""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from analysis import design, draw
from analysis.decomposition import decompose
from analysis.paper import published
from analysis.stats import BLOCK, DISTANT, base_accuracy
from analysis.style import (
    BY_LAYER,
    DISSIMILAR,
    FAINT,
    INK,
    KINDS_OF_NETWORK,
    PUBLISHED,
    READINGS,
    TREATMENTS,
    Drawing,
    Mark,
    Panel,
    compose,
    save,
    tell_apart,
    with_tips,
)
from analysis.tables import Tables, kinds, mixed, tool
from transferability.files import remove_leftovers

NEAR = ("random", "user")  # kinds of split between similar tasks
MAIN = ("BnB", "BnB+", "AnB", "AnB+")
OF_ONE_KIND = ("accuracy", "distance", "dissimilar", "decomposition")  # figures of means over all networks


def drawings(tables: Tables) -> tuple[list[Drawing], dict[str, str]]:
    """Every figure that the study has networks for, and for the others the reason why not."""
    makers: dict[str, Callable[[Tables], Drawing | str]] = {
        "accuracy": accuracy,
        "distance": distance,
        "dissimilar": dissimilar,
        "decomposition": decomposition,
        "volume": volume,
        "filters": filters,
        "similarity": similarity,
        "activity": activity,
        "curves": curves,
    }
    why = mixed(tables.networks)
    made = {name: why if why and name in OF_ONE_KIND else make(tables) for name, make in makers.items()}
    encoding = tables.about["dataset"].get("encoding")  # of raw pixels there is nothing to say
    label = f" Images: {encoding}." if encoding else ""
    return (
        [replace(d, caption=f"{d.caption}{label}") for d in made.values() if isinstance(d, Drawing)],
        {name: why for name, why in made.items() if isinstance(why, str)},
    )


def accuracy(tables: Tables) -> Drawing | str:
    """Top-1 accuracy against n on random (or the user's) splits: every network, and the means (paper, figure 2)."""
    networks = tables.networks
    rows = _with_treated(networks[networks.split_kind.isin(NEAR) & networks.treatment.isin(["base", *MAIN])])
    there = [t for t in MAIN if _finished(rows, t)]
    if not there:
        return "no network with copied layers on a random split"
    shifted, legend = _published_means(tables, rows)

    def points(axes: Axes) -> None:
        axes.axhline(rows[rows.treatment == "base"].accuracy.mean(), color=INK, lw=0.8, ls=":")
        for treatment in ["base", *there]:
            draw.points(axes, rows[rows.treatment == treatment], TREATMENTS[treatment])
        draw.layer_axis(axes, rows.n.max())
        axes.set_ylabel("Top-1 accuracy on the target task")

    def means(axes: Axes) -> None:
        curves = {t: _mean_line(rows, t) for t in ["base", *there]}
        for treatment, line in shifted.items():
            axes.plot(line.index, line, "--", color=TREATMENTS[treatment].colour, lw=1, alpha=0.45, zorder=1)
        draw.shade(axes, curves)
        for treatment, line in curves.items():
            mark = TREATMENTS[treatment]
            if treatment == "base" and len(line):
                axes.axhline(line.iloc[0], color=mark.colour, lw=0.8, ls=":")
            axes.plot(line.index + mark.offset / 2 * (line.index > 0), line, color=mark.colour, lw=1.6, zorder=2)
            draw.bars(axes, rows[rows.treatment == treatment], mark)
        draw.numbers_at_the_end(axes, curves, rows.n.max())
        draw.layer_axis(axes, rows.n.max() + 0.35)
        axes.set_ylabel("Mean top-1 accuracy")

    marks = [TREATMENTS[t] for t in ("base", *there)]
    readings = "; ".join(READINGS[t] for t in ("base", *there))
    caption = (
        f"{counts(rows)} Every network: a mark is one, shifted sideways for clarity. Means: bars of one standard "
        "deviation between networks (of a single network: the 95% interval of its validation images). How the paper "
        f"reads the lines: {readings}.{legend} {statistic(tables)}"
    )
    return Drawing(
        "accuracy",
        f"What it costs to chop a network at layer n and train the rest again: {_data(tables)}",
        caption,
        [Panel("Every network", points), Panel("Means", means)],
        marks + ([PUBLISHED] if shifted else []),
        _mean_table(rows, tables),
        columns=2,
    )


def distance(tables: Tables) -> Drawing | str:
    """Natural/man-made, random filters, and both relative to base beside random splits (paper, figure 3)."""
    networks = tables.networks
    near = networks[networks.split_kind.isin(NEAR) & networks.treatment.isin(["base", "AnB"])]
    distant = networks[(networks.split_kind == "natural-manmade") & networks.treatment.isin(["base", "AnB"])]
    random = _with_treated(
        networks[networks.treatment.isin(["base", "RnB"]) & (networks.split_kind != "natural-manmade")]
    )
    panels, relative, marks = [], [], [TREATMENTS["base"]]
    if _finished(near, "AnB"):
        relative.append((near, TREATMENTS["AnB"], "AnB"))
    if _finished(distant, "AnB"):
        panels.append(Panel("Dissimilar tasks: natural and man-made", lambda axes: _distant_panel(axes, distant)))
        relative.append((distant, DISSIMILAR, "AnB"))
    if _finished(random, "RnB"):
        panels.append(Panel("Random, untrained layers", lambda axes: _random_panel(axes, random)))
        relative.append((random, TREATMENTS["RnB"], "RnB"))
    if not panels:
        return "neither a natural/man-made split nor random filters"
    faint = _published_relative(tables)

    def relative_panel(axes: Axes) -> None:
        axes.axhline(0, color=INK, lw=0.8, ls=":")
        for treatment, line in faint.items():
            mark = DISSIMILAR if treatment == "distant" else TREATMENTS[treatment]
            if mark in [m for _, m, _ in relative]:
                axes.plot(line.index, line, "--", color=mark.colour, lw=1, alpha=0.45, zorder=1)
        for rows, mark, _ in relative:
            draw.curve(axes, draw.relative_to_base(rows), mark)
        draw.layer_axis(axes, networks.n.max())
        axes.set_ylabel("Top-1 accuracy minus base of the same task")

    shown = pd.concat([rows for rows, _, _ in relative]).drop_duplicates("run")
    table = pd.concat(
        [_relative_table(rows, treatment, mark.label) for rows, mark, treatment in relative], ignore_index=True
    )
    legend = " Faint dashed: the paper's means on ImageNet." if faint else ""
    return Drawing(
        "distance",
        f"Frozen layers of similar tasks, of dissimilar tasks, and of no task: {_data(tables)}",
        f"{counts(shown)} A mark is one network, thin lines join one split, direction and seed, thick lines are means."
        f"{legend}{_without_base(shown)} {statistic(tables)}",
        [*panels, Panel("Relative to base", relative_panel)],
        marks + [mark for _, mark, _ in relative] + ([PUBLISHED] if faint else []),
        table,
        columns=3,
    )


def dissimilar(tables: Tables) -> Drawing | str:
    """All treatments between natural and man-made, where the study has more than the paper's AnB."""
    rows = tables.networks[tables.networks.split_kind == "natural-manmade"]
    copied = [t for t in MAIN if _finished(rows, t)]
    there = [*copied, *(["RnB"] if _finished(rows, "RnB") else [])]
    if not set(there) - {"AnB"}:
        return "nothing but AnB between natural and man-made, which is in the figure distance"
    relative, parts = draw.relative_to_base(rows), decompose(tables.networks)
    looks = {
        "specificity loss": Mark("similar tasks", "#b2182b", "D", offset=-0.06),
        "specificity loss, dissimilar tasks": Mark("natural/man-made", "#e08214", "h", offset=0.06),
    }

    def target_panel(target: str) -> Callable[[Axes], None]:
        def paint(axes: Axes) -> None:
            own = relative[relative.target == target]
            axes.axhline(0, color=INK, lw=0.8, ls=":")
            draw.points(axes, own[own.treatment == "base"], TREATMENTS["base"])
            for treatment in copied:
                line = _mean_line(own, treatment)
                axes.plot(line.index, line, color=TREATMENTS[treatment].colour, lw=1.3, zorder=1)
                draw.points(axes, own[own.treatment == treatment], TREATMENTS[treatment])
            draw.layer_axis(axes, rows.n.max())
            axes.set_ylabel("Top-1 accuracy minus base of the same task")

        return paint

    def random(axes: Axes) -> None:
        axes.axhline(0, color=INK, lw=0.8, ls=":")
        _by_target(axes, relative[relative.treatment.isin(["base", "RnB"])], TREATMENTS["RnB"])
        axes.set_ylabel("Top-1 accuracy minus base of the same task")

    def losses(axes: Axes) -> None:
        axes.axhline(0, color=INK, lw=0.8)
        for quantity, mark in looks.items():
            draw.estimates(axes, parts[parts.quantity == quantity], mark)
        axes.legend(
            handles=[axes.plot([], [], "-", color=m.colour, label=m.label)[0] for m in looks.values()],
            loc="upper left",
            fontsize=8,
        )
        draw.layer_axis(axes, rows.n.max(), first=1)
        axes.set_ylabel("Specificity loss: BnB − AnB")

    titles = {"A": "Target A: natural, layers from man-made", "B": "Target B: man-made, layers from natural"}
    panels = [Panel(titles[t], target_panel(t)) for t in sorted(set(rows.target)) if copied]
    if "RnB" in there:
        panels.append(Panel("Random, untrained layers", random))
    bars = ""
    if (parts.quantity == "specificity loss, dissimilar tasks").any():
        panels.append(Panel("Specificity loss", losses))
        bars = " Bars: 95% intervals, so wide that all of one colour hold together."
    return Drawing(
        "dissimilar",
        f"Dissimilar tasks, all treatments: {_data(tables)}",
        f"{counts(rows)} A mark is one network, minus the base of its task and seed; lines are means. The tasks have "
        f"{_classes(rows)} classes, so their differences are not of one size.{bars}{_without_base(rows)} "
        f"{statistic(tables)}",
        panels,
        [TREATMENTS[t] for t in ("base", *there)],
        pd.concat(
            [_relative_table(own, t, f"{t}, target {target}") for target, own in rows.groupby("target") for t in there]
        ),
        columns=2 if len(panels) == 4 else 3,
    )


def decomposition(tables: Tables) -> Drawing | str:
    """The two losses, and the gains of fine-tuning, for each n (paper, section 4.1, in numbers)."""
    networks = tables.networks
    parts = decompose(networks)
    losses = [q for q in ("co-adaptation loss", "specificity loss") if (parts.quantity == q).any()]
    gains = [
        q for q in ("recovery", "gain over control", "gain over base", "retraining gain") if (parts.quantity == q).any()
    ]
    if not losses and not gains:
        return "neither BnB nor AnB with a base of the same task"
    theirs = decompose(published().networks) if not tables.is_paper else parts.iloc[:0]
    looks = {
        "co-adaptation loss": Mark("co-adaptation loss: base − BnB", "#1f4e9c", "o", offset=-0.1),
        "specificity loss": Mark("specificity loss: BnB − AnB", "#b2182b", "D", offset=0.1),
        "recovery": Mark("recovery: BnB+ − BnB", "#7fb2e5", "P", offset=-0.18),
        "retraining gain": Mark("retraining gain: BnB+ − base", "#1f4e9c", "s", offset=-0.06),
        "gain over base": Mark("gain over base: AnB+ − base", "#ef8a7a", "P", offset=0.06),
        "gain over control": Mark("gain over control: AnB+ − BnB+", "#b2182b", "v", offset=0.18),
    }

    def panel(quantities: list[str]) -> Callable[[Axes], None]:
        def paint(axes: Axes) -> None:
            axes.axhline(0, color=INK, lw=0.8)
            for quantity in quantities:
                other = theirs[theirs.quantity == quantity]
                axes.plot(other.n, other.value, "--", color=looks[quantity].colour, lw=1, alpha=0.45, zorder=1)
                draw.estimates(axes, parts[parts.quantity == quantity], looks[quantity])
            draw.layer_axis(axes, parts.n.max(), first=1)
            axes.set_ylabel("Difference in top-1 accuracy")

        return paint

    drawn = [("What freezing costs", losses), ("What fine-tuning gives", gains)]
    spread = (parts[parts.quantity.isin(losses + gains)].covers == "networks").all()
    source = "the spread between networks" if spread else "the choice of validation images alone"
    return Drawing(
        "decomposition",
        f"Two reasons why frozen layers cost accuracy, and what fine-tuning gives: {_data(tables)}",
        f"{counts(networks[networks.split_kind.isin(NEAR) & (networks.treatment != 'RnB')])} Differences within tasks "
        "by a linear model (an effect for each task, and one for each treatment and n; where no task has both sides, "
        f"relative to bases). Bars: 95% intervals from {source}, so wide that all of one quantity hold together."
        + (" Faint dashed: the same for the paper's published numbers." if len(theirs) else ""),
        [Panel(title, panel(q)) for title, q in drawn if q],
        [looks[q] for q in losses + gains] + ([PUBLISHED] if len(theirs) else []),
        parts,
        columns=2,
    )


def volume(tables: Tables) -> Drawing | str:
    """Base networks trained on fewer images a class, linear and logarithmic (paper, supplement)."""
    networks = tables.networks
    rows = networks[(networks.treatment == "base") & networks.images_per_class.notna()]
    rows = rows.sort_values("images_per_class", kind="stable")
    rows = rows.groupby(["task", "seed"]).filter(lambda own: own.images_per_class.nunique() > 1)
    if rows.empty:
        return "no base network at more than one number of images a class"
    mark = Mark("base: trained from scratch", INK, "o", filled=False)

    def panel(scale: str) -> Callable[[Axes], None]:
        def paint(axes: Axes) -> None:
            for _, own in rows.groupby(["task", "seed"]):
                axes.plot(own.images_per_class, own.accuracy, color=mark.colour, lw=1, zorder=1)
            draw.scatter(axes, rows.images_per_class, rows.accuracy, mark, draw.tips_of(rows))
            draw.chance(axes, (1 / rows.classes).mean(), "right")
            axes.set_xscale(scale)
            axes.xaxis.set_major_formatter("{x:.0f}")
            axes.set_xlabel(f"Training images a class ({scale} scale)")
            axes.set_ylabel("Top-1 accuracy")

        return paint

    stuck = rows[rows.accuracy < 1.5 / rows.classes]
    remark = f" {len(stuck)} of the networks stayed at chance." if len(stuck) else ""
    return Drawing(
        "volume",
        f"Base networks trained on a part of the images: {_data(tables)}",
        f"{counts(rows)} A mark is one network.{remark} {statistic(tables)}",
        [Panel("Linear", panel("linear")), Panel("Logarithmic", panel("log"))],
        [mark],
        rows[["cell", "images_per_class", "top1", "top1_mean_best10"]],
        columns=2,
    )


def filters(tables: Tables) -> Drawing | str:
    """The first-layer filters of the bases and of an untrained network as pictures."""
    if tables.filters.empty:
        return "no filters were collected, as no base network is finished, or its weights are not published"

    def panel(rows: pd.DataFrame) -> Callable[[Axes], None]:
        def paint(axes: Axes) -> None:
            axes.imshow(_mosaic(rows), interpolation="nearest")
            axes.set_axis_off()

        return paint

    titles = {"baseA": "Base A", "baseB": "Base B", "baseall": "Base, all classes", "untrained": "Untrained"}
    panels = []
    for name, rows in tables.filters.groupby("network", sort=True):
        height, width = _mosaic(rows).shape[:2]
        panels.append(Panel(titles[name], panel(rows), 3.4, 3.4 * height / width + 0.1))
    first = tables.filters.iloc[0]
    count = tables.filters["filter"].nunique()
    return Drawing(
        "filters",
        f"The filters of layer 1: {_data(tables)}",
        f"All {count} filters of one network each, split {first.split}, seed {first.seed}. Each filter is scaled by "
        "its own largest weight; grey is 0. On photographs such filters come to look like edges and colours whatever "
        "the task, which is what the paper set out to explain.",
        panels,
        columns=3,
    )


def similarity(tables: Tables) -> Drawing | str:
    """How alike the bases' representations are (linear CKA), beside the measured specificity."""
    if tables.similarity.empty:
        return "not collected, as no split has both of its bases finished, or their weights are not published"
    pairs = tables.similarity.assign(distant=tables.similarity.split == "natural-manmade")
    looks = {
        ("bases", False): Mark("base A and base B, similar tasks", "#b2182b", "D", offset=-0.06),
        ("bases", True): Mark("base A and base B, natural/man-made", "#e08214", "h", offset=0.06),
        ("other seed", False): Mark("one task, two seeds, similar tasks", "#1f4e9c", "s"),
        ("other seed", True): Mark("one task, two seeds, natural/man-made", "#1f4e9c", "o", filled=False, line="--"),
        ("untrained", False): Mark("two untrained networks, similar tasks", "#8a9a00", "^"),
        ("untrained", True): Mark("two untrained networks, natural/man-made", "#8a9a00", "v", filled=False, line="--"),
    }
    parts = decompose(tables.networks)
    losses = {"transfer loss": looks["bases", False], "transfer loss, dissimilar tasks": looks["bases", True]}
    last = int(pairs.layer.max())

    def alike(axes: Axes) -> None:
        for key, rows in pairs.groupby(["pair", "distant"]):
            mark = looks[key]
            mean = rows.groupby("layer").cka.mean()
            axes.plot(mean.index, mean, mark.line, color=mark.colour, lw=1.4, zorder=1)
            tips = [f"{r.a} and {r.b}, {r.split}, layer {r.layer}: CKA {r.cka:.3f}" for r in rows.itertuples()]
            draw.scatter(axes, rows.layer + mark.offset, rows.cka, mark, tips)
        axes.set_ylim(min(0, pairs.cka.min() - 0.03), 1.02)
        draw.layer_axis(axes, last, first=1)
        axes.set_xlabel("Layer")
        axes.set_ylabel("Linear CKA (1: alike up to rotation)")

    def specific(axes: Axes) -> None:
        axes.axhline(0, color=INK, lw=0.8)
        for quantity, mark in losses.items():
            draw.estimates(axes, parts[parts.quantity == quantity], mark)
        draw.layer_axis(axes, last, first=1)
        axes.set_ylabel("Transfer loss: base − AnB")

    panels = [Panel("How alike two networks see the same images", alike)]
    if parts.quantity.isin(losses).any():
        panels.append(Panel("What transfer of layers 1 to n loses", specific))
    used = dict.fromkeys(looks[key] for key in pairs.groupby(["pair", "distant"]).groups)
    return Drawing(
        "similarity",
        f"Do layers transfer where the two networks are alike? {_data(tables)}",
        f"Alike: debiased linear CKA (Kornblith et al. 2019) of two networks' outputs of a layer on "
        f"{int(pairs.images.max())} validation images of both tasks; a mark is one pair of networks. Untrained "
        "networks show how much the images alone make networks alike. Right: what AnB loses between the same "
        "tasks, with intervals that hold together with 95%.",
        panels,
        list(used),
        pairs.drop(columns=["distant", "run_a", "run_b"]),
        columns=2,
    )


def activity(tables: Tables) -> Drawing | str:
    """What random filters leave of the differences between images, and what becomes of the units above them."""
    if tables.activity.empty:
        return "not collected, as no network with random filters is finished, or its weights are not published"
    networks = tables.networks.drop(columns="images")
    rows = tables.activity.merge(networks.assign(kind=kinds(networks)), on="run")
    random = rows[(rows.treatment == "RnB") & (rows.layer <= rows.n)].sort_values("n", kind="stable")
    random = random.drop_duplicates([*BLOCK, "layer"], keep="last")  # a task's random layers are the same for every n
    each = rows.drop_duplicates("run").set_index("run").drop(columns=["layer", "cosine", "images"])
    each["silent"] = rows[rows.layer > rows.n].groupby("run").silent.max()
    each["cosine of layer n"] = rows[rows.layer == rows.n].set_index("run").cosine
    measured = ["cosine of layer n", "silent", "train_loss", "accuracy"]
    looks = tell_apart(rows.kind.unique(), KINDS_OF_NETWORK, "kinds of network")
    several = len(looks) > 1
    marks = {k: Mark(k if several else "random filters", colour, marker) for k, (colour, marker, _) in looks.items()}

    def shift(kind: str) -> float:
        return 0.08 * (list(marks).index(kind) - (len(marks) - 1) / 2)

    def alike(axes: Axes) -> None:
        for kind, mark in marks.items():
            own, bases = random[random.kind == kind], rows[(rows.kind == kind) & (rows.treatment == "base")]
            for part, line in ((own, "-"), (bases, "--")):
                mean = part.groupby("layer").cosine.mean()
                axes.plot(mean.index + shift(kind), mean, line, color=mark.colour, lw=1.3, zorder=2)
            tips = [f"{r.kind}, {r.split}, task {r.target}, seed {r.seed}, layer {r.layer}: {r.cosine:.3f}"
                    for r in own.itertuples()]  # fmt: skip
            draw.scatter(axes, own.layer + shift(kind), own.cosine, mark, tips)
        draw.layer_axis(axes, rows.layer.max(), first=1)
        axes.set_xlabel("Layer")
        axes.set_ylabel("Mean cosine between two images' outputs")

    def off(axes: Axes) -> None:
        for kind, mark in marks.items():
            own = each[(each.kind == kind) & each.silent.notna()]
            mean = own.groupby("n").silent.mean()
            axes.plot(mean.index + shift(kind), mean, color=mark.colour, lw=1.3, zorder=2)
            tips = [f"{r.cell}, {r.kind}, {r.split}, seed {r.seed}: {r.silent:.3f} silent, top-1 {r.accuracy:.3f}"
                    for r in own.itertuples()]  # fmt: skip
            draw.scatter(axes, own.n + shift(kind), own.silent, mark, tips)
        axes.set_ylim(-0.03, 1.03)
        draw.layer_axis(axes, each.n.max())
        axes.set_xlabel("Random layers below (0: base)")
        axes.set_ylabel("Silent share of the most silent trained layer")

    return Drawing(
        "activity",
        "What random filters leave for the layers above: "
        + (f"{len(marks)} kinds of network ({tables.about['dataset']['name']})" if several else _data(tables)),
        "Left: the outputs of random layers for two different images, as the cosine between them (1: a layer gives "
        f"all images one direction), a mean over pairs of {int(rows.images.max())} validation images of the task; a "
        "mark is the random layers of one task and seed (the same for all kinds with one initialisation and "
        "normalisation), a solid line their mean, a dashed line that of the trained bases. "
        "Right: the share of values of a trained hidden layer that are 0 for every one of these images, in the "
        "layer where it is largest; a mark is one network. Above seven random layers there is only the classifier, "
        "which cannot fall silent.",
        [Panel("Do random layers tell images apart?", alike), Panel("Does what is trained above them respond?", off)],
        [*marks.values(), Mark("dashed: the trained bases", FAINT, line="--")],
        pd.concat([each[each.kind == kind].groupby(["kind", "n"])[measured].mean().reset_index() for kind in marks]),
        columns=2,
    )


def curves(tables: Tables) -> Drawing | str:
    """Training and validation curves of every treatment, a line for each n."""
    if tables.curves.empty:
        return "not collected, as no network is finished, or its evaluations are not published"
    rows = tables.curves.merge(tables.networks[["run", "treatment", "n", "split_kind", "cell"]], on="run")
    distant = (rows.split_kind == "natural-manmade").map({True: DISTANT, False: ""})
    rows["group"] = distant + rows.treatment
    panels, used = [], set()
    order = [near + treatment for near in ("", DISTANT) for treatment in ("base", *MAIN, "RnB")]
    for name in sorted(set(rows.group), key=lambda group: (group not in order, *[group != o for o in order], group)):
        own = rows[rows.group == name]
        used |= set(own.n)
        title = f"{name.removeprefix(DISTANT)}, natural/man-made" if name.startswith(DISTANT) else name
        panels.append(Panel(f"{title}: accuracy", _curve_panel(own, {"val_top1": "-"}, "Validation top-1"), 4.2, 2.9))
        columns = {"train_loss": "-", "val_loss": "--"}
        panels.append(Panel(f"{title}: loss", _curve_panel(own, columns, "Loss (dashed: validation)"), 4.2, 2.9))
    marks = [_layer_mark(n) for n in sorted(used)]
    table = (
        rows.groupby(["group", "n", "step"], sort=False)[["train_loss", "val_loss", "val_top1"]].mean().reset_index()
    )
    return Drawing(
        "curves",
        f"Training and validation as they went: {_data(tables)}",
        f"{counts(tables.networks)} A line is the mean over splits, directions and seeds for one n. The training "
        "loss is the mean since the evaluation before; it is that of the network in training (with dropout, if any).",
        panels,
        marks,
        table,
        columns=4,
    )


def _curve_panel(rows: pd.DataFrame, columns: dict[str, str], label: str) -> Callable[[Axes], None]:
    def paint(axes: Axes) -> None:
        for n, own in rows.groupby("n"):
            mark = _layer_mark(n)
            for column, style in columns.items():
                mean = own.groupby("step")[column].mean()
                axes.plot(mean.index, mean, style, color=mark.colour, lw=1.3)
                tips = [f"n = {n}, step {step}: {column} {value:.3f}" for step, value in mean.items()]
                dots = axes.scatter(mean.index, mean, s=9, color=mark.colour)
                with_tips(dots, tips)
        axes.set_xlabel("Training step")
        axes.set_ylabel(label)
        axes.set_ylim(0, None)

    return paint


def _layer_mark(n: int) -> Mark:
    return Mark(f"n = {n}", BY_LAYER[(n - 1) % len(BY_LAYER)], "o") if n else Mark("base", INK, "o")


def _distant_panel(axes: Axes, rows: pd.DataFrame) -> None:
    _by_target(axes, rows, DISSIMILAR)
    draw.points(axes, rows[rows.treatment == "base"], TREATMENTS["base"])
    axes.set_ylabel("Top-1 accuracy on the target task")


def _by_target(axes: Axes, rows: pd.DataFrame, mark: Mark) -> None:
    """A curve for each direction between natural and man-made."""
    for target, name, style in (("A", "natural (task A)", "-"), ("B", "man-made (task B)", "--")):
        if (rows.target == target).any():
            draw.curve(axes, rows[rows.target == target], mark, style)
            axes.plot([], [], style, color=mark.colour, label=f"target: {name}")
    axes.legend(loc="lower left", fontsize=8)
    draw.layer_axis(axes, rows.n.max())


def _random_panel(axes: Axes, rows: pd.DataFrame) -> None:
    draw.curve(axes, rows, TREATMENTS["RnB"])
    draw.points(axes, rows[rows.treatment == "base"], TREATMENTS["base"])
    draw.chance(axes, (1 / rows.classes).mean(), "left")
    draw.layer_axis(axes, rows.n.max())
    axes.set_ylabel("Top-1 accuracy on the target task")


def _mean_line(rows: pd.DataFrame, treatment: str) -> pd.Series:
    """Mean accuracy by n, starting at the base."""
    done = rows[rows.accuracy.notna() & rows.treatment.isin(["base", treatment])]
    return done.groupby("n").accuracy.mean()


def _published_means(tables: Tables, rows: pd.DataFrame) -> tuple[dict[str, pd.Series], str]:
    """The paper's mean lines: as they are for ImageNet, else moved so that its base lies at ours."""
    if tables.is_paper:
        return {}, ""
    theirs = published().networks
    theirs = theirs[theirs.split_kind == "random"]
    lines = {t: _mean_line(theirs, t) for t in MAIN if _finished(rows, t)}
    if tables.about["dataset"]["name"] == "imagenet":
        return lines, " Faint dashed: the paper's means."
    shift = rows[rows.treatment == "base"].accuracy.mean() - theirs[theirs.treatment == "base"].accuracy.mean()
    return {t: line + shift for t, line in lines.items()}, (
        " Faint dashed: the paper's means on ImageNet, moved so that its base lies at ours."
    )


def _published_relative(tables: Tables) -> dict[str, pd.Series]:
    """The paper's mean accuracy minus base by n, for AnB on random splits, on natural/man-made, and random filters."""
    if tables.is_paper:
        return {}
    theirs = published().networks
    near = theirs[(theirs.split_kind == "random") & theirs.treatment.isin(["base", "AnB"])]
    distant = theirs[(theirs.split_kind == "natural-manmade") & theirs.treatment.isin(["base", "AnB"])]
    random = _with_treated(theirs[theirs.split_kind == "all"])
    groups = {"AnB": near, "distant": distant, "RnB": random}
    return {name: draw.relative_to_base(rows).groupby("n").accuracy.mean() for name, rows in groups.items()}


def _finished(rows: pd.DataFrame, treatment: str) -> bool:
    return bool(rows[rows.treatment == treatment].accuracy.notna().any())


def _with_treated(rows: pd.DataFrame) -> pd.DataFrame:
    """Without the bases of tasks on which nothing but bases was trained."""
    return rows.groupby(BLOCK, dropna=False).filter(lambda own: (own.treatment != "base").any())


def _data(tables: Tables) -> str:
    about = tables.about
    volumes = sorted(set(tables.networks.images_per_class.dropna()))
    reduced = f", {volumes[0]:.0f} images a class" if len(volumes) == 1 else ""
    return f"{about['dataset']['name']}{reduced}, {about['network']['name']} network"


def counts(rows: pd.DataFrame) -> str:
    """How many networks of which splits, how many target tasks and seeds; how many are missing."""
    done, missing = int((rows.state == "done").sum()), int((rows.state == "missing").sum())
    tasks, seeds = rows.task.nunique(), rows.seed.nunique()
    text = f"{done} networks: {', '.join(sorted(rows.split.unique()))}; "
    text += f"{tasks} target {'task' if tasks == 1 else 'tasks'}, {seeds} {'seed' if seeds == 1 else 'seeds'}."
    return text + (f" {missing} networks of the study are missing here." if missing else "")


def _without_base(rows: pd.DataFrame) -> str:
    count = int((rows.accuracy.notna() & np.isnan(base_accuracy(rows))).sum())
    return f" {count} networks have no finished base and are not drawn relative to it." if count else ""


def _classes(rows: pd.DataFrame) -> str:
    return " and ".join(str(own.classes.iloc[0]) for _, own in rows.groupby("target"))


def statistic(tables: Tables) -> str:
    return f"Accuracy: {tables.about['statistic_label']}."


def _mean_table(rows: pd.DataFrame, tables: Tables) -> pd.DataFrame:
    """Mean, standard deviation and number of networks by treatment and n, and the paper's mean beside."""
    done = rows[rows.accuracy.notna()]
    table = done.groupby(["treatment", "n"]).accuracy.agg(["mean", "std", "size"]).reset_index()
    table.columns = ["treatment", "n", "mean accuracy", "standard deviation", "networks"]
    if not tables.is_paper:
        theirs = published().networks
        theirs = theirs[(theirs.split_kind == "random")].groupby(["treatment", "n"]).accuracy.mean()
        keys = pd.MultiIndex.from_frame(table[["treatment", "n"]])
        table["mean accuracy in the paper"] = theirs.reindex(keys).to_numpy()
    return table


def _relative_table(rows: pd.DataFrame, treatment: str, label: str) -> pd.DataFrame:
    relative = draw.relative_to_base(rows)
    done = relative[(relative.treatment == treatment) & relative.accuracy.notna()]
    plain = rows.loc[done.index].groupby("n").accuracy.mean()
    table = done.groupby("n").accuracy.agg(["mean", "std", "size"]).reset_index()
    table.columns = ["n", "mean minus base", "standard deviation", "networks"]
    table.insert(0, "networks of", label)
    table.insert(2, "mean accuracy", plain.reindex(table.n).to_numpy())
    return table


def _mosaic(rows: pd.DataFrame) -> np.ndarray:
    """All filters of one network side by side, (height, width, 4) in 0..1; grey is weight 0."""
    count, side = rows["filter"].max() + 1, rows["row"].max() + 1
    weights = rows.sort_values(["filter", "row", "column"])[["red", "green", "blue"]].to_numpy()
    weights = weights.reshape(count, side, side, 3)
    weights = weights / np.abs(weights).max(axis=(1, 2, 3), keepdims=True)
    across = int(np.ceil(np.sqrt(count)))
    down = int(np.ceil(count / across))
    mosaic = np.zeros((down * (side + 1) + 1, across * (side + 1) + 1, 4))  # what is between filters is transparent
    for i, picture in enumerate(weights):
        top, left = (i // across) * (side + 1) + 1, (i % across) * (side + 1) + 1
        mosaic[top : top + side, left : left + side, :3] = 0.5 + picture / 2
        mosaic[top : top + side, left : left + side, 3] = 1
    return mosaic


def design_drawing() -> Drawing:
    """The networks and their treatments (paper, figure 1)."""
    return Drawing(
        "design",
        "The networks of the study",
        "Task A and task B are two halves of the classes. Two base networks are trained; then the lowest n layers "
        "(here 3) of one of them are copied into a new network, whose upper layers start fresh, and which is trained "
        "on B. The same with A and B exchanged, and for every n.",
        [Panel("", design.draw, 5.2, 5.6)],
    )


def write_figures(folder: Path) -> tuple[list[Path], dict[str, str]]:
    """Draw every figure of the folder's tables into it; paths, and the figures that were not drawn with the reason."""
    made, absent = drawings(Tables.read(folder))
    remove_leftovers(folder)
    paths = [path for drawing in [design_drawing(), *made] for path in save(compose(drawing), folder / drawing.name)]
    return paths, absent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="a folder of analysis.collect or analysis.paper")
    options = parser.parse_args()
    paths, absent = write_figures(options.folder)
    for path in paths:
        print(path)
    for name, why in absent.items():
        print(f"{name}: not drawn: {why}")


if __name__ == "__main__":
    tool(main)()
