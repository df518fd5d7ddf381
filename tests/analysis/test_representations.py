"""First-layer filters, similarity and activity of layers: estimators against definitions,
tables against runs.
"""

from itertools import permutations

import numpy as np
import pandas as pd
import pytest
import torch

from analysis.figures.filters import mosaic
from analysis.measurements.filters import first_layer_filters
from analysis.measurements.representations import (
    activity,
    cka,
    layer_outputs,
    similarity,
    spread,
    unit_gram,
    unit_grams,
)
from tests.miniature import CPU
from transferability.rng import torch_rng
from transferability.runs.store import Store
from transferability.runs.wave import make_cohorts
from transferability.training.loader import TaskLoader
from transferability.training.state import PrefixCache

FILTERS = ["split", "seed", "network", "filter", "row", "column", "red", "green", "blue"]
ACTIVITY = ["run", "layer", "cosine", "silent", "images"]
SIMILARITY = ["split", "seed", "pair", "a", "b", "layer", "cka", "images", "run_a", "run_b"]
TOLERANCE = {"abs": 1e-12}


def gaussian(images: int, features: int, key: int = 0) -> torch.Tensor:
    return torch.randn(images, features, generator=torch_rng(key), dtype=torch.float64)


def debiased(x: torch.Tensor, y: torch.Tensor) -> float:
    return cka(unit_gram(x), unit_gram(y))


def biased(x: torch.Tensor, y: torch.Tensor) -> float:
    """Linear CKA as Kornblith et al. 2019 define it."""
    x, y = (z - z.mean(0) for z in (x, y))
    k, l_ = x @ x.T, y @ y.T
    return ((k * l_).sum() / (k.norm() * l_.norm())).item()


def unbiased_hsic(x: torch.Tensor, y: torch.Tensor) -> float:
    """The U-statistic of Song et al. 2012 by its definition:
    a mean over all ordered quadruples of different images.

    The mean of k_ij (l_ij + l_qr - 2 l_iq), with k and l the scalar products of two
    images' features.
    """
    k, l_ = x @ x.T, y @ y.T
    terms = [
        k[i, j] * (l_[i, j] + l_[q, r] - 2 * l_[i, q])
        for i, j, q, r in permutations(range(len(x)), 4)
    ]
    return (sum(terms) / len(terms)).item()


def labelled(table: pd.DataFrame) -> list[tuple]:
    return list(
        dict.fromkeys(table[["split", "seed", "pair", "a", "b"]].itertuples(index=False, name=None))
    )


@pytest.fixture(scope="module")
def user_split(tmp_path_factory, dataset) -> str:
    """A file with two tasks of two classes, half of the dataset's."""
    names = [info.name for info in dataset.classes]
    path = tmp_path_factory.mktemp("split") / "mine.yaml"
    path.write_text(f"A: {names[:2]}\nB: {names[5:7]}\n")
    return str(path)


@pytest.fixture(scope="module")
def store(spec_of, trained, user_split):
    """Both bases of two seeds and of two more splits, one base of a fourth,
    and networks that copy or are random.
    """
    asked = [
        ("baseA", "random-0", 0),
        ("A1B", "random-0", 0),
        ("R1B", "random-0", 0),
        ("R1A", "random-0", 0),
    ]
    asked += [(base, "random-0", 1) for base in ("baseA", "baseB")] + [("baseB", "random-0", 0)]
    asked += [
        (base, split, 0) for split in ("natural-manmade", user_split) for base in ("baseA", "baseB")
    ]
    asked += [("baseB", "random-3", 0)]
    return trained([spec_of(*one) for one in asked])


@pytest.fixture
def random_0(spec_of):
    """A study of one split and seed; its bases are known only as sources."""
    return [spec_of(cell) for cell in ("A1B", "B1B", "A1A", "B1A")]


# The estimator


def test_cka_of_features_with_themselves_is_one():
    for x in (gaussian(30, 7), gaussian(30, 500), gaussian(30, 500).float()):
        assert debiased(x, x) == pytest.approx(1, **TOLERANCE)


