"""Linear classifiers fitted on features that are computed once."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.helpers import composed, equal
from tests.miniature import CPU
from transferability import load_run
from transferability.errors import UserError
from transferability.networks.modules import global_avg_pool
from transferability.runs.probes import FEATURES
from transferability.signals import StopRequest
from transferability.study import cells
from transferability.study.recipe import probe_recipe
from transferability.study.spec import make_spec
from transferability.training import probe
from transferability.training.features import features_of

N = (2, 5, 7)


@pytest.fixture(scope="module")
def recipe(config):
    recipe = composed("recipe=probe").recipe
    assert recipe == probe_recipe(mirror=True)
    return recipe


@pytest.fixture(scope="module")
def specs(config, dataset, recipe):
    return [
        make_spec(
            cells.parse(f"A{n}.B"), "random-0", dataset, config.network, recipe, 0,
            source_recipe=config.recipe,
        )
        for n in N
    ]  # fmt: skip


@pytest.fixture(scope="module")
def store(specs, trained):
    return trained(specs)


def test_it_is_a_finished_run_that_says_what_its_network_says(specs, store, dataset):
    for spec in specs:
        run = load_run(store.folder(spec))
        (evaluation,) = store.metrics(spec)
        images, labels = run.images_of(dataset, "val")
        with torch.no_grad():
            said = run(images).argmax(1)
        kept = store.predictions(spec)["validation"]
        assert torch.equal(said.to(torch.int16), kept)
        assert evaluation["val_top1"] == (kept == labels).double().mean().item()
        assert store.provenance(spec)["l2"] in probe.STRENGTHS
        train = dataset.train_rows(list(spec.classes))
        assert store.provenance(spec)["images"] == 2 * len(train), "and their mirror images"


def test_layers_below_are_the_base_s(specs, store):
    for spec in specs:
        base, own = store.weights(spec.base), store.weights(spec)
        below = {k: t for k, t in own.items() if not k.startswith(f"layers.{spec.cell.n}.")}
        assert equal(below, {k: base[k] for k in below})


def test_features_are_what_the_layers_put_out_in_the_middle_and_mirrored(specs, store, dataset):
    spec = specs[0]
    run = load_run(store.folder(spec))
    features = features_of(
        [spec], store.weights(spec.base), dataset, store.root / FEATURES, CPU.device
    )
    rows = np.array([3, 70, 11])  # of two batches, in any order
    images = torch.from_numpy(dataset.read_rows(rows))
    for n in (1, 2):
        own = global_avg_pool(run.features(images, n), 0)
        torch.testing.assert_close(features.layer(n, rows), own, rtol=1e-3, atol=1e-4)
        mirrored = global_avg_pool(run.features(images.flip(2), n), 0)
        torch.testing.assert_close(features.layer(n, rows, True), mirrored, rtol=1e-3, atol=1e-4)


def test_they_are_computed_once_for_all(specs, store, dataset, monkeypatch, trained):
    (folder,) = [f for f in (store.root / FEATURES).iterdir()]
    assert len(list(folder.glob("layer-*.npy"))) == 2 * 7
    monkeypatch.setattr("transferability.training.features._compute", None)
    source = store.weights(specs[0].base)
    assert (
        features_of(specs[1:], source, dataset, store.root / FEATURES, CPU.device).folder == folder
    )


def test_it_depends_on_neither_threads_nor_seed_nor_what_is_fitted_beside_it(specs, store, trained):
    alone = trained([specs[1]], replace(CPU, threads=1), store)
    assert equal(alone.weights(specs[1]), store.weights(specs[1]))
    assert equal(alone.predictions(specs[1]), store.predictions(specs[1]))


def samples(x, y):
    return probe.Samples(lambda a, b: (x[a:b].clone(), y[a:b]), len(y), x.shape[1], 3)


def test_weaker_strengths_are_tried_until_two_in_a_row_fall():
    assert not probe._falls([(0.5, 1.0), (0.4, 1.0)])
    assert not probe._falls([(0.5, 1.0), (0.4, 1.0), (0.5, 0.0)])
    assert probe._falls([(0.3, 1.0), (0.5, 1.0), (0.4, 0.5), (0.4, 0.1)])


def test_a_fit_stops_when_it_is_asked_to():
    asked = StopRequest()
    asked.requested = True
    x, y = torch.randn(50, 4), torch.arange(50) % 3
    with pytest.raises(KeyboardInterrupt):
        next(probe._path(samples(x, y), 200, (0.01,), asked))


def test_blocks_that_fit_memory_give_the_same_fit(monkeypatch):
    x, y = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3
    (whole,) = probe._path(samples(x, y), 200, (0.01,))
    monkeypatch.setattr(probe, "BLOCK", 7 * 4 * (4 + 9))
    assert [len(part) for _, part in samples(x, y)] == [7] * 7 + [1]
    (parts,) = probe._path(samples(x, y), 200, (0.01,))
    torch.testing.assert_close(parts.weight, whole.weight, atol=1e-3, rtol=0)
    torch.testing.assert_close(parts.mean, whole.mean)
    assert parts.loss == pytest.approx(whole.loss, abs=1e-6)
    assert probe._score(parts, samples(x, y)) == pytest.approx(
        probe._score(whole, samples(x, y)), abs=1e-4
    )


def test_the_fit_is_the_minimum():
    """By autograd the gradient of what is minimized is zero there."""
    x, y = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 3
    strong, weak = probe._path(samples(x, y), 200, (1.0, 0.01))
    assert strong.weight.norm() < weak.weight.norm() and weak.loss < strong.loss < np.log(3)
    z = (x - x.mean(0)) / (x.var(0, unbiased=False) + 1e-5).sqrt()
    weight, bias = weak.weight.clone().requires_grad_(), weak.bias.clone().requires_grad_()
    loss = torch.nn.functional.cross_entropy(z @ weight.T + bias, y)
    (loss + 0.005 * weight.square().sum()).backward()
    assert weight.grad.abs().max() < 1e-3 and bias.grad.abs().max() < 1e-3


def test_on_all_images_its_strength_is_that_of_the_training_images(specs, store, trained):
    spec = replace(specs[1], all_images=True)
    every = trained([spec], bases=store)
    assert every.provenance(spec)["l2"] == store.provenance(specs[1])["l2"]
    assert every.provenance(spec)["images"] > store.provenance(specs[1])["images"]
    assert not equal(every.weights(spec), store.weights(specs[1]))


@pytest.mark.parametrize("cell", ["baseB", "A3B", "A3.B+", "R3.B"])
def test_other_cells_are_refused_in_one_line(cell, config, dataset, recipe):
    with pytest.raises(UserError, match="lbfgs fits linear classifiers") as error:
        make_spec(cells.parse(cell), "random-0", dataset, config.network, recipe, 0)
    assert "\n" not in str(error.value)


def test_two_phases_go_on_from_it(config, dataset, recipe, store, trained):
    cell = cells.parse("A5.B++")
    spec = make_spec(cell, "random-0", dataset, config.network, config.recipe, 0)
    assert store.is_done(spec.base), "the first phase is the run that is there"
    assert trained([spec], bases=store).is_done(spec)
