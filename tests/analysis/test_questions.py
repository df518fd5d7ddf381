"""The small studies: each question finds its figure, and its table has numbers known by hand."""

from itertools import product

import numpy as np
import pandas as pd
import pytest

from analysis.plotting.layout import compose, save
from analysis.questions.write import question
from analysis.tables import RESULTS, StudyResults, kinds, mixed
from transferability.errors import UserError


def row(cell, treatment, n, top1, target="B", **values):
    """A finished network; ``values`` replace the usual ones."""
    usual = {
        "dataset": "d",
        "split": "random-0",
        "split_kind": "random",
        "cell": cell,
        "treatment": treatment,
        "n": n,
        "target": target,
        "seed": 0,
        "classes": 10,
        "val_images": 2500,
        "state": "done",
        "top1": top1,
        "in_study": True,
        "network": "small",
        "recipe": "demo",
        "images_per_class": np.nan,
    }
    return dict.fromkeys(RESULTS) | usual | values


def tables_of(rows) -> StudyResults:
    about = {
        "title": "t",
        "statistic": "top1",
        "statistic_label": "top-1",
        "dataset": {"name": "d"},
    }
    return StudyResults(about | {"network": {"name": "small"}}, pd.DataFrame(rows, columns=RESULTS))


def drawn(made, folder) -> None:
    (path,) = save(compose(made), folder / made.name, ["svg"])
    assert path.stat().st_size > 8_000


def reduced(**values) -> list[dict]:
    """From scratch, frozen and fine-tuned, with 10 and with 30 images per class."""
    cells = [("baseB", "base", 0, 0.9), ("A3B", "AnB", 3, 1.0), ("A3B+", "AnB+", 3, 0.9996)]
    return [row(*cell, images_per_class=v, **values) for v in (10.0, 30.0) for cell in cells]


def test_an_accuracy_of_one_is_written_as_such():
    """It was .000: the digit before the point is left out of the others."""
    (grid, _) = compose(question(tables_of(reduced()))).axes
    assert [text.get_text() for text in grid.texts] == ["1.000", "1.000*", ".900"] * 2


def test_numbers_of_images_at_two_rates_are_not_averaged():
    tables = tables_of([*reduced(recipe="rate 0.1"), *reduced(recipe="rate 0.2")])
    with pytest.raises(UserError, match="networks with 10 images per class differ in recipe"):
        question(tables)
    rows = [one | {"recipe": f"for {one['images_per_class']:.0f}"} for one in reduced()]
    assert question(tables_of(rows)).name == "volume"  # each has its own, as in study=reduced


def test_each_arrangement_may_have_a_recipe_of_its_own():
    """Fine-tuning often has a smaller rate: no mean is over two recipes."""
    rows = [one | {"recipe": "small"} if one["treatment"] == "AnB+" else one for one in reduced()]
    table = question(tables_of(rows)).table.set_index(["images a class", "arrangement"])
    assert table.accuracy[10, "fine-tune 3"] == 0.9996 and table.accuracy[10, "freeze 3"] == 1.0


def test_variants_are_compared_network_by_network_relative_to_their_own_base(tmp_path):
    rows = []
    for name, base, left in (("kaiming", 0.8, 0.5), ("caffe", 0.6, 0.25)):
        for target, more in (("A", 0.0), ("B", 0.02)):
            rows.append(row(f"base{target}", "base", 0, base, target, network=name))
            rows += [
                row(f"R{n}{target}", "RnB", n, base * left + more, target, network=name)
                for n in (1, 2)
            ]
    rows.append(row("R3B", "RnB", 3, np.nan, network="caffe", state="missing"))
    made = question(tables_of(rows))
    assert (
        made.name == "variants"
        and "10 networks" not in made.caption
        and "12 networks: random-0; 2 target tasks" in made.caption
    )
    assert "1 networks of the study are missing" in made.caption
    table = made.table.set_index(["variant", "treatment"])
    assert table.accuracy[("kaiming", "RnB")] == pytest.approx(0.41)
    assert table["share of the base's"][("caffe", "RnB")] == pytest.approx((0.25 + 0.17 / 0.6) / 2)
    assert table["share at n=2"][("kaiming", "RnB")] == pytest.approx((0.5 + 0.42 / 0.8) / 2)
    # accuracy minus base: caffe 0.15 - 0.6 = -0.45, kaiming 0.4 - 0.8 = -0.4,
    # on both tasks and for both n
    found = table.loc[("caffe", "RnB")]
    assert (found.difference, found.low, found.high, found.tasks) == (
        *[pytest.approx(-0.05)] * 3,
        2,
    )
    assert table.difference[("caffe", "base")] == pytest.approx(-0.2)
    drawn(made, tmp_path)