def test_cka_ignores_rotation_scale_and_shift_but_not_a_stretch():
    x, y = gaussian(40, 6), gaussian(40, 9, 1)
    y[:, :3] += x[:, :3]
    rotation, _ = torch.linalg.qr(gaussian(9, 9, 2))
    value = debiased(x, y)
    assert 0.05 < value < 0.95
    for same in (y @ rotation, -3.7 * y, y + gaussian(1, 9, 3)):
        assert debiased(x, same) == pytest.approx(value, **TOLERANCE)
        assert debiased(same, x) == pytest.approx(value, **TOLERANCE)
    assert debiased(x, y + 1e6) == pytest.approx(value, abs=1e-8), "a large mean costs no digits"
    assert debiased(x, y * torch.arange(1, 10)) != pytest.approx(value, abs=0.01)


def test_independent_features_have_cka_zero_where_the_biased_estimator_has_nearly_one():
    for key in range(5):
        x, y = gaussian(100, 9000, 2 * key), gaussian(100, 9000, 2 * key + 1)
        assert abs(debiased(x, y)) < 0.05
        assert biased(x, y) > 0.9


def test_the_estimator_is_the_mean_over_quadruples_of_images():
    for key in range(3):
        x, y = gaussian(5, 4, key) + 2, gaussian(5, 3, key + 10)
        y[:, 0] += x[:, 0]
        wanted = unbiased_hsic(x, y) / (unbiased_hsic(x, x) * unbiased_hsic(y, y)) ** 0.5
        assert debiased(x, y) == pytest.approx(wanted, **TOLERANCE)
        assert debiased(x, y) != pytest.approx(biased(x, y), abs=0.01)


def test_more_features_than_a_block_are_all_counted():
    x = gaussian(12, 10000)
    gram = unit_gram(x)
    torch.testing.assert_close(gram, unit_gram(x.flip(1)), rtol=0, atol=1e-12)
    assert cka(gram, unit_gram(x[:, :4096])) < 0.9
    torch.testing.assert_close(
        gram.sum(1), torch.zeros(12, dtype=torch.float64), rtol=0, atol=1e-12
    )
    assert gram.dtype == torch.float64 and not gram.diagonal().any()


def test_there_is_no_similarity_without_variation_or_with_too_few_images():
    assert np.isnan(debiased(gaussian(1, 5).float().expand(11, 5), gaussian(11, 5)))
    assert np.isnan(debiased(gaussian(3, 5), gaussian(3, 5, 1)))
    assert not np.isnan(debiased(gaussian(4, 5), gaussian(4, 5, 1)))


# The table of filters


def test_filters_are_the_stored_weights_bit_for_bit(spec_of, store, dataset, random_0):
    table = first_layer_filters(random_0, store)
    assert list(table.columns) == FILTERS
    assert set(table.network) == {"baseA", "baseB", "untrained"} and set(table.split) == {
        "random-0"
    }
    assert len(table) == 3 * 4 * 5 * 5
    # "untrained" against a run: the frozen layer 1 of the random-filter network of target B,
    # and not of target A.
    runs = {"baseA": "baseA", "baseB": "baseB", "untrained": "R1B"}
    for network, cell in runs.items():
        weight = store.weights(spec_of(cell))["layers.0.conv.weight"]
        assert weight.shape == (4, 3, 5, 5)
        rows = table[table.network == network].set_index(["filter", "row", "column"])
        for (filter_, row, column), colors in rows[["red", "green", "blue"]].iterrows():
            assert np.array_equal(colors.to_numpy(), weight[filter_, :, row, column].numpy())
        assert len(rows.index.unique()) == 4 * 5 * 5
    of_a = store.weights(spec_of("R1A"))["layers.0.conv.weight"]
    assert not torch.equal(of_a, weight)


