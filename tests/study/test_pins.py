"""What a finished run, a pack and a committed table depend on by name: keys of random draws, names
of tensors, of files' fields and of columns. A module or a class may be renamed, none of these may.
"""

import hashlib
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import safetensors
from PIL import Image

from analysis.tables import OPTIONAL, RESULTS
from transferability import rng as draws
from transferability.data.config import READERS, DatasetConfig
from transferability.data.pack import pack
from transferability.networks import KINDS as NETWORKS


class Recorder:
    """In the place of hashlib in rng.py: notes the keys that seeds are made of."""

    def __init__(self):
        self.keys = set()

    def blake2b(self, data: bytes, **settings):
        self.keys.add(re.sub(r"\d+", "#", data.decode().replace("\x1f", " ")))
        return hashlib.blake2b(data, **settings)


@pytest.fixture
def drawn(monkeypatch):
    recorder = Recorder()
    monkeypatch.setattr(draws, "hashlib", recorder)
    return recorder.keys


def test_seeds_are_pinned():
    assert draws.derive_seed(0, "order", 1) == 5497976924323847302
    assert draws.derive_seed(3, "A3B+", "init", 2) == 8214493860217328521
    assert draws.numpy_rng(0, "order", 0).permutation(6).tolist() == [3, 2, 0, 1, 4, 5]


def test_the_keys_of_draws_of_packing_and_training_are_pinned(
    tmp_path, config, dataset, spec_of, trained, drawn
):
    cells = ("baseB", "A3B+", "R2B", "A3.B")
    specs = [spec_of(cell, network={"dropout": 0.5}) for cell in cells]
    trained(specs)
    assert drawn == {
        "# 'order' #",
        "# 'augment' #",
        "# 'untrained' # 'init' #",
        "# 'A#.B' # 'head'",
        *(f"# '{cell}' # 'init' #" for cell in ("baseA", "baseB", "A#B+", "R#B", "A#.B")),
        *(f"# '{cell}' # 'dropout' 'drop#' #" for cell in ("baseA", "baseB", "A#B+", "R#B")),
        "# # # #",  # the classes of the target task
    }
    drawn.clear()
    pack(replace(config.dataset, folder=str(tmp_path / "again")))
    assert drawn == {
        "# 'pack' 'train'",
        "# 'pack' 'val'",
        "# 'pack' 'test'",
        "# 'terminals'",
        "# 'rules' #",
        "# 'rules' # 'shared'",
        "# 'image' # # 'train' #",
        "# 'image' # # 'val' #",
    }


def test_the_keys_of_held_out_images_are_pinned(tmp_path, drawn):
    for name in ("ant", "bee"):
        for i in range(8):
            path = tmp_path / "images" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6, 6, 3), 20 * i + (name == "ant"), np.uint8)).save(path)
    pack(
        DatasetConfig(
            *("folder", "own", str(tmp_path / "packed"), 6, str(tmp_path / "images")),
            val_fraction=0.25,
            test_fraction=0.25,
        )
    )
    assert {key for key in drawn if "held" in key} == {
        *(f"# 'held out' '{name}'" for name in ("ant", "bee")),
        *(f"# 'held out for test' '{name}'" for name in ("ant", "bee")),
    }


def test_names_in_the_identity_are_pinned(spec_of):
    """As spec.json has them, whatever the fields of the classes are called."""
    spec = spec_of("A3B~1", images_per_class=3).to_dict()
    names = "dataset split classes images_per_class cell network recipe seed source format"
    assert set(spec) == set(names.split())
    assert spec["cell"] == "A3B~1"
    assert set(spec["dataset"]) == {"name", "image_size", "checksum"}
    names = "name input_size outputs mean input_scale channels kernels strides paddings groups"
    names += " pools hidden normalisation initialisation weight_std bias dropout"
    assert set(spec["network"]) == set(names.split())
    names = "name steps batch_size lr schedule eval_every eval_batch_size step_size gamma"
    names += " warmup_steps momentum weight_decay bias_lr_multiplier copied_lr_multiplier mirror"
    names += " reshuffle precision"
    assert set(spec["recipe"]) == set(names.split())
    assert list(NETWORKS) == ["eight-layer", "blocks", "torchvision", "timm"]
    kinds = {"procedural", "tiny_imagenet", "cifar10", "cifar100", "imagenet", "folder"}
    assert kinds <= set(READERS)


def test_names_in_files_of_a_run_are_pinned(spec_of, trained):
    spec = spec_of("A3B", network={"normalization": "batch"})
    folder = trained([spec]).folder(spec)
    files = "spec.json weights.safetensors predictions.safetensors metrics.jsonl provenance.json"
    assert {p.name for p in folder.iterdir()} == {"DONE", ".lock", *files.split()}
    with safetensors.safe_open(folder / "weights.safetensors", "pt") as file:
        names = {re.sub(r"\d+", "#", name) for name in file.keys()}  # noqa: SIM118 (no dict)
        assert file.metadata() == {"run": spec.run_id}
    norm = "weight bias running_mean running_var num_batches_tracked"
    assert names == {"input.mean", *(f"layers.#.norm.{name}" for name in norm.split())} | {
        f"layers.#.{kind}.{name}" for kind in ("conv", "fc") for name in ("weight", "bias")
    }
    with safetensors.safe_open(folder / "predictions.safetensors", "pt") as file:
        assert list(file.keys()) == ["validation"]
    known = "cohort_networks commit device finished images images_of seconds numpy python torch"
    assert set(known.split()) <= set(json.loads((folder / "provenance.json").read_text()))
    first = json.loads((folder / "metrics.jsonl").read_text().splitlines()[0])
    assert list(first) == ["step", "lr", "train_loss", "val_loss", "val_top1"]


def test_columns_of_tables_are_pinned():
    columns = "dataset split split_kind cell treatment source target task n copied frozen seed"
    columns += " network recipe classes images_per_class val_images run state top1"
    columns += " top1_mean_best10 evaluations val_loss train_loss images seconds in_study"
    assert columns.split() == RESULTS
    assert OPTIONAL == ["test_top1", "top1_balanced", "test_balanced", "distance"]
