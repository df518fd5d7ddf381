"""Given weights: any file that holds them is read, or refused in one line; a base that was exported
and is given back is the base; real weights know what they are known for.
"""

import argparse
import json
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import yaml
from torchvision import models, transforms

from analysis.collect import collect
from analysis.figures import predictors
from analysis.plotting.layout import compose
from analysis.tables import StudyResults
from experiments.check_weights import ranked
from tests.helpers import equal, network_of, real
from tests.miniature import CPU, shrunk
from transferability import load_run
from transferability.data.pack import pack
from transferability.data.readers.base import file_item
from transferability.data.readers.file_tree import FileTree
from transferability.data.readers.imagenet import imagenet_groups
from transferability.errors import UserError
from transferability.fingerprint import cosmetic_fields
from transferability.networks.pretrained import load_pretrained, pretrained_state_dict
from transferability.networks.zoo.pretrained_info import PretrainedInfo
from transferability.networks.zoo.torchvision import INCEPTIONS
from transferability.runs.export import export
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.study.cells import parse
from transferability.study.expand import study_specs
from transferability.study.spec import RunSpec, make_spec

NETWORK = "torchvision squeezenet1_1"  # small: 1.2 million parameters
TINY = "timm test_resnet"  # for tests: 8 layers of 370,000 parameters in all
SIZE = 32


def network(key=NETWORK, **settings):
    return network_of(key, input_size=SIZE, **settings)


@pytest.fixture(scope="module")
def tensors():
    torch.manual_seed(0)
    return replace(network(), outputs=7).build().state_dict()


@pytest.fixture
def saved(tmp_path):
    """saved(values, name): the path of a file of them."""

    def save(values, name="w.pth"):
        path = tmp_path / name
        if path.suffix == ".safetensors":
            safetensors.torch.save_file(values, path)
        else:
            torch.save(values, path)
        return str(path)

    return save


# --- files ---