def test_a_mosaic_shows_each_filter_at_its_own_scale_and_weight_0_gray():
    weights = np.zeros((3, 2, 2, 3))
    weights[1, 0, 1] = (0.5, -0.25, 0)
    weights[2, 1, 0] = (0, 0, -8)
    weights[0, 0, 0, 0] = 1e-6
    picture = mosaic(weights)  # two across, two down, a pixel between
    assert picture.shape == (7, 7, 4)
    assert picture[1, 5, :3].tolist() == [1, 0.25, 0.5]
    assert picture[5, 1, :3].tolist() == [0.5, 0.5, 0]
    assert picture[1, 1, :3].tolist() == [1, 0.5, 0.5]
    assert picture[2, 2].tolist() == [0.5, 0.5, 0.5, 1]
    assert picture[..., 3].sum() == 3 * 4


def test_filters_are_of_the_first_split_and_seed_with_both_bases(spec_of, store, dataset):
    specs = [spec_of("baseB", "random-3"), spec_of("baseA", "random-3")]  # baseA is not finished
    table = first_layer_filters(specs, store)
    assert set(table.network) == {"baseB", "untrained"} and set(table.split) == {"random-3"}
    specs += [
        spec_of("A1B", seed=1),
        spec_of("baseB", seed=1),
        *(spec_of(f"base{t}") for t in "AB"),
    ]
    table = first_layer_filters(specs, store)
    assert set(table.network) == {"baseA", "baseB", "untrained"}
    assert set(zip(table.split, table.seed, strict=True)) == {("random-0", 1)}


def test_untrained_layers_are_those_of_a_run_with_a_mean_image(spec_of, trained, dataset):
    """The mean is read from the base, not from the images;
    BatchNorm and the mean's shape are no obstacle.
    """
    network = {"normalization": "batch", "mean": "image"}
    specs = [spec_of(cell, network=network) for cell in ("baseA", "baseB", "R1B")]
    store = trained(specs)
    table = first_layer_filters(specs, store)
    weight = store.weights(specs[2])["layers.0.conv.weight"]
    rows = table[table.network == "untrained"]
    colors = torch.from_numpy(rows[["red", "green", "blue"]].to_numpy())
    assert torch.equal(colors.reshape(4, 5, 5, 3), weight.permute(0, 2, 3, 1))


# The table of similarities


def test_rows_and_columns_of_a_study(store, dataset, random_0):
    table = similarity(random_0, store, dataset)
    assert list(table.columns) == SIMILARITY
    assert labelled(table) == [
        ("random-0", 0, pair, "baseA", "baseB") for pair in ("bases", "untrained")
    ]
    assert table.layer.tolist() == [1, 2, 3, 4, 5, 6, 7] * 2
    assert set(table.images) == {8 * 5}
    assert table.cka.notna().all() and (table.cka <= 1).all()
    bases, untrained = (table[table.pair == pair].cka.to_numpy() for pair in ("bases", "untrained"))
    assert np.all(bases != untrained) and np.all(bases < 0.9999)


@pytest.mark.parametrize("mean", ["channel", "image"])
def test_similarity_is_of_the_layers_that_training_evaluates(
    mean, spec_of, trained, dataset, tmp_path
):
    """Against the outputs of the training code's own networks, at step 0 and at the end,
    on both tasks' images.
    """
    specs = [
        spec_of(f"base{task}", network={"normalization": "batch", "dropout": 0.5, "mean": mean})
        for task in "AB"
    ]
    store = trained(specs)
    table = similarity(specs, store, dataset)
    images = TaskLoader(dataset, list(range(8)), None, 0, specs[0].recipe, 14, CPU.device)
    for pair in ("untrained", "bases"):
        grams = []
        for cohort in make_cohorts(specs, Store(tmp_path), dataset, CPU):
            (member,) = cohort.states
            if pair == "bases":
                member.network.load_state_dict(store.weights(member.spec))
            outputs = [[] for _ in range(8)]
            for layer, values in zip(member.network.layers, outputs, strict=True):
                layer.register_forward_hook(
                    lambda *call, values=values: values.append(call[2].detach().flatten(1))
                )
            member.network.eval()
            for batch in images.validation():
                member.logits(batch, PrefixCache(batch))
            grams.append([unit_gram(torch.cat(values)) for values in outputs[:7]])
        wanted = [cka(a, b) for a, b in zip(*grams, strict=True)]
        found = table[table.pair == pair].cka.to_numpy()
        assert found == pytest.approx(wanted, abs=1e-6)  # of float32 sums, whose order may differ