@pytest.mark.parametrize(
    ("pairs", "names"),
    [
        ([("plain", "demo"), ("batch", "rate 0.2")], ["plain", "batch"]),
        ([("small", "once"), ("small", "twice")], ["once", "twice"]),
        ([("a", "x"), ("a", "y"), ("b", "x")], ["a, x", "a, y", "b, x"]),
        ([("small", "demo")], ["small, demo"]),
    ],
)
def test_kinds_of_network_are_named_by_what_tells_them_apart(pairs, names):
    networks = pd.DataFrame(pairs * 2, columns=["network", "recipe"])
    assert kinds(networks).tolist() == names * 2


def test_the_dip_of_bnb_is_measured_in_each_variant():
    rows = []
    for name, middle in (("none", 0.7), ("BatchNorm", 0.8)):
        for target, more in (("A", 0.01), ("B", 0.03)):
            rows.append(row(f"base{target}", "base", 0, 0.8, target, network=name))
            values = {1: 0.8, 2: 0.8, 3: 0.1, 4: middle - more, 5: middle - more, 6: 0.2, 7: 0.8}
            rows += [
                row(f"{target}{n}{target}", "BnB", n, v, target, network=name)
                for n, v in values.items()
            ]
    table = question(tables_of(rows)).table.set_index(["variant", "treatment"])
    assert table.dip[("none", "BnB")] == pytest.approx(0.12)
    assert table.dip[("BatchNorm", "BnB")] == pytest.approx(0.02)
    half = 12.7062 * 0.01  # Student's t with one degree of freedom: two tasks, 0.01 from their mean
    assert table["dip low"][("none", "BnB")] == pytest.approx(0.12 - half, abs=1e-4)


def test_a_longer_base_is_set_against_fine_tuned_transfer(tmp_path):
    rows = [row("baseB", "base", 0, 0.5), row("baseB", "base", 0, 0.58, recipe="twice as long")]
    rows += [row(f"A{n}B+", "AnB+", n, 0.58 + 0.01 * n) for n in (1, 2, 3)]
    rows += [row(f"B{n}B+", "BnB+", n, 0.56) for n in (1, 2, 3)]
    made = question(tables_of(rows))
    table = made.table.set_index(["treatment", "over the base of recipe"])
    assert made.name == "longer" and table.difference[("AnB+", "demo")] == pytest.approx(0.1)
    assert table.difference[("AnB+", "twice as long")] == pytest.approx(0.02)
    assert table.difference[("BnB+", "twice as long")] == pytest.approx(-0.02)
    assert (
        table.difference[("base, twice as long", "demo")] == pytest.approx(0.08) and len(table) == 5
    )
    half = 1.96 * ((0.6 * 0.4 + 0.58 * 0.42) / 2500) ** 0.5  # a single task: the validation images
    assert table.high[("AnB+", "twice as long")] == pytest.approx(0.02 + half)
    assert set(table.covers) == {"validation images only"}
    drawn(made, tmp_path)


def test_preserved_layers_are_worth_what_they_add_to_frozen_ones(tmp_path):
    rows = [row("baseB", "base", 0, 0.5)]
    rows += [row(f"A{n}B", "AnB", n, 0.5 - 0.05 * n) for n in (1, 2, 3)]
    rows += [row(f"A{n}B~1", "AnB~1", n, 0.5 - 0.05 * n + 0.02 * n) for n in (1, 2)]
    rows += [row("A1B~2", "AnB~2", 1, 0.51)]
    made = question(tables_of(rows))
    found = made.table.set_index(["treatment", "n"]).value
    assert made.name == "preserved" and len(found) == 3
    assert found.tolist() == pytest.approx([0.02, 0.04, 0.06])
    # three differences that hold together: 1 - 0.05 / 3
    half = 2.3940 * ((0.47 * 0.53 + 0.45 * 0.55) / 2500) ** 0.5
    assert made.table.high[0] == pytest.approx(0.02 + half, abs=1e-5)
    drawn(made, tmp_path)


