"""Resized crops, color and smoothed labels: what they are, and that a run stays what its identity
says.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from tests.helpers import equal
from transferability.data.batch import Batch
from transferability.training.loader import TaskLoader, boxes
from transferability.training.state import PrefixCache, build_state

AUGMENTED = {"crop_scale": 0.4, "color_jitter": 0.3, "label_smoothing": 0.1}
CPU = torch.device("cpu")


def drawn(count=6, side=20, crop=14, **more):
    images = torch.randint(
        0,
        256,
        (count, side, side, 3),
        dtype=torch.uint8,
        generator=torch.Generator().manual_seed(0),
    )
    top, left = torch.arange(count), torch.arange(count).flip(0)
    return Batch(images, torch.zeros(count), top, left, torch.arange(count) % 2 == 1, crop, **more)


def test_a_box_of_the_crop_s_size_is_the_crop():
    plain = drawn()
    places = torch.stack([plain.top, plain.left], 1).float()
    same = drawn(boxes=torch.cat([places, torch.full((6, 2), 14.0)], 1))
    assert torch.equal(same.pixels, plain.pixels)
    picture = torch.randn(20, 20, 3)
    torch.testing.assert_close(same.crop_and_flip(picture), plain.crop_and_flip(picture))


def test_boxes_are_torchvision_s_resized_crops():
    found = drawn(crop=9, boxes=torch.tensor([[2.0, 5.0, 12.0, 10.0]]).repeat(6, 1))
    for image, mirrored, own in zip(found.images, found.mirror, found.pixels, strict=True):
        wanted = tv.resized_crop(
            image.permute(2, 0, 1).float(), 2, 5, 12, 10, [9, 9], InterpolationMode.BILINEAR, False
        )
        wanted = wanted.flip(2) if mirrored else wanted
        # of the rim: torchvision cuts before it resizes, here the pixels beside it are seen
        inner = (slice(1, -1), slice(1, -1))
        wanted = wanted.permute(1, 2, 0).round()[inner]
        assert (own.float()[inner] - wanted).abs().max() <= 1


def test_color_is_torchvision_s():
    factors = torch.tensor([[1.2, 0.7, 1.4], [0.8, 1.3, 0.5], [1, 1, 1]]).repeat(2, 1)
    plain, changed = drawn().pixels, drawn(color=factors).pixels
    for image, (b, c, s), own in zip(plain, factors.tolist(), changed, strict=True):
        wanted = image.permute(2, 0, 1).float() / 255
        for change, factor in (
            (tv.adjust_brightness, b),
            (tv.adjust_contrast, c),
            (tv.adjust_saturation, s),
        ):
            wanted = change(wanted, factor)
        assert (own.float() - 255 * wanted.permute(1, 2, 0)).abs().max() < 1
    assert torch.equal(changed[2], plain[2]), "factors of 1 change nothing"


def test_boxes_have_the_areas_and_sides_that_are_asked_for():
    found = np.concatenate([boxes(0, step, 64, 20, 0.4) for step in range(20)])
    corners, sides = found[:, :2], found[:, 2:]
    assert corners.min() >= 0 and (corners + sides).max() <= 20 + 1e-4
    areas = sides.prod(1) / 400
    assert areas.max() <= 1 and 0.5 < areas.mean() < 0.7
    assert (areas < 0.399).mean() < 0.05, "but for those that are cut at the picture's edge"
    ratio = sides[:, 1] / sides[:, 0]
    assert 0.74 < ratio.min() < 0.8 and 1.25 < ratio.max() < 1.34
    assert np.array_equal(boxes(0, 3, 8, 20, 0.4), boxes(0, 3, 8, 20, 0.4))
    assert not np.array_equal(boxes(0, 3, 8, 20, 0.4), boxes(1, 3, 8, 20, 0.4))


def test_other_draws_stay_as_they_are(dataset, config):
    """Crops, mirrors and rows are those of the recipe without, and images that are evaluated are
    not changed.
    """
    plain, own = (
        TaskLoader(dataset, [0, 2, 5], None, 0, replace(config.recipe, **more), 14, CPU)
        for more in ({}, AUGMENTED)
    )
    a, b = plain.batch(3), own.batch(3)
    assert a.boxes is None and b.boxes.shape == (6, 4) and b.color.shape == (6, 3)
    for key in ("images", "labels", "top", "left", "mirror"):
        assert torch.equal(getattr(a, key), getattr(b, key))
    assert not torch.equal(a.pixels, b.pixels)
    assert all(x.boxes is None and x.color is None for x in own.validation())


def test_alone_and_together_the_same_bits(spec_of, trained):
    both = [spec_of(cell, recipe=AUGMENTED) for cell in ("baseB", "B3B+")]
    together = trained(both)
    alone = trained(both[:1])
    assert equal(alone.weights(both[0]), together.weights(both[0]))
    assert not equal(alone.weights(both[0]), trained([spec_of("baseB")]).weights(spec_of("baseB")))


@pytest.mark.parametrize("key", AUGMENTED)
def test_a_changed_setting_is_another_run(spec_of, key):
    plain, own = spec_of("baseB"), spec_of("baseB", recipe={key: AUGMENTED[key]})
    assert own.id != plain.id and spec_of("baseB", recipe={}).id == plain.id
    together = own.recipe.batching_key == plain.recipe.batching_key
    assert together == (key == "label_smoothing"), "a loss of its own needs no batches of its own"


def test_the_smoothed_loss_is_a_mean_with_that_of_all_classes(spec_of, dataset):
    spec = spec_of("baseB", recipe={"label_smoothing": 0.2})
    stream = TaskLoader.of(spec, dataset, CPU)
    state = build_state(spec, stream, None, None)
    state.network.train()
    batch = stream.batch(0)
    state.network.reseed_dropout(0)
    logits = state.logits(batch, PrefixCache(batch)).log_softmax(1)
    state.network.reseed_dropout(0)
    state.gradients(batch, PrefixCache(batch))
    wanted = 0.8 * F.nll_loss(logits, batch.labels) - 0.2 * logits.mean()
    assert state.loss.item() == pytest.approx(wanted.item(), rel=1e-5)
