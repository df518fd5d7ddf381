"""What an accuracy is worth: beside the commonest class, over classes, of few images."""

import numpy as np
import pytest

from analysis.figures import accuracy
from analysis.figures import advice as figure
from analysis.plotting.layout import compose
from analysis.report import page
from analysis.statistics.baseline import balanced_accuracy, few_images, too_few
from analysis.statistics.claims import assess
from analysis.statistics.intervals import within
from analysis.statistics.linear_model import estimate, mean, subtract
from analysis.strategies import advise, summary
from analysis.tables import balancing
from tests.analysis.test_advice import WAYS, study
from tests.analysis.test_report import bases, finished
from tests.made_up import row, tables_of
from tests.miniature import shrunk
from transferability.errors import UserError

GOOD, DEFECT = 0, 1


def unbalanced(answers, images=200, defects=10, choose_by=None):
    """A study of 0.95 of one class, ``answers``: cell -> (good right, defects right) of each."""
    tables = study({cell: WAYS[cell] for cell in answers}, seeds=(0,))
    labels = np.repeat([GOOD, DEFECT], [images - defects, defects]).astype(np.int16)
    tables.predictions = {"t classes": np.array([0, 1], np.int16)}
    for part in ("validation", "test"):
        tables.predictions[f"t {part}"] = labels
    for cell, (good, defect) in answers.items():
        taken = np.full(images, DEFECT, np.int16)
        taken[:good] = GOOD
        taken[images - defects : images - defect] = GOOD
        for part in ("validation", "test"):
            tables.predictions[f"{cell}-0 {part}"] = taken
        own = tables.results.cell == cell
        tables.results.loc[own, ["top1", "test_top1"]] = (taken == labels).mean()
    tables.results["classes"] = 2
    tables.metadata["dataset"] = {"class_names": ["good", "defect"]}
    if choose_by:
        tables.metadata["choose_by"] = choose_by
    return tables


NOISE = {"baseB": (190, 0), "A2B": (190, 0), "A2.B": (190, 0), "A3B+": (189, 0)}
LEARNED = {"baseB": (190, 0), "A2B": (182, 9), "A2.B": (190, 2)}


def test_the_commonest_class_stands_beside_the_best():
    (advice,) = advise(unbalanced(NOISE))
    assert advice.best.test == 0.95 and advice.majority.accuracy == 0.95
    said = " ".join(advice.sentences)
    assert (
        "Always predicting 'good', the most frequent class, gives 0.950: the best is not " in said
    )
    assert "not significantly above that (+0.000 [-0.019, +0.019])" in said
    assert "Nothing cheaper is as good" not in said
    assert "Its balanced accuracy, the mean over classes, is 0.500 [" in said
    (advice,) = advise(unbalanced({"baseB": (190, 0), "A2B": (190, 10)}))
    assert "the most frequent class, gives 0.950. " in " ".join([*advice.sentences, ""])
    (advice,) = advise(study())
    assert advice.majority is None  # of a single class


def test_of_equals_the_cheapest_wins_but_in_tables_of_before():
    (advice,) = advise(unbalanced(NOISE, choose_by="accuracy"))
    assert advice.best.cell == "A2.B" and (advice.strategies.cost >= 1).all()
    assert advise(unbalanced(NOISE))[0].best.cell == "baseB"


def test_what_is_chosen_by_balanced_accuracy():
    by_accuracy, by_balanced = (
        advise(unbalanced(LEARNED, choose_by=by))[0] for by in ("accuracy", "balanced_accuracy")
    )
    assert (by_accuracy.best.cell, by_balanced.best.cell) == ("A2.B", "A2B")
    best = by_balanced.best
    assert best.balanced == best.validation_balanced == pytest.approx((182 / 190 + 9 / 10) / 2)
    rows = by_balanced.strategies.set_index("cell")
    assert rows.behind["baseB"] == pytest.approx(best.balanced - 0.5) and rows.apart["baseB"]
    assert by_balanced.majority.accuracy == pytest.approx(0.5)
    assert "chosen on validation images by balanced accuracy: " in by_balanced.sentences[0]
    assert summary([by_balanced]).test[0] == best.balanced
    tables = unbalanced(LEARNED, choose_by="balanced_accuracy")
    tables.metadata["dataset"]["name"] = "d"
    tables.metadata["network"] = {"name": "x", "layers": 4}
    drawing = figure.draw(tables)
    assert "balanced_low" in drawing.table and drawing.caption.startswith("Balanced accuracy on")
    assert "Always predicting 'good', the most frequent class, gives 0.500." in drawing.caption
    compose(drawing)


def test_an_interval_of_balanced_accuracy_is_that_of_weighted_images():
    """Two networks differ on 2 of 10 images of the rare class and on 8 of 190 of the other."""
    tables = unbalanced({"A2B": (182, 9), "A3B": (190, 7)}, choose_by="balanced_accuracy")
    tables.metadata["statistic"], tables.metadata["statistic_label"] = "top1_balanced", "balanced"
    tables.results["top1_balanced"] = [(182 / 190 + 0.9) / 2, (1 + 0.7) / 2]
    tables.results["val_images"] = 200
    found = estimate(tables.networks, subtract(mean("AnB", [2]), mean("AnB", [3])))
    difference = np.repeat([200 / 20, -200 / 380, 0.0], [2, 8, 190])
    assert found.value == pytest.approx(difference.mean()) == pytest.approx(0.1 - 8 / 380)
    assert found.error == pytest.approx(difference.std() / np.sqrt(200))


