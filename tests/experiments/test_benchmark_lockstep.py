"""The bench runs and prints its tables; what it compares is the same computation."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.benchmarks import lockstep, memory
from experiments.benchmarks.plain_script import export_images, plain_batches, plain_network
from tests.helpers import composed
from transferability.data.batch import Batch
from transferability.data.packed import dataset_of
from transferability.networks.sequential import SequentialNetwork
from transferability.study.config import Config

TINY = [
    (
        "dataset.grammar={classes_per_family: 2, symbols: 4, patch: 2, train_per_class: "
        "8, val_per_class: 2}"
    ),
    "dataset.image_size=16",
    "network={input_size: 16, channels: [4, 4, 4, 4, 4], hidden: [8, 8]}",
    "recipe.batch_size=4",
    "device=cpu",
]


@pytest.fixture
def tiny(tmp_path) -> Config:
    return composed(*TINY, f"data_dir={tmp_path}", f"store={tmp_path}/runs")


# 5 s of a CPU: every cohort that the bench compares
@pytest.mark.slow
def test_speed_tables(tiny, tmp_path, capsys):
    specs = lockstep.cohort_specs(tiny)
    files = tmp_path / "files"
    files.mkdir()
    what = export_images(tiny, specs, files)
    times = lockstep.measure(tiny, specs, files, rounds=1, steps=1, plain_steps=1)
    lockstep.print_speed(tiny, len(specs), what, times)
    out = capsys.readouterr().out
    assert len(specs) == 35
    assert sum(len(list(c.iterdir())) for c in files.iterdir()) == 2 * 8
    assert (
        len(re.findall(r"^ +lockstep: one cohort, .* 1\.00 \(1\.00 to 1\.00\) +[\d,]+$", out, re.M))
        == 2
    )
    for row in ("one network after the other,", r"\d+ networks at a time,"):
        assert re.search(rf"^ +{row} .*\d\) +[\d,]+$", out, re.M)
    assert len(re.findall(r"^ +plain script, .*\d\) +[\d,]+$", out, re.M)) == 2
    for size in (1, 2, 4, 7, 14, 28):
        assert re.search(rf"^ +cohorts of {size} +\d", out, re.M)
    lockstep.print_sweep(tiny, specs, rounds=1, steps=1)
    out = capsys.readouterr().out
    for row in (r"BnB, BnB\+, AnB, AnB\+, every n +28", r"BnB and AnB, n = 5\.\.7 +6"):
        assert re.search(rf"^ +{row} +\d+\.\d\d \(", out, re.M)
    assert not (tmp_path / "runs").exists()


def test_cohorts_grow_to_all_cells_that_a_network_of_any_depth_has(tiny):
    for channels, sizes in (
        (5, [1, 2, 4, 7, 14, 28]),
        (2, [1, 2, 4, 8, 16]),
        (1, [1, 2, 3, 4, 6, 12]),
    ):
        network = replace(tiny.network, channels=[4] * channels)
        assert lockstep.cohort_sizes(replace(tiny, network=network)) == sizes


@pytest.mark.slow
def test_memory_table(tiny, tmp_path, capsys):
    specs = lockstep.cohort_specs(tiny)
    files = tmp_path / "files"
    files.mkdir()
    export_images(tiny, specs, files)
    memory.print_memory(tiny, specs, files, (2,))
    out = capsys.readouterr().out
    for row in ("nothing trained: imports only", "lockstep, a cohort of 2"):
        assert re.search(rf"^ +{row} +[\d,]+", out, re.M)
    assert re.search(r"^ +plain script, one network +[\d,]+ +[\d,]+$", out, re.M)


@pytest.mark.parametrize("normalization", ["none", "lrn", "batch"])
@pytest.mark.parametrize("network", ["small", "caffenet"])
def test_the_plain_network_computes_the_same_logits(network, normalization):
    shrink = ["network.channels=[8, 8, 8, 8, 8]", "network.hidden=[16, 16]", "network.outputs=5"]
    size = 67 if network == "caffenet" else 32
    sizes = [f"network.input_size={size}", f"dataset.image_size={size}"]
    names = ["dataset=folder", "dataset.name=x"]
    config = composed(
        *names, f"network={network}", *shrink, *sizes, f"network.normalization={normalization}"
    )
    mean = np.array([100, 110, 120], np.float32)
    ours = SequentialNetwork(replace(config.network, outputs=5), mean).eval()
    plain = plain_network(config.network, 5).eval()
    with torch.no_grad():
        for own, given in zip(plain.parameters(), ours.parameters(), strict=True):
            own.copy_(given)
        images = torch.randint(0, 256, (3, size, size, 3), dtype=torch.uint8)
        zeros = torch.zeros(3, dtype=torch.int64)
        wanted = ours(Batch(images, zeros, zeros, zeros, zeros.bool(), size))
        pixels = (images.float() - torch.from_numpy(mean)) * config.network.input_scale
        found = plain(pixels.permute(0, 3, 1, 2))
    assert len(plain) == len(ours.layers) == 8
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


def test_the_plain_script_normalises_as_the_network_does(tiny, tmp_path):
    dataset, specs = dataset_of(tiny.dataset), lockstep.cohort_specs(tiny)
    classes = specs[0].classes
    files = tmp_path / "files"
    files.mkdir()
    export_images(tiny, specs, files)
    mean = np.array([100, 110, 120], np.float32)
    batches = plain_batches(files, tiny, mean)
    images, labels = next(batches)
    batches.close()
    rows = dataset.train_rows(list(classes))
    wanted = (
        torch.from_numpy(dataset.images[rows]).float() - torch.from_numpy(mean)
    ) * tiny.network.input_scale
    wanted = wanted.permute(0, 3, 1, 2)
    for image, label in zip(images, labels, strict=True):
        near = [i for i in range(len(rows)) if torch.allclose(wanted[i], image, atol=1e-4)]
        assert [classes.index(int(dataset.labels[rows[i]])) for i in near] == [int(label)]