def test_images_are_a_draw_of_both_tasks_validation_images(
    spec_of, store, dataset, random_0, monkeypatch
):
    seen = []

    def spy(network, stream):
        seen.append(stream.val_rows)
        return unit_grams(network, stream)

    monkeypatch.setattr("analysis.measurements.representations.unit_grams", spy)
    assert set(similarity(random_0, store, dataset, images=20).images) == {20}
    assert all(np.array_equal(rows, seen[0]) for rows in seen), "every network sees the same images"
    assert len(np.unique(seen[0])) == 20 and seen[0].min() >= dataset.n_train
    assert not np.array_equal(seen[0], dataset.val_rows(list(range(8)))[:20])
    labels = set(dataset.labels[seen[0]])
    assert all(labels & set(spec_of(f"base{task}").classes) for task in "AB")


def test_another_seed_is_compared_with_the_base_of_the_same_task(spec_of, store, dataset):
    specs = [spec_of(f"base{task}", seed=seed) for seed in (0, 1) for task in "AB"]
    table = similarity(specs, store, dataset)
    both = [
        ("random-0", seed, pair, "baseA", "baseB")
        for pair in ("bases", "untrained")
        for seed in (0, 1)
    ]
    other = [("random-0", 0, "other seed", f"base{task}", f"base{task} seed 1") for task in "AB"]
    assert labelled(table) == both + other
    assert (table.groupby(["seed", "pair", "a"]).layer.count() == 7).all()


def test_every_split_is_compared_with_itself_on_its_own_images(spec_of, store, dataset, user_split):
    specs = [
        spec_of(f"base{task}", split)
        for split in ("random-0", "natural-manmade", user_split)
        for task in "AB"
    ]
    table = similarity(specs, store, dataset)
    assert table.groupby("split", sort=False).size().to_dict() == {
        "random-0": 14,
        "natural-manmade": 14,
        "mine": 14,
    }
    assert table.groupby("split").images.unique().map(list).to_dict() == {
        "random-0": [40],
        "natural-manmade": [40],
        "mine": [20],
    }
    pd.testing.assert_frame_equal(
        table[table.split == "mine"].reset_index(drop=True), similarity(specs[4:], store, dataset)
    )


def test_pairs_of_unfinished_bases_are_absent(spec_of, store, dataset, tmp_path):
    specs = [spec_of("baseA", "random-3"), spec_of("baseB", "random-3")]
    assert [store.is_done(spec) for spec in specs] == [False, True]
    nothing = similarity(specs, store, dataset)
    assert len(nothing) == 0 and list(nothing.columns) == SIMILARITY
    both = similarity([*specs, spec_of("baseA"), spec_of("baseB")], store, dataset)
    assert set(both.split) == {"random-0"}
    filters = first_layer_filters(specs, Store(tmp_path))
    assert len(filters) == 0 and list(filters.columns) == FILTERS


def test_with_fewer_images_a_class_the_studys_own_bases_are_compared(spec_of, trained, dataset):
    """baseA on all images is what A1B starts from; the study asks for baseA on a few."""
    few = [spec_of(cell, images_per_class=6) for cell in ("A1B", "baseA", "baseB")]
    store = trained(few)
    assert store.is_done(few[0].source) and few[0].source.run_id != few[1].run_id
    table = similarity(few, store, dataset)
    assert len(table) == 14
    pd.testing.assert_frame_equal(table, similarity(few[1:], store, dataset))
    assert not table.equals(similarity([few[0], few[2]], store, dataset))


def test_the_same_store_gives_the_same_numbers(store, dataset, random_0):
    first = similarity(random_0, store, dataset, images=30)
    torch.rand(3)
    np.random.rand(3)
    assert first.equals(similarity(random_0, store, dataset, images=30))
    assert first_layer_filters(random_0, store).equals(first_layer_filters(random_0, store))
    assert not first.equals(similarity(random_0, store, dataset, images=20))