def wrapped(tensors):
    """What training scripts save, and what is said of it."""
    averaged = {f"module.{n}": t for n, t in tensors.items()} | {"n_averaged": torch.tensor(3)}
    others = {n: t + 1 if t.is_floating_point() else t for n, t in tensors.items()}
    return [
        (tensors, []),
        ({"state_dict": tensors, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, ["'state_dict'"]),
        ({"model": others, "model_ema": averaged}, ["'model_ema'", "'module.' removed from"]),
        ({f"_orig_mod.module.{n}": t for n, t in tensors.items()}, ["'_orig_mod.module.'"]),
        ({"model": {f"model.{n}": t for n, t in tensors.items()}}, ["'model'", "'model.'"]),
    ]


@pytest.mark.parametrize("which", range(5))
def test_wrappers_and_prefixes_are_taken_off_and_said(tensors, saved, which):
    values, said = wrapped(tensors)[which]
    plain = load_pretrained(saved(tensors, "plain.safetensors"), network())
    pretrained = load_pretrained(saved(values), network())
    assert pretrained.digest == plain.digest and pretrained.network.outputs == 7
    assert len(pretrained.facts.notes) == len(said)
    assert all(word in note for word, note in zip(said, pretrained.facts.notes, strict=True))
    state = pretrained_state_dict(pretrained)
    assert state["input.mean"].tolist() == pytest.approx([255 * m for m in (0.485, 0.456, 0.406)])
    assert torch.equal(state["layers.0.features.0.weight"], tensors["features.0.weight"])


def test_half_precision_is_made_float32_and_said(tensors, saved):
    half = {n: t.half() for n, t in tensors.items()}
    pretrained = load_pretrained(saved(half, "w.safetensors"), network())
    assert pretrained.facts.notes == ("float16 converted to float32",)
    weight = pretrained_state_dict(pretrained)["layers.0.features.0.weight"]
    assert weight.dtype == torch.float32 and torch.equal(weight, half["features.0.weight"].float())
    assert pretrained.digest != load_pretrained(saved(tensors), network()).digest


class Runs:
    def __reduce__(self):
        return print, ("this ran",)


def spoilt(tensors):
    """Name -> (what is in the file, words of the refusal)."""
    first = "features.0.weight"
    nan = tensors[first].clone()
    nan[0, 0, 0, 0] = float("nan")
    less = {n: t for n, t in tensors.items() if n != first}
    other = models.shufflenet_v2_x0_5().state_dict()
    return {
        "code": ({"state_dict": tensors, "x": Runs()}, ["would run code", "state_dict() to a new"]),
        "nan": (tensors | {first: nan}, [first, "infinite or NaN"]),
        "shape": (
            tensors | {first: torch.zeros(64, 3, 5, 5)},
            ["features.0.weight is 64x3x5x5, not 64x3x3x3 as in squeezenet1_1 at network.input"],
        ),
        "missing": (less, ["has 52 tensors", "lack features.0.weight"]),
        "another": (
            other,
            ["not the weights of squeezenet1_1", "and 51 more", "have conv1.0.weight"],
        ),
        "no tensors": ({"epoch": 3}, ["holds epoch, which is not a tensor"]),
        "a list": ([1, 2], ["it must hold a dictionary of tensors"]),
        "sparse": (tensors | {first: tensors[first].to_sparse()}, ["sparse"]),
        "int8": (
            tensors | {first: (100 * tensors[first]).to(torch.int8)},
            [first, "int8, not floating-point", "save them as float32"],
        ),
        "complex": (tensors | {first: tensors[first] * 1j}, [first, "complex64"]),
        "overflow": (
            tensors | {first: tensors[first].double() * 1e300},
            [first, "infinite or NaN"],
        ),
    }


SPOILT = ("code", "nan", "shape", "missing", "another", "no tensors", "a list", "sparse")
SPOILT += ("int8", "complex", "overflow")


@pytest.mark.parametrize("name", SPOILT)
def test_what_is_not_the_weights_is_one_clear_line(tensors, saved, capsys, name):
    values, words = spoilt(tensors)[name]
    path = saved(values)
    with pytest.raises(UserError) as refusal:
        load_pretrained(path, network())
    message = str(refusal.value)
    assert message.startswith(f"weights={path}") and "\n" not in message
    assert all(word in message for word in words), message
    assert "this ran" not in capsys.readouterr().out


def test_a_tensor_too_many_is_named(tensors, saved):
    path = saved(tensors | {"neck.weight": torch.zeros(2), "neck.bias": torch.zeros(2)})
    with pytest.raises(UserError, match=r"they have neck.weight and 1 more$"):
        load_pretrained(path, network())


@pytest.mark.parametrize("name", ["w.safetensors", "w.pth"])
def test_damaged_files_are_one_clear_line(tensors, saved, tmp_path, name):
    data = Path(saved(tensors, name)).read_bytes()
    for kept in (data[: len(data) // 2], data[:100], b"", b"\x80\x02hello", bytes(5000)):
        (tmp_path / f"cut-{name}").write_bytes(kept)
        with pytest.raises(
            UserError, match="cannot be read: it is truncated, or not a weights file"
        ) as e:
            load_pretrained(str(tmp_path / f"cut-{name}"), network())
        assert "\n" not in str(e.value)
    with pytest.raises(UserError, match="there is no such file"):
        load_pretrained(str(tmp_path / "absent" / name), network())
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": 1}, protocol=4))
    with pytest.raises(UserError, match=r"plain\.pth"):
        load_pretrained(str(tmp_path / "plain.pth"), network())


def test_weights_without_a_classifier_serve_as_well(tensors, saved):
    """All that is missing is above every chop."""
    less = {n: t for n, t in tensors.items() if not n.startswith("classifier.")}
    pretrained = load_pretrained(saved(less), network())
    assert pretrained.facts.notes == ("without a classifier, which no network takes over",)
    state = pretrained_state_dict(pretrained)
    last = pretrained.network.n_layers - 1
    assert {n.split(".")[1] for n in state if n.startswith("layers.")} == set(map(str, range(last)))


def test_a_file_that_changes_between_two_looks_is_noticed(tensors, saved):
    pretrained = load_pretrained(saved(tensors), network())
    with pytest.raises(UserError, match="has changed"):
        pretrained_state_dict(replace(pretrained, digest="0" * 64))
    path = saved({n: t + 1 if t.is_floating_point() else t for n, t in tensors.items()})
    again = load_pretrained(path, network())
    assert again.weights == pretrained.weights and again.digest != pretrained.digest
    with pytest.raises(UserError, match="has changed"):
        pretrained_state_dict(pretrained)


def test_what_lies_beside_a_file_is_looked_at_again(tensors, saved, tmp_path):
    path = saved(tensors)
    assert load_pretrained(path, network()).facts.mean == (0.485, 0.456, 0.406)
    beside = {"architecture": "squeezenet1_1", "mean": [0.5] * 3, "std": [0.5] * 3}
    (tmp_path / "config.json").write_text(json.dumps(beside))
    assert load_pretrained(path, network()).facts.mean == (0.5, 0.5, 0.5)


@pytest.mark.slow
def test_older_names_are_known(saved):
    """torchvision's own files of DenseNet have names that its network has no more."""
    built = replace(network("torchvision densenet121"), outputs=2).build().state_dict()
    old = {
        n.replace("norm1", "norm.1").replace("conv2", "conv.2") if "denselayer" in n else n: t
        for n, t in built.items()
    }
    assert old.keys() != built.keys()
    pretrained = load_pretrained(saved(old), network("torchvision densenet121"))
    assert (
        pretrained.digest
        == load_pretrained(saved(built), network("torchvision densenet121")).digest
    )


@pytest.mark.slow
def test_heads_that_only_training_has_are_left_out(saved):
    """And what torchvision does to the input of such weights is said by mean and deviation."""
    googlenet = models.googlenet(
        num_classes=4, aux_logits=True, transform_input=True, init_weights=True
    ).eval()
    pretrained = load_pretrained(saved(googlenet.state_dict()), network("torchvision googlenet"))
    assert pretrained.facts.notes == ("heads used only in training are left out",)
    assert (
        pretrained.facts.mean == pretrained.facts.std == (0.5, 0.5, 0.5)
        and "googlenet" in INCEPTIONS
    )
    pixels = torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(0))
    usual = models.GoogLeNet_Weights.DEFAULT.transforms()
    theirs = transforms.Normalize(usual.mean, usual.std)(pixels)
    state = {
        n.split(".", 2)[2]: t
        for n, t in pretrained_state_dict(pretrained).items()
        if n != "input.mean"
    }
    ours = models.googlenet(num_classes=4, aux_logits=False, init_weights=True).eval()
    ours.load_state_dict(state)
    with torch.no_grad():
        ours, theirs = ours((pixels - 0.5) / 0.5), googlenet(theirs)
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("key", [NETWORK, "timm tf_efficientnet_lite0"])
def test_names_of_a_library(key, monkeypatch):
    tag = {"torchvision": "IMAGENET1K_V1", "timm": "in1k"}[key.split()[0]]
    with pytest.raises(
        UserError, match=rf"weights=imagenet is neither a file nor a name .* {tag}$"
    ):
        load_pretrained("imagenet", network(key))
    # a machine without a network: whatever is asked for is not there
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)  # read at its import
    monkeypatch.setenv("HF_HOME", "/nowhere")
    monkeypatch.setenv("TORCH_HOME", "/nowhere")
    for variable in ("http_proxy", "https_proxy", "HTTPS_PROXY", "HTTP_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    with pytest.raises(UserError) as refusal:
        load_pretrained(tag, network(key))
    message = str(refusal.value)
    assert "cannot be downloaded" in message and "give its path: weights=PATH" in message
    assert "https://" in message and "\n" not in message


# --- runs ---


@pytest.fixture(scope="module")
def exported(config, dataset, trained, tmp_path_factory):
    """A study of a tiny network on random-0, and its base A as a file."""
    resnet = network_of(TINY, input_size=16, input_scale=0.017)
    recipe = replace(config.recipe, steps=4, eval_every=2, warmup_steps=0, lr=0.01)

    def spec_of(cell):
        return make_spec(parse(cell), "random-0", dataset, resnet, recipe, 0)

    specs = [spec_of(cell) for cell in ("A3B", "A3B+", "A2B~2")]
    store = trained(specs)
    path = tmp_path_factory.mktemp("exported") / "a.safetensors"
    export(load_run(store.folder(specs[0].source)), path)
    return specs, store, str(path)


def given_back(specs, path, folder, dataset, **settings) -> list[RunSpec]:
    """The same cells, with the base from the file and a split of task B alone."""
    names = [dataset.classes[i].name for i in specs[0].classes]
    (folder / "b.yaml").write_text(yaml.safe_dump({"B": names}))
    asked = replace(specs[0].network, outputs=None, plan=(), **settings)
    pretrained = load_pretrained(path, asked)
    return [
        make_spec(
            s.cell, str(folder / "b.yaml"), dataset, asked, s.recipe, s.seed, pretrained=pretrained
        )
        for s in specs
    ]


def test_an_exported_base_given_back_is_the_base(exported, dataset, tmp_path):
    """To the same bits in every network that starts from it."""
    specs, store, path = exported
    own = replace(specs[0].network, outputs=len(specs[0].source.classes)).build().state_dict()
    assert safetensors.torch.load_file(path).keys() == own.keys()
    again = given_back(specs, path, tmp_path, dataset)
    other = Store(tmp_path / "runs")
    train_missing(again, other, dataset, CPU)
    for spec, twin in zip(specs, again, strict=True):
        assert equal(other.weights(twin), store.weights(spec)), spec.cell
        assert [m["val_top1"] for m in other.metrics(twin)] == [
            m["val_top1"] for m in store.metrics(spec)
        ]
        assert twin.base is None and twin.stage == 0 and twin.id != spec.id


def test_tables_and_figure_of_a_given_base(exported, dataset, tmp_path):
    """What is known about it, what predictors say of each of its layers, and both beside each
    other; what is known already is not computed again.
    """
    specs, _, path = exported
    cells = [replace(specs[0], cell=parse(f"A{n}B", 8)) for n in (2, 4, 6)]
    again = given_back(cells, path, tmp_path, dataset)
    store = Store(tmp_path / "runs")
    train_missing(again, store, dataset, CPU)
    tables = collect(again, store, dataset)
    rows = tables.predictors
    assert set(rows.predictor) == {"k nearest neighbours", "LogME", "regularized H-score", "LEEP"}
    assert rows[rows.predictor == "LogME"].n.tolist() == list(range(1, 8))
    assert -np.log(len(again[0].classes)) < rows[rows.predictor == "LEEP"].value.item() < 0
    assert np.isfinite(rows.value).all() and set(rows.base) == {again[0].source.id[:12]}
    assert len(tables.metadata["given"]) == 2 and "exported from" in tables.metadata["given"][1]
    assert str(tmp_path) not in " ".join(tables.metadata["given"]), "nobody else's concern"
    drawing = predictors.draw(tables)
    assert (
        drawing.table.layers.tolist() == [3, 3, 3] and "LEEP of the whole base" in drawing.caption
    )
    compose(drawing)
    tables.write(tmp_path / "out")
    known = StudyResults.read(tmp_path / "out")
    known.predictors.loc[0, "value"] = 7.0
    assert collect(again, store, dataset, known).predictors.value[0] == 7.0


def test_the_identity_is_that_of_the_tensors(exported, dataset, tmp_path):
    specs, _, path = exported
    spec = given_back(specs, path, tmp_path, dataset)[0]
    values = json.loads(json.dumps(spec.to_dict()))
    assert RunSpec.from_dict(values) == spec
    assert {"source.weights", "source.facts"} <= cosmetic_fields(spec)
    moved = tmp_path / "elsewhere.safetensors"
    moved.write_bytes(Path(path).read_bytes())
    twin = given_back(specs, str(moved), tmp_path, dataset)[0]
    assert twin.id == spec.id and twin.source.weights != spec.source.weights
    store = Store(tmp_path / "store")
    store.lock(spec).release()
    store.lock(twin).release()  # the folder is its own, whatever the file is called
    changed = safetensors.torch.load_file(path)
    changed["conv1.0.weight"][0, 0, 0, 0] += 1
    header = safetensors.safe_open(path, "pt").metadata()
    safetensors.torch.save_file(changed, moved, metadata=header)
    assert given_back(specs, str(moved), tmp_path, dataset)[0].id != spec.id
    assert given_back(specs, path, tmp_path, dataset, channel_std=(0.5, 0.5, 0.5))[0].id != spec.id


def test_a_given_base_is_task_a_of_the_split_pretrained(exported, tmp_path):
    *_, path = exported
    words = ("network=timm", "network.model=test_resnet", "network.input_size=16")
    config = shrunk(tmp_path, *words, "study.layers=[2,7]", f"weights={path}", "split=pretrained")
    dataset = pack(config.dataset)
    specs = study_specs(config, dataset)
    assert {str(s.cell) for s in specs} == {"baseB"} | {
        f"{s}{n}B{plus}" for s in "AB" for n in (2, 7) for plus in ("", "+")
    } | {"R2B", "R7B"}
    assert {s.split for s in specs} == {"pretrained"}
    assert all(s.classes == tuple(range(len(dataset.classes))) for s in specs)
    config.weights = None
    with pytest.raises(UserError, match="has tasks B, not A: define A with weights="):
        study_specs(config, dataset)
    config.weights, config.split = path, "random-0"
    with pytest.raises(UserError, match="split=random-0 has its own task A"):
        study_specs(config, dataset)


def test_the_input_of_given_weights_is_that_of_all_cells(exported, dataset, tmp_path):
    """Mean and deviation come with the weights, unless the configuration says otherwise."""
    specs, _, path = exported
    twin = given_back(specs, path, tmp_path, dataset, input_scale=1.0)[0]
    assert twin.network.input_scale == 0.017 and twin.network.channel_mean is None
    twin = given_back(specs, path, tmp_path, dataset, channel_mean=(0.1, 0.2, 0.3))[0]
    assert twin.network.channel_mean == (0.1, 0.2, 0.3)
    assert np.allclose(pretrained_state_dict(twin.source)["input.mean"], [25.5, 51.0, 76.5])
    assert PretrainedInfo(mean=[0.1, 0.2, 0.3]).mean == (0.1, 0.2, 0.3)


# --- real weights ---


def test_real_weights_know_what_they_are_known_for():
    """As torchvision's own transforms and timm's own network: the same ranks for every image."""
    weights, images = real("tf_efficientnet_lite0.safetensors"), real("ilsvrc-sample-100.zip")
    asked = replace(network("timm tf_efficientnet_lite0"), input_size=224)
    pretrained = load_pretrained(str(weights), asked)
    tree, wnids = FileTree(str(images)), sorted(imagenet_groups())
    config = shrunk("unused").dataset
    items = [
        file_item(tree, config, wnids.index(name.split("/")[-2]), name) for name in tree.images("")
    ]
    ranks = ranked(pretrained, items)
    assert len(ranks) == 100 and (ranks < 1).sum() in (89, 90, 91) and (ranks < 5).sum() == 98
    model = replace(asked, outputs=1000).build().eval()
    model.load_state_dict(safetensors.torch.load_file(weights))
    prepare = transforms.Compose(
        [
            transforms.ToPILImage(),
            transforms.Resize(256, transforms.InterpolationMode.BICUBIC),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize((0.5,) * 3, (0.5,) * 3),
        ]
    )
    for item, rank in list(zip(items, ranks, strict=True))[:10]:
        with torch.no_grad():
            logits = model(prepare(item.load())[None])[0]
        assert int((logits > logits[item.label]).sum()) == rank
