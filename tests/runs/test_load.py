"""A finished run in Python: the same accuracy as was measured, class names, features, filters."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import equal, network_of
from tests.miniature import CPU, shrunk
from transferability import load_run
from transferability.data.pack import pack
from transferability.errors import UserError
from transferability.runs.store import Store
from transferability.runs.wave import make_cohorts
from transferability.study.cells import parse
from transferability.study.spec import make_spec
from transferability.training.state import one_thread


@pytest.fixture(scope="module", params=["channel", "image"])
def spec_and_store(request, spec_of, trained):
    spec = spec_of("A3B+", network={"mean": request.param})
    return spec, trained([spec])


def test_the_run_of_the_current_folder_is_loaded(spec_and_store, monkeypatch):
    spec, store = spec_and_store
    monkeypatch.chdir(store.folder(spec))
    assert load_run(".").spec == load_run("inside/..").spec == spec


def test_a_loaded_run_is_right_as_often_as_was_measured(spec_and_store, dataset):
    spec, store = spec_and_store
    run = load_run(store.folder(spec))
    rows = dataset.val_rows(list(spec.classes))
    with torch.no_grad(), one_thread():
        found = run(torch.from_numpy(dataset.read_rows(rows))).argmax(1).numpy()
    names = [run.classes[label] for label in found]
    right = np.mean(
        [
            name == dataset.classes[k].name
            for name, k in zip(names, dataset.labels[rows], strict=True)
        ]
    )
    assert right == run.metrics[-1]["val_top1"] == store.metrics(spec)[-1]["val_top1"]
    assert (
        equal(dict(run.network.state_dict()), store.weights(spec))
        and run.spec == spec
        and not run.training
    )


def test_images_are_preprocessed_as_they_were_packed(spec_and_store, dataset, tmp_path):
    spec, store = spec_and_store
    run = load_run(str(store.folder(spec)))
    packed = dataset.read_rows(dataset.val_rows(list(spec.classes))[:2])
    Image.fromarray(packed[0]).save(tmp_path / "a.png")
    images = run.preprocess(tmp_path / "a.png", Image.fromarray(packed[1]))
    assert torch.equal(images, torch.from_numpy(packed))
    assert run.preprocess(np.zeros((40, 90, 3), np.uint8)).shape == (1, 16, 16, 3)
    assert run.filters.shape == (4, 3, 5, 5)
    with torch.no_grad():
        features = [run.features(images, layer) for layer in range(9)]
        assert torch.equal(run(images), features[8]) and features[8].shape == (2, len(run.classes))
        assert features[0].shape == (2, 3, 14, 14) and torch.equal(
            run.network.layers[2](features[2]), features[3]
        )


def test_the_images_of_a_task_come_with_their_classes(spec_and_store, dataset, tmp_path):
    spec, store = spec_and_store
    run = load_run(store.folder(spec))
    for part, start, count in (("train", 0, 12), ("val", dataset.n_train, 5)):
        images, truth = run.images_of(dataset, part)
        assert torch.bincount(truth).tolist() == [count] * len(spec.classes)
        first = next(r for r in range(start, 999) if dataset.labels[r] in spec.classes)
        assert torch.equal(images[0], torch.from_numpy(dataset.images[first].copy()))
        assert run.classes[truth[0]] == dataset.classes[dataset.labels[first]].name
    with torch.no_grad(), one_thread():
        right = (run(images).argmax(1) == truth).double().mean().item()
    assert right == run.metrics[-1]["val_top1"]
    assert [len(found) for found in run.images_of(dataset, "test")] == [0, 0]
    with pytest.raises(UserError, match="was trained on other images"):
        run.images_of(pack(shrunk(tmp_path, "dataset.grammar.seed=1").dataset), "val")


def test_what_is_not_finished_or_says_no_names_is_one_clear_line(
    spec_of, trained, dataset, tmp_path
):
    spec = spec_of("baseB")
    store = Store(tmp_path)
    lock = store.lock(spec)
    (cohort,) = make_cohorts([spec], store, dataset, CPU)
    lock.release()
    with pytest.raises(UserError, match="is not finished"):
        load_run(store.folder(spec))
    m = cohort.states[0]
    store.finish(spec, m.network.state_dict(), [], {"seconds": 1.0}, {})
    with pytest.raises(UserError, match="trained by an older version"):
        load_run(store.folder(spec))
    with pytest.raises(UserError, match="is not the folder of a run"):
        load_run(tmp_path / "nothing")


def test_a_network_of_another_version_of_its_library_is_said(
    config, dataset, trained, monkeypatch, caplog
):
    """The names of its tensors may be the same, and what is done with them another."""
    recipe = replace(config.recipe, steps=2, eval_every=2, warmup_steps=0)
    network = network_of("timm test_resnet", input_size=16)
    spec = make_spec(parse("baseB"), "random-0", dataset, network, recipe, 0)
    folder = trained([spec]).folder(spec)
    own = network.library_version
    caplog.clear()  # of what training said, where other tests have turned that on
    with caplog.at_level("WARNING"):
        load_run(folder)
        assert caplog.messages == []
        monkeypatch.setattr("transferability.networks.zoo.config.version", lambda name: "0.4")
        load_run(folder)
    assert caplog.messages == [
        f"{spec.run_id} was trained with {own}, and timm 0.4 is installed: its outputs differ if "
        "test_resnet does; compare its accuracy with run.metrics, or install that version"
    ]


FIGURES = """
import importlib
import analysis.report
from analysis.figures import FIGURES
for name in FIGURES:
    importlib.import_module(f"analysis.figures.{name}")
"""
UPDATED = """
import torch
from transferability.networks.caffenet import make_layers
from transferability.networks.config import EightLayerConfig
from transferability.training.optim import SGD, AdamW
one = {key: (1,) for key in ("channels", "kernels", "strides", "groups", "hidden")}
config = EightLayerConfig(name="one", input_size=8, outputs=2, paddings=(0,), pools=(), **one)
layer = make_layers(config)[0].conv
assert type(layer) is torch.nn.Conv2d
for optimizer in (SGD(layer.parameters(), fused=True), AdamW(layer.parameters(), fused=True)):
    layer(torch.zeros(1, 3, 8, 8)).sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    optimizer.zero_grad()
"""


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import transferability.errors", {"torch"}),
        ("import experiments.run", {"torchvision"}),
        (FIGURES, {"torch"}),
        (UPDATED, {"torch._dynamo", "sympy", "scipy"}),
    ],
)
def test_what_takes_seconds_to_import_is_imported_where_it_is_used(code, absent):
    ends = f"import sys; sys.exit(' '.join({absent} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{ends}"], stderr=subprocess.PIPE)
    assert done.stderr.strip() == b""