def test_the_grid_of_little_data_frames_the_best_and_marks_its_equals(tmp_path):
    rows = []
    for kind, split, gain in (
        ("random", "random-0", 0.1),
        ("natural-manmade", "natural-manmade", -0.1),
    ):
        for images, scratch in ((10, 0.2), (100, 0.5)):
            for seed, more in ((0, 0.03), (1, -0.03)):
                usual = {
                    "images_per_class": images,
                    "split": split,
                    "split_kind": kind,
                    "seed": seed,
                }
                rows.append(row("baseB", "base", 0, scratch + more, **usual, val_images=1250))
                for treatment, sign, extra in (("AnB", "", 0), ("AnB+", "+", 0.02)):
                    values = {n: scratch + gain * n / 2 + extra + more for n in (1, 2)}
                    rows += [
                        row(f"A{n}B{sign}", treatment, n, v, **usual, val_images=1250)
                        for n, v in values.items()
                    ]
    made = question(tables_of(rows))
    assert made.name == "volume" and len(made.panels) == 3 and len(made.table) == 20 + 4
    table = made.table.set_index(["splits", "images a class", "arrangement"])
    near, far = table.loc[("random", 10)], table.loc[("natural-manmade", 100)]
    assert near.index[near.best].tolist() == ["fine-tune 2"] and far.index[far.best].tolist() == [
        "scratch"
    ]
    assert near.accuracy["freeze 2"] == pytest.approx(0.3)
    assert near["minus scratch"]["freeze 2"] == pytest.approx(0.1)
    # 0.02 is within 1.96 sqrt((0.3 x 0.7 + 0.32 x 0.68) / 1250) = 0.036,
    # of both seeds' images once; 0.05 is not
    assert near.among_the_best.to_dict() == {
        "scratch": False,
        "freeze 1": False,
        "freeze 2": True,
        "fine-tune 1": False,
        "fine-tune 2": True,
        "freeze - fine-tune, mean over n": False,
    }
    either = near.loc["freeze - fine-tune, mean over n"]
    assert either.difference == pytest.approx(-0.02) and either.networks == 8
    half = 1.96 * ((0.25 * 0.75 + 0.27 * 0.73 + 0.3 * 0.7 + 0.32 * 0.68) / 2 / 1250) ** 0.5
    assert (either.low, either.high) == (pytest.approx(-0.02 - half), pytest.approx(-0.02 + half))
    drawn(made, tmp_path)


def test_better_than_scratch_is_said_of_networks_of_one_task():
    """Target A is easier, and its network from scratch at 10 images is missing."""
    rows = []
    for target, easier in (("A", 0.2), ("B", 0.0)):
        for images in (10, 100):
            usual = {"images_per_class": images, "target": target}
            rows += [row(f"base{target}", "base", 0, 0.3 + easier, **usual)] * (
                (target, images) != ("A", 10)
            )
            rows.append(row(f"x1{target}", "AnB", 1, 0.35 + easier, **usual))
    made = question(tables_of(rows))
    table = made.table.set_index(["images a class", "arrangement"])
    assert table["minus scratch"].loc[10, "freeze 1"] == pytest.approx(0.05)
    assert table.accuracy[10].to_dict() == pytest.approx({"scratch": 0.3, "freeze 1": 0.35})
    assert set(table.networks[10]) == {1} and set(table.networks[100]) == {2}
    assert "Tasks that lack a network of a row are left out of it." in made.caption


