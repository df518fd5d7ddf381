import threading
from dataclasses import replace

import numpy as np
import pytest
import torch

from transferability.data.pack import pack
from transferability.errors import UserError
from transferability.training.loader import READERS, TaskLoader

CPU = torch.device("cpu")


@pytest.fixture
def stream_of(dataset, config):
    def make(classes=(0, 2, 5), images_per_class=None, seed=0, crop=14, **recipe):
        return TaskLoader(
            dataset,
            list(classes),
            images_per_class,
            seed,
            replace(config.recipe, **recipe),
            crop,
            CPU,
        )

    return make


def test_every_epoch_sees_every_image_once_and_epochs_follow_without_a_gap(stream_of):
    stream = stream_of(batch_size=7)  # 36 images: no batch ends with an epoch before the seventh
    total = len(stream.train_rows)
    assert total == 36
    rows = np.concatenate([stream.rows(step) for step in range(36)])
    epochs = rows.reshape(7, total)
    for epoch in epochs:
        assert sorted(epoch) == sorted(stream.train_rows)
    assert not np.array_equal(epochs[0], epochs[1])


def test_without_reshuffling_every_epoch_is_in_file_order(stream_of):
    stream = stream_of(batch_size=12, reshuffle=False)
    rows = np.concatenate([stream.rows(step) for step in range(6)])
    assert np.array_equal(rows, np.tile(stream.train_rows, 2))


def test_a_batch_is_a_function_of_seed_and_step(stream_of):
    one, other = stream_of(), stream_of(seed=1)
    late = one.batch(5)
    one.batch(0)
    for a, b in (
        (late, one.batch(5)),
        (late, stream_of().batch(5)),
        (late, next(stream_of().batches(5, 6))),
    ):
        assert torch.equal(a.pixels, b.pixels) and torch.equal(a.labels, b.labels)
    assert not torch.equal(late.pixels, other.batch(5).pixels)
    assert not torch.equal(late.pixels, one.batch(6).pixels)


def test_labels_are_positions_in_the_task(stream_of, dataset):
    stream = stream_of(classes=(5, 0, 2))
    batch = stream.batch(0)
    assert [(5, 0, 2)[label] for label in batch.labels] == dataset.labels[stream.rows(0)].tolist()


def test_crops_cover_every_offset_and_half_are_mirrored(stream_of):
    batch = stream_of(batch_size=600).batch(0)
    # 16 - 14 = 2, both ends in
    assert set(batch.top.tolist()) == set(batch.left.tolist()) == {0, 1, 2}
    assert 240 < batch.mirror.sum() < 360
    assert not stream_of(mirror=False).batch(0).mirror.any()
    whole = stream_of(crop=16, mirror=False).batch(0)
    assert torch.equal(whole.pixels, whole.images)


def test_validation_is_every_image_once_in_the_center(stream_of, dataset):
    stream = stream_of(eval_batch_size=4)
    batches = list(stream.validation())
    assert [len(b) for b in batches] == [4, 4, 4, 3]
    images = torch.cat([b.pixels for b in batches])
    assert np.array_equal(images, dataset.images[stream.val_rows][:, 1:15, 1:15])
    assert not any(b.mirror.any() for b in batches)


def test_reduced_volume_takes_the_first_images_of_each_class(stream_of, dataset):
    rows = stream_of(images_per_class=3).train_rows
    for c in (0, 2, 5):
        own = np.flatnonzero(dataset.labels[: dataset.n_train] == c)[:3]
        assert np.array_equal(rows[dataset.labels[rows] == c], own)
    assert len(rows) == 9
    assert len(stream_of(images_per_class=3).val_rows) == 15


@pytest.mark.parametrize("reshuffle", [True, False])
@pytest.mark.parametrize(("start", "stop"), [(0, 13), (5, 6), (11, 40), (3, 3), (2, 4)])
def test_batches_read_ahead_are_those_of_their_steps(stream_of, reshuffle, start, stop):
    recipe = {"batch_size": 7, "reshuffle": reshuffle}  # 36 images: epochs end within batches
    expected = stream_of(**recipe)
    found = list(stream_of(**recipe).batches(start, stop))
    assert len(found) == stop - start
    for step, batch in zip(range(start, stop), found, strict=True):
        alone = expected.batch(step)
        for name in ("images", "labels", "top", "left", "mirror", "pixels"):
            assert torch.equal(getattr(batch, name), getattr(alone, name)), (step, name)
        assert np.array_equal(batch.images, expected._dataset.images[expected.rows(step)])


def test_reading_ahead_ends_with_its_reader(stream_of):
    before = set(threading.enumerate())
    batches = stream_of().batches(0, 10**9)
    next(batches)
    readers = set(threading.enumerate()) - before
    assert 0 < len(readers) <= READERS["cpu"]
    batches.close()
    for thread in readers:
        thread.join(10)  # what it has begun it finishes
        assert not thread.is_alive()


def test_what_goes_wrong_ahead_is_raised_where_its_batch_is_asked_for(tmp_path, config):
    dataset = pack(replace(config.dataset, folder=str(tmp_path / "packed"), encoding="jpeg"))
    stream = TaskLoader(
        dataset, [0, 2, 5], None, 0, replace(config.recipe, batch_size=4, reshuffle=False), 14, CPU
    )
    bad = int(stream.rows(READERS["cpu"] + 3)[1])
    at = 128 + int(dataset.images.offsets[bad])
    with open(dataset.folder / "jpegs.npy", "r+b") as file:
        file.seek(at)
        file.write(b"no")
    batches = stream.batches(0, 9)
    for step in range(READERS["cpu"] + 3):
        assert np.array_equal(next(batches).images, dataset.images[stream.rows(step)])
    with pytest.raises(UserError, match=f"row {bad} in jpegs.npy"):
        next(batches)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("resident", [True, False])
def test_a_gpu_gets_the_same_batches_while_it_is_busy(dataset, config, monkeypatch, resident):
    """The GPU lags behind by hundreds of batches, whose buffers are given out again meanwhile."""
    monkeypatch.setattr(
        "transferability.training.loader.ON_DEVICE_BYTES", 1 << 30 if resident else 0
    )
    recipe = replace(config.recipe, batch_size=7)
    ours, theirs = (
        TaskLoader(dataset, [0, 2, 5], None, 0, recipe, 14, torch.device(d))
        for d in ("cpu", "cuda:0")
    )
    assert (theirs._resident is not None) == resident
    kept = []
    for batch in theirs.batches(3, 300):
        torch.cuda._sleep(2_000_000)
        kept.append((batch.pixels.clone(), batch.labels.clone()))
        del batch
    for expected, (pixels, labels) in zip(ours.batches(3, 300), kept, strict=True):
        assert torch.equal(pixels.cpu(), expected.pixels) and torch.equal(
            labels.cpu(), expected.labels
        )
    for found, expected in zip(theirs.validation(), ours.validation(), strict=True):
        assert torch.equal(found.pixels.cpu(), expected.pixels)
