"""Alternatives to ``experiments.advise``: fastai's ``fine_tune``, and the script of fine-tuning
tutorials.

``advice.py`` runs :func:`main` in a separate process, with the interpreter that has fastai, so this
module imports nothing of the project. The argument of :func:`main` is the fields of :class:`Job` as
JSON; the result is a JSON file.
"""

import copy
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

SLOW = 1.1  # a factor on predicted times


@dataclass
class Job:
    """A network to train, and the time for it.

    Attributes:
        tool: one of TOOLS.
        images: a folder with train/CLASS/ROW.png, and the same for val and test.
        size: pixels per side of the network's input.
        seconds: processor time (user and system) of the entire process.
        out: the file to write.
    """

    tool: str
    images: str
    weights: str
    model: str
    size: int
    mean: list[float]
    std: list[float]
    seconds: float
    seed: int
    out: str

    def __post_init__(self) -> None:
        self.free = 0.0  # seconds of trial steps, which are not counted

    @property
    def used(self) -> float:
        return time.process_time() - self.free

    @property
    def left(self) -> float:
        return self.seconds - self.used

    @property
    def classes(self) -> int:
        return len(list(Path(self.images, "train").iterdir()))

    def count(self, part: str) -> int:
        return sum(1 for _ in Path(self.images, part).glob("*/*.png"))

    def tensors(self) -> dict[str, Tensor]:
        """The weights without the classifier."""
        config = timm.get_pretrained_cfg(self.model)
        assert config is not None  # the weights were loaded before
        head = config.classifier
        found = safetensors.torch.load_file(self.weights)
        return {name: t for name, t in found.items() if not name.startswith(f"{head}.")}

    def trial(self, work: Callable[[], Any]) -> float:
        """The seconds that ``work`` takes; they are not counted."""
        began = time.process_time()
        work()
        taken = time.process_time() - began
        self.free += taken
        return taken


Labels = dict[str, dict[str, int]]  # val, test -> row of each image -> predicted class


def tutorial(job: Job, whole: bool) -> tuple[str, Labels]:
    """Train a new head on the pretrained network, as tutorials of torchvision do. With ``whole``,
    train the head for half of the time, then all layers at a tenth of the learning rate.

    SGD with momentum 0.9, learning rate 0.03 with cosine decay to zero in each phase, batches of
    32, random resized crops (scale 0.5 to 1) and random mirroring.
    """
    model = timm.create_model(job.model, num_classes=job.classes)
    lacks = model.load_state_dict(job.tensors(), strict=False)
    assert len(lacks.missing_keys) <= 2, lacks  # weight and bias of the classifier
    head: nn.Module = model.get_classifier()  # type: ignore[operator] # a method
    usual = [transforms.ToTensor(), transforms.Normalize(job.mean, job.std)]
    augmented = transforms.Compose(
        [
            transforms.RandomResizedCrop(job.size, (0.5, 1.0)),
            transforms.RandomHorizontalFlip(),
            *usual,
        ]
    )
    batches = _endless(DataLoader(ImageFolder(f"{job.images}/train", augmented), 32, shuffle=True))
    center = transforms.Compose([transforms.CenterCrop(job.size), *usual])
    held_out = {part: ImageFolder(f"{job.images}/{part}", center) for part in ("val", "test")}
    one = next(iter(DataLoader(held_out["val"], 32)))[0]
    asked = sum(map(len, held_out.values()))
    reserve = SLOW * asked / len(one) * job.trial(lambda: _predict(copy.deepcopy(model), one))
    steps = 0
    ends = [job.used + (job.left - reserve) / 2, job.seconds - reserve]
    for phase, (rate, end) in enumerate(zip((0.03, 0.003), ends if whole else ends[1:])):  # noqa: B905
        model.requires_grad_(phase > 0)
        head.requires_grad_(True)
        trained = [p for p in model.parameters() if p.requires_grad]
        steps += _train(model, trained, batches, rate, end, job)
    found = {
        part: _by_row(
            [path for path, _ in images.samples],
            torch.cat([_predict(model, x) for x, _ in DataLoader(images, 32)]),
        )
        for part, images in held_out.items()
    }
    return f"{steps} steps", found


def _train(
    model: nn.Module,
    trained: list[nn.Parameter],
    batches: Iterator,
    rate: float,
    end: float,
    job: Job,
) -> int:
    """Train until ``end``, in seconds of ``job.used``; return the number of steps."""
    optimizer = torch.optim.SGD(trained, rate, momentum=0.9)
    model.train()
    began, steps = job.used, 0
    while (share := (job.used - began) / max(end - began, 1e-9)) < 1:
        optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * share))
        images, labels = next(batches)
        loss = F.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    return steps