def test_equal_networks_on_few_images_have_an_interval_of_some_width():
    """Freezing and fine-tuning both have all 20 images right: it was [0, 0]."""
    cells = [("baseB", "base", 0, 0.5), ("A1B", "AnB", 1, 1.0), ("A1B+", "AnB+", 1, 1.0)]
    rows = [row(*cell, images_per_class=v, val_images=20) for v in (10, 20) for cell in cells]
    table = question(tables_of(rows)).table.set_index(["images a class", "arrangement"])
    either = table.loc[(10, "freeze - fine-tune, mean over n")]
    assert either.difference == 0
    margin = 1 - 0.025 ** (1 / 20)
    assert (either.low, either.high) == (pytest.approx(-margin), pytest.approx(margin))


def balanced(rows, right, predicted=True) -> StudyResults:
    """Rows of one task of 190 and 10 validation images; ``right``: how many of each, per row."""
    labels = np.repeat([0, 1], [190, 10]).astype(np.int16)
    found = {"B validation": labels}
    for number, (one, (many, few)) in enumerate(zip(rows, right, strict=True)):
        good = np.concatenate([np.arange(190) < many, np.arange(10) < few])
        found[f"{number} validation"] = np.where(good, labels, 1 - labels)
        one |= {"run": f"{number}", "task": "B", "val_images": 200}
        one["top1_balanced"] = (many / 190 + few / 10) / 2
    made = tables_of(rows)
    made.results["top1_balanced"] = [one["top1_balanced"] for one in rows]
    made.metadata |= {"statistic": "top1_balanced", "statistic_label": "balanced"}
    made.predictions = found if predicted else {}
    return made


def test_a_rare_class_widens_the_intervals_of_a_balanced_grid():
    """6 of its 10 images right or 9: 0.15 of balanced accuracy, which may be chance."""
    right = [(190, 2), (190, 6), (190, 9)] * 2

    def found(predicted):
        rows = [one | {"top1": 0.9} for one in reduced()]
        made = question(balanced(rows, right, predicted))
        drawn_table = made.table.set_index(["images a class", "arrangement"]).loc[10]
        return made, drawn_table

    made, table = found(True)
    assert table.accuracy["freeze 3"] == pytest.approx(0.8)
    assert table.among_the_best.to_dict() == {
        "scratch": False,
        "freeze 3": True,
        "fine-tune 3": True,
        "freeze - fine-tune, mean over n": False,
    }
    assert table.low["freeze - fine-tune, mean over n"] < -0.3 and "not kept" not in made.caption
    made, table = found(False)
    assert table.low.isna().all() and table.among_the_best.sum() == 0
    assert "; none, as predictions were not kept)" in made.caption
    compose(made)


@pytest.mark.parametrize(
    ("scratch", "predicted", "equal"),
    [(130, True, [True, True, False]), (185, False, [False] * 3)],
    ids=["wide", "unknown"],
)
def test_the_best_of_a_balanced_grid_has_its_own_margin(scratch, predicted, equal):
    """Freezing is the best, all right; from scratch the rare class is, too."""
    rows = [one | {"top1": 0.9} for one in reduced()]
    tables = balanced(rows, [(scratch, 10), (190, 10), (190, 0)] * 2)
    if not predicted:
        del tables.predictions["1 validation"]
    table = question(tables).table.set_index(["images a class", "arrangement"]).loc[10]
    assert table.among_the_best[["scratch", "freeze 3", "fine-tune 3"]].tolist() == equal


def test_a_depth_without_predictions_leaves_their_mean_without_an_interval():
    """The difference is over all depths; its interval was that of the others."""
    cells = [
        ("baseB", "base", 0),
        *((f"A{n}B{p}", f"AnB{p}", n) for n in (3, 4) for p in ("", "+")),
    ]
    rows = [row(*cell, 0.9, images_per_class=v) for v in (10.0, 30.0) for cell in cells]
    tables = balanced(rows, [(180, 8)] * len(rows))
    del tables.predictions["1 validation"]  # A3B of 10 images
    table = question(tables).table.set_index(["images a class", "arrangement"])
    means = table.xs("freeze - fine-tune, mean over n", level="arrangement")
    assert means.difference.tolist() == [0, 0] and means.low.isna().tolist() == [True, False]