def test_agreement_on_a_rare_class_is_no_proof_of_equal_balanced_accuracy():
    """Two networks differ on 1 of 190 images, and are right on all 10 of the rare class."""
    tables = unbalanced({"A2B": (189, 10), "A3B": (190, 10)}, choose_by="balanced_accuracy")
    tables.metadata["statistic"] = "top1_balanced"
    tables.results["top1_balanced"] = [(189 / 190 + 1) / 2, 1.0]
    tables.results["val_images"] = 200
    found = estimate(tables.networks, subtract(mean("AnB", [2]), mean("AnB", [3])))
    assert found.error == pytest.approx(np.sqrt(1 / (190 * 192) + 1 / (10 * 12)) / 2)


def test_balanced_accuracy_of_one_network_has_no_binomial_bar():
    tables = unbalanced(LEARNED, choose_by="balanced_accuracy")
    tables.results["split_kind"], tables.results["val_images"] = "random", 200
    tables.metadata |= {"statistic_label": "x", "network": {"name": "x", "layers": 4}}
    tables.metadata["dataset"]["name"] = "d"
    assert "the 95% interval of its validation images" in accuracy.draw(tables).caption
    tables.metadata["statistic"] = "top1_balanced"
    tables.results["top1_balanced"] = tables.results.top1
    assert "none where there is but one" in accuracy.draw(tables).caption


def test_balanced_accuracy_by_hand():
    labels = np.array([0, 0, 0, 1, 2, 2])
    assert balancing(labels) == pytest.approx([2 / 3] * 3 + [2] + [1] * 2)
    assert balanced_accuracy(np.array([0, 0, 1, 1, 0, 2]), labels) == pytest.approx(
        (2 / 3 + 1 + 1 / 2) / 3
    )
    assert balanced_accuracy(np.zeros(6, int), labels) == pytest.approx(1 / 3)


def test_no_interval_is_beyond_what_is_possible():
    """Of two and three images."""
    for images in (2, 3):
        tables = unbalanced(
            {"A2B": (images - 1, 1), "baseB": (0, 0), "A3B": (images - 1, 0)}, images, 1
        )
        (advice,) = advise(tables)
        ways = advice.strategies
        for column in ("low", "high"):
            assert ways[column].between(-1, 1).all()
            assert ways[f"test_{column}"].between(0, 1).all()
            assert ways[f"balanced_{column}"].between(0, 1).all()
        # all of two or three images right is no proof (Clopper and Pearson)
        assert advice.best.test == 1 and advice.best.test_low == pytest.approx(
            0.025 ** (1 / images)
        )
        assert f"So few images cannot answer: with {images} test images" in advice.few
    assert within((0.5, -7.0, 3.0)) == (0.5, -1.0, 1.0)


@pytest.mark.parametrize(
    ("images", "differing", "words"),
    [
        (36, 0.2, "with 36 test images a difference below 0.15 is lost in chance; to see one of "
         "0.05 in 80% of cases takes about 677."),
        (1, 0.0, "with 1 test image a difference below 1.00 is lost"),
        (441, 0.2, None),
        (100, 0.01, None),
    ],
)  # fmt: skip
def test_few_images_are_said_to_be_few(images, differing, words):
    said = too_few(images, differing, "test")
    assert said is None if words is None else words in said


def test_networks_that_are_equal_support_and_contradict_nothing():
    """The last digit of a mean is no evidence."""
    cells = ("baseB", "A2B", "A3B", "A2B+", "A3B+")
    tables = unbalanced(dict.fromkeys(cells, (190, 0)), images=205, defects=15)
    claims = assess(tables.networks, 4)
    assert (claims.verdict != "not tested").any()
    assert set(claims[claims.threshold == 0].verdict) == {"inconclusive"}


def test_what_can_be_chosen_by(tmp_path):
    assert shrunk(tmp_path, "+study.choose_by=balanced_accuracy").study.choose_by
    with pytest.raises(UserError, match=r"study.choose_by=f1 must be accuracy or bal"):
        shrunk(tmp_path, "+study.choose_by=f1")


def test_a_report_of_few_validation_images_says_so():
    """Of a study without advice: 20 images, of which the networks differ on a fifth."""
    tables = study(WAYS, seeds=(0,))
    del tables.metadata["given"]
    tables.results["val_images"] = 20
    tables.predictions, known = {}, {}
    said = few_images(tables)
    assert "So few images cannot answer: with 20 validation images a difference below 0.25" in said
    assert "to see one of 0.05 in 80% of cases takes about 1,055." in said
    for i, run in enumerate(tables.results.run):
        known[f"{run} validation"] = np.arange(20) < 12 + 4 * (i > 0)
    tables.predictions = known | {"t validation": np.ones(20, np.int16)}
    assert "a difference below 0.21 is lost" in few_images(tables)
    tables.results["val_images"], tables.predictions = 5000, {}
    assert few_images(tables) is None
    other = bases(finished())
    assert "So few images" not in page(other)
    other.results["val_images"] = 20
    assert "<li>So few images cannot answer: with 20 validation images" in page(other)


def test_networks_of_other_images_are_not_compared_image_by_image():
    """Tasks of equally many images: the networks of each agree on all of them."""
    networks = [row(f"{x}{target}", "AnB", 3, 0.7, target) for target in "AB" for x in ("B3", "A3")]
    tables = tables_of(*networks)
    draw = np.random.default_rng(0)
    for target, own in tables.results.groupby("target"):
        right = draw.permutation(100) < 70
        tables.predictions[f"random-0 {target} validation"] = np.ones(100, np.int16)
        tables.predictions |= {f"{run} validation": right.astype(np.int16) for run in own.run}
    assert few_images(tables) is None