def _endless(loader: DataLoader) -> Iterator:
    while True:
        yield from loader


@torch.no_grad()
def _predict(model: nn.Module, images: Tensor) -> Tensor:
    return model.eval()(images).argmax(1)


def _by_row(paths: list, labels: Tensor) -> dict[str, int]:
    return {Path(path).stem: int(label) for path, label in zip(paths, labels)}  # noqa: B905


def fastai(job: Job, rate: float | None = 2e-3, find: bool = False) -> tuple[str, Labels]:
    """``fine_tune`` for as many epochs as fit, after its default of one frozen epoch. If no epoch
    of all layers fits, train the head alone.

    Args:
        rate: ``base_lr``; 2e-3 is fastai's default.
        find: use the rate that ``lr_find`` suggests. If its 100 steps take more than a third of
            the time, the process ends without a result.
    """
    from fastai.vision import all as fast

    learn = _learner(job)
    steps, images = len(learn.dls.train), {part: job.count(part) for part in ("val", "test")}
    frozen, whole = (_epoch_seconds(job, steps, frozen=frozen) for frozen in (True, False))
    image = frozen / (64 * steps)  # seconds per image; predictions are assumed to take as long
    each = SLOW * image * images["val"]
    with learn.no_bar(), learn.no_logging():
        if find:
            if 100 * frozen / steps > job.left / 3:
                raise SystemExit("lr_find takes more than a third of the time")
            learn.freeze()
            rate = learn.lr_find(show_plot=False).valley
        left = job.left - SLOW * image * sum(images.values())
        epochs = int((left - SLOW * frozen - each) // (SLOW * whole + each))
        if epochs > 0:
            learn.fine_tune(epochs, base_lr=rate)
            said = f"fine_tune({epochs}, base_lr={rate:.2g})"
        else:
            epochs = max(1, int(left // (SLOW * frozen + each)))
            learn.freeze()
            learn.fit_one_cycle(epochs, rate)
            said = f"head only, fit_one_cycle({epochs}, {rate:.2g}): no epoch of fine_tune fits"
        found = {}
        for part in images:
            files = fast.get_image_files(Path(job.images) / part)
            logits, _ = learn.get_preds(dl=learn.dls.test_dl(files))
            found[part] = _by_row(files, logits.argmax(1))
    return said, found


def _learner(job: Job) -> Any:
    """A learner: batches of 64, ``aug_transforms`` with ``min_scale=0.75`` as in fastai's book."""
    from fastai.vision import all as fast

    dls = fast.ImageDataLoaders.from_folder(
        job.images,
        train="train",
        valid="val",
        seed=job.seed,
        num_workers=0,
        batch_tfms=[
            *fast.aug_transforms(size=job.size, min_scale=0.75),
            fast.Normalize.from_stats(job.mean, job.std, cuda=False),
        ],
        device=torch.device("cpu"),
    )
    made = fast.vision_learner(dls, job.model, pretrained=False, metrics=fast.accuracy)
    lacks = made.model[0].model.load_state_dict(job.tensors(), strict=False)
    assert not lacks.missing_keys, lacks
    return made


def _epoch_seconds(job: Job, steps: int, frozen: bool) -> float:
    """Seconds of an epoch of ``steps``, from three of its steps, after three to warm up."""
    from fastai.vision import all as fast

    class Few(fast.Callback):
        """An epoch of three steps without validation."""

        def after_batch(self) -> None:
            if self.training and self.iter == 2:
                raise fast.CancelTrainException

        def before_validate(self) -> None:
            raise fast.CancelValidException

    tried = _learner(job)
    tried.freeze() if frozen else tried.unfreeze()
    with tried.no_bar(), tried.no_logging():
        job.trial(lambda: tried.fit(1, cbs=Few()))
        return steps * job.trial(lambda: tried.fit(1, cbs=Few())) / 3


TOOLS: dict[str, Callable[[Job], tuple[str, Labels]]] = {
    "fastai": fastai,
    "fastai, base_lr=1e-2": lambda job: fastai(job, 1e-2),
    "fastai, lr_find": lambda job: fastai(job, None, find=True),
    "tutorial, head": lambda job: tutorial(job, whole=False),
    "tutorial, head then all": lambda job: tutorial(job, whole=True),
}


def main(text: str) -> None:
    job = Job(**json.loads(text))
    torch.set_num_threads(1)
    random.seed(job.seed)
    np.random.seed(job.seed)
    torch.manual_seed(job.seed)
    did, labels = TOOLS[job.tool](job)
    found = {"did": did, "seconds": job.used, "labels": labels}
    Path(job.out).write_text(json.dumps(found), encoding="utf-8")