def test_a_rare_class_widens_the_interval_of_a_balanced_longer_base():
    rows = [row("baseB", "base", 0, 0.9), row("baseB", "base", 0, 0.9, recipe="twice as long")]
    rows += [row(f"A{n}B+", "AnB+", n, 0.9) for n in (1, 2)]
    right = [(190, 4), (190, 6), (190, 7), (190, 7)]
    made = question(balanced(rows, right))
    table = made.table.set_index(["treatment", "over the base of recipe"])
    one = table.loc[("AnB+", "demo")]
    assert one.difference == pytest.approx(0.15) and one.low < -0.09 and one.high > 0.33
    made = question(balanced(rows, right, predicted=False))
    known = made.table.dropna(subset="difference")
    assert known.low.isna().all() and set(known.covers) == {"nothing: no predictions"}
    assert "none, as predictions were not kept" in made.caption
    compose(made)
    tables = balanced(rows, right)
    del tables.predictions["2 validation"]
    assert "not kept" not in question(tables).caption, "a network that is no base has no bar"


def test_a_task_of_few_images_widens_the_interval_of_the_mean_over_tasks():
    """50 images of one task and 5,000 of the other are not 5,050 of a mean."""
    cells = [("base", "base", 0, 0.5), ("A1B", "AnB", 1, 0.5), ("A1B+", "AnB+", 1, 0.5)]
    rows = [
        row(*cell, target, images_per_class=volume, val_images=images)
        for target, images in (("A", 50), ("B", 5000))
        for volume in (10, 20)
        for cell in cells
    ]
    table = question(tables_of(rows)).table.set_index(["images a class", "arrangement"])
    half = 1.96 * (2 * (0.25 / 50 + 0.25 / 5000) / 4) ** 0.5
    assert table.high[10, "freeze - fine-tune, mean over n"] == pytest.approx(half)


def test_tasks_that_lack_different_networks_are_not_averaged():
    """Target A, easier, has no frozen network, and target B none from scratch."""
    rows = []
    for seed in (0, 1):
        rows.append(row("baseA", "base", 0, 0.5, "A", images_per_class=10, seed=seed))
        rows.append(row("B1A+", "AnB+", 1, 0.6, "A", images_per_class=10, seed=seed))
    rows.append(row("A1B", "AnB", 1, 0.3, images_per_class=10))
    rows.append(row("A1B+", "AnB+", 1, 0.4, images_per_class=10))
    rows.append(row("baseA", "base", 0, 0.5, "A", images_per_class=20))
    rows.append(row("B1A+", "AnB+", 1, 0.6, "A", images_per_class=20))
    table = question(tables_of(rows)).table.set_index(["images a class", "arrangement"])
    expected = {"scratch": 0.5, "fine-tune 1": 0.6}
    assert table.accuracy[10].dropna().to_dict() == pytest.approx(expected)
    assert set(table.networks[10]) == {2}


def test_a_task_of_two_splits_does_not_displace_tasks_of_one():
    """Both splits have target B, whose networks were taken for a longer list than those of A."""
    rows = []
    for images, split in product((10, 20), ("one", "two")):
        for target, source, base in ("A", "B", 0.7), ("B", "A", 0.5):
            kind = {
                "split": split,
                "split_kind": "user",
                "images_per_class": images,
                "target": target,
            }
            own = [row(f"base{target}", "base", 0, base, **kind)]
            own.append(row(f"{source}1{target}", "AnB", 1, base, **kind))
            rows += [one | {"task": "B" if target == "B" else f"A {split}"} for one in own]
    table = question(tables_of(rows)).table.set_index(["images a class", "arrangement"])
    assert table.networks[10].dropna().to_dict() == {"scratch": 4, "freeze 1": 4}
    assert table.accuracy[10].dropna().to_dict() == pytest.approx({"scratch": 0.6, "freeze 1": 0.6})