def test_what_is_known_of_the_same_runs_is_not_computed_again(store, dataset, random_0, tmp_path):
    first = similarity(random_0, store, dataset)
    path = tmp_path / "known.csv"
    first.to_csv(path, index=False)
    again = similarity(random_0, store, dataset, known=pd.read_csv(path))
    assert again.cka.to_numpy() == pytest.approx(first.cka.to_numpy(), nan_ok=True)
    marked = first.assign(cka=-2.0)
    assert (similarity(random_0, store, dataset, known=marked).cka == -2).all(), (
        "taken from the table"
    )
    other = marked.assign(run_a="another run")
    assert similarity(random_0, store, dataset, known=other).equals(first), (
        "another run's values are not"
    )
    assert similarity(random_0, store, dataset, 20, marked).cka.gt(-2).all(), (
        "nor those on other images"
    )


# The table of activity


def test_mean_cosine_and_silent_features_by_hand():
    outputs = torch.tensor([[1.0, 0, 0, 0], [0, 2, 0, 0], [3, 3, 0, 0], [0, 0, 0, 0]])
    cosine, silent = spread(outputs)  # the last image gives nothing, and has no direction
    assert cosine == pytest.approx((0 + 2 * 0.5**0.5) / 3) and silent == 0.5
    assert spread(torch.ones(5, 3)) == (pytest.approx(1), 0)
    nothing = spread(torch.zeros(5, 3))
    assert np.isnan(nothing[0]) and nothing[1] == 1


def test_activity_is_of_random_filters_and_the_bases_of_their_tasks(spec_of, trained, dataset):
    specs = [spec_of(cell) for cell in ("baseA", "baseB", "A1B", "R2B", "R5B")]
    store = trained(specs)
    assert len(activity(specs[:3], store, dataset)) == 0, "no random filters"
    table = activity(specs, store, dataset).set_index(["run", "layer"])
    shown = [specs[1], *specs[3:]]
    assert sorted(table.index) == sorted(
        (spec.run_id, layer) for spec in shown for layer in range(1, 8)
    )
    base, second, fifth = (table.loc[spec.run_id] for spec in shown)
    assert second.cosine[2] == pytest.approx(fifth.cosine[2], abs=1e-6), (
        "random layers are those of one network"
    )
    assert abs(second.cosine[3] - fifth.cosine[3]) > 1e-3 < abs(base.cosine[1] - fifth.cosine[1])
    assert set(table.images) == {4 * 5}, "of the own task"


def test_activity_is_that_of_the_stored_networks(spec_of, trained, dataset):
    """Against cosines pair by pair, of a network that the training code makes."""
    spec = spec_of("R3A")
    store = trained([spec])
    table = activity([spec], store, dataset)
    (cohort,) = make_cohorts([spec], store, dataset, CPU)
    (member,) = cohort.states
    member.network.load_state_dict(store.weights(spec))
    images = TaskLoader(dataset, list(spec.classes), None, 0, spec.recipe, 14, CPU.device)
    for row, outputs in zip(table.itertuples(), layer_outputs(member.network, images), strict=True):
        seen = [image for image in outputs.double() if image.any()]
        pairs = [torch.cosine_similarity(a, b, dim=0).item() for a, b in permutations(seen, 2)]
        assert row.cosine == pytest.approx(np.mean(pairs), abs=1e-5)
        assert row.silent == pytest.approx((outputs == 0).all(0).double().mean().item())
    assert 0 < table.silent.max() < 1 and list(table.columns) == ACTIVITY


def test_known_activity_is_not_computed_again(spec_of, trained, dataset):
    spec = spec_of("R3A")
    store = trained([spec])
    first = activity([spec], store, dataset)
    marked = first.assign(cosine=-2.0)
    assert activity([spec], store, dataset, known=marked).equals(marked), "taken from the table"
    assert activity([spec], store, dataset, known=marked.assign(run="another run")).equals(first)
    fewer = activity([spec], store, dataset, 10, marked)
    assert set(fewer.images) == {10} and (fewer.cosine > 0).all(), "nor those on other images"