def test_a_missing_network_neither_counts_as_a_task_nor_goes_unsaid():
    rows = []
    for name, above in (("kaiming", 0.0), ("caffe", 0.1)):
        for seed in (0, 1, 2):
            rows.append(row("baseB", "base", 0, 0.5, seed=seed, network=name))
            rows.append(
                row(
                    "A1B",
                    "AnB",
                    1,
                    0.5 + above + 0.01 * seed * (above > 0),
                    seed=seed,
                    network=name,
                )
            )
    rows[-2] |= {"top1": np.nan, "state": "missing"}  # caffe's base of seed 2
    made = question(tables_of(rows))
    found = made.table.set_index(["variant", "treatment"]).loc[("caffe", "AnB")]
    half = 12.7062 * 0.005  # Student's t with one degree of freedom: 0.10 and 0.11
    assert found.tasks == 2 and (found.low, found.high) == pytest.approx(
        (0.105 - half, 0.105 + half), abs=1e-5
    )
    assert "1 networks of the study are missing here" in made.caption


def test_every_question_says_what_is_missing():
    gone = {"top1": np.nan, "state": "missing"}
    bases = [row("baseB", "base", 0, 0.5, recipe=recipe) for recipe in ("demo", "twice")]
    longer = question(
        tables_of([*bases, row("A1B+", "AnB+", 1, 0.5), row("A2B+", "AnB+", 2, 0.5) | gone])
    )
    both = [row("baseB", "base", 0, 0.5, split=split) for split in ("random-0", "random-1")]
    both += [row("B7B", "BnB", 7, 0.5, split=split) for split in ("random-0", "random-1")]
    others = [row("R7B", "RnB", 7, 0.5), row("A7B", "AnB", 7, 0.5) | gone]
    replicates = question(tables_of([*both, *others]))
    for made, name, count in ((longer, "longer", 3), (replicates, "replicates", 4)):
        assert made.name == name and f"{count} networks: " in made.caption, (
            "random filters are not compared here"
        )
        assert "1 networks of the study are missing here" in made.caption
    with pytest.raises(UserError, match=r"neither BnB\+ nor AnB\+ is finished"):
        question(tables_of([*bases, row("A1B", "AnB", 1, 0.5)]))


def test_replicates_of_two_n_name_what_one_of_them_lacks():
    rows = []
    for split in ("random-0", "random-1"):
        rows += [
            row("baseB", "base", 0, 0.4, split=split),
            row("A7B+", "AnB+", 7, 0.45, split=split),
        ]
        rows += [row(f"B{n}B+", "BnB+", n, 0.42, split=split) for n in (6, 7)]
    made = question(tables_of(rows))
    assert len(made.panels) == 2 and len(made.table) == 1 + 3
    compose(made)


def test_replicates_count_splits_not_directions(tmp_path):
    rows = []
    for split, gains in (
        ("random-0", (0.03, -0.01)),
        ("random-1", (0.04, 0.02)),
        ("random-2", (0.5, None)),
    ):
        for target, gain in zip("AB", gains, strict=True):
            rows.append(row(f"base{target}", "base", 0, 0.4, target, split=split))
            rows.append(row(f"{target}7{target}", "BnB", 7, 0.39, target, split=split))
            if gain is not None:
                rows += [row(f"x7{target}+", "AnB+", 7, 0.4 + gain, target, split=split)]
    rows.append(row("A7B", "AnB", 7, 0.1, split="natural-manmade", split_kind="natural-manmade"))
    made = question(tables_of(rows))
    table = made.table.set_index("quantity")
    assert made.name == "replicates" and list(table.index) == [
        "co-adaptation loss",
        "gain over base",
    ]
    found = table.loc["gain over base"]  # random-2, of one direction, is shown but not counted
    # Student's t with one degree of freedom: 0.01 and 0.03 are 0.01 from their mean
    half = 12.7062 * 0.01
    assert found[["difference", "low", "high"]].tolist() == pytest.approx(
        [0.02, 0.02 - half, 0.02 + half], abs=1e-5
    )
    assert found["splits"] == "2" and found["tasks above 0"] == "4 of 5"
    # decompose(published): AnB+ - base at n = 7
    assert found.paper == pytest.approx(0.0135, abs=1e-4)
    assert table.difference["co-adaptation loss"] == pytest.approx(0.01)
    drawn(made, tmp_path)


def test_replicates_without_two_treatments_are_one_clear_line():
    rows = [row("A7B", "AnB", 7, 0.4, split=split) for split in ("random-0", "random-1")]
    with pytest.raises(UserError, match="finished in one task"):
        question(tables_of(rows))


def test_a_study_that_varies_nothing_is_one_clear_line():
    with pytest.raises(UserError, match="nothing to compare"):
        question(tables_of([row("baseB", "base", 0, 0.5), row("A1B", "AnB", 1, 0.5)]))
    distant = row("A1B", "AnB", 1, 0.5, split="natural-manmade", split_kind="natural-manmade")
    with pytest.raises(UserError, match="nothing to compare"):
        question(tables_of([row("baseB", "base", 0, 0.5), row("A1B", "AnB", 1, 0.5), distant]))


@pytest.mark.parametrize("vary", [{"images_per_class": 10}, {"recipe": "other"}])
def test_strategies_for_a_pretrained_base_are_compared_elsewhere(vary):
    """There is no base of the same task, of which they would keep a share."""
    given = {"split": "pretrained", "split_kind": "pretrained"}
    rows = [row("A1B", "AnB", 1, 0.5, **given), row("A1B", "AnB", 1, 0.4, **given | vary)]
    with pytest.raises(UserError, match="pretrained base are compared by the figure `advice`"):
        question(tables_of(rows))
    assert mixed(tables_of(rows).networks).endswith("the figure `advice` compares them")


def test_more_than_a_figure_can_tell_apart_is_one_clear_line():
    kinds_of = [{"network": f"kind {i}"} for i in range(7)]
    rows = [row("A1B", "AnB", 1, 0.5, **kind) for kind in kinds_of]
    rows += [row("baseB", "base", 0, 0.5, **kind) for kind in kinds_of]
    with pytest.raises(UserError, match="7 kinds of network: the figure has room for 6"):
        question(tables_of(rows))
    rows = [row("baseB", "base", 0, 0.5, recipe=f"recipe {i}") for i in range(4)]
    with pytest.raises(UserError, match="4 recipes: the figure has room for 3"):
        question(tables_of([*rows, row("A1B+", "AnB+", 1, 0.5, recipe="recipe 0")]))
    rows = [row(f"A1B~{k}", f"AnB~{k}", 1, 0.5) for k in range(1, 5)]
    with pytest.raises(UserError, match="4 preserved depths: the figure has room for 3"):
        question(tables_of([*rows, row("A1B", "AnB", 1, 0.5)]))


def test_preserved_layers_without_anb_to_compare_with_are_one_clear_line():
    rows = [row("baseB", "base", 0, 0.5), row("A1B~1", "AnB~1", 1, 0.5), row("A2B", "AnB", 2, 0.5)]
    with pytest.raises(UserError, match="compared with AnB of the same n"):
        question(tables_of(rows))


def test_what_freezing_costs_by_distance(tmp_path):
    """Two targets whose losses are 0.01 a step of distance, from levels of their own; the paper's
    splits stand on the same axis.
    """
    rows, distances = [], []
    for task, own, level in (("one", 0.6, 0.0), ("two", 0.5, 0.1)):
        rows.append(row("B3B", "BnB", 3, own, split="distance-0", task=task))
        distances.append(np.nan)
        for step, far in enumerate((8, 12, 16)):
            split, kind = f"distance-{step}", "distance"
            loss = level + 0.01 * (far - 12)
            rows.append(row("A3B", "AnB", 3, own - loss, split=split, split_kind=kind, task=task))
            distances.append(far)
    tables = tables_of(rows)
    tables.results["distance"] = distances
    tables.metadata["distances"] = {"random-0": 12.4, "natural-manmade": 14.9}
    made = question(tables)
    assert made.name == "wordnet" and [panel.title for panel in made.panels] == ["n = 3"]
    (found,) = made.table.to_dict("records")
    assert (found["sources"], found["targets"], found["rises"]) == (6, 2, "2 of 2")
    assert found["mean loss"] == pytest.approx(0.05)
    for key, value in (("slope", 0.01), ("bend", 0.0)):
        for part in ("", " low", " high"):
            assert found[key + part] == pytest.approx(value, abs=1e-9), key + part
    drawn(made, tmp_path)
    tables.results = tables.results[tables.results.treatment != "BnB"]
    with pytest.raises(UserError, match="no target task has a finished BnB and AnB of the same n"):
        question(tables)
