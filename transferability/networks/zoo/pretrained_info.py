"""Metadata of pretrained weights: preprocessing, license and classes."""

import json
import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from transferability.errors import UserError, and_more, reason
from transferability.fingerprint import COSMETIC, lists_to_tuples, omit_at
from transferability.networks.config import NetworkConfig
from transferability.networks.zoo.config import ZooNetworkConfig

FILES = (".safetensors", ".pth", ".pt", ".bin", ".ckpt", ".tar")  # suffixes of weights files
BESIDE = ("config.json", "preprocessor_config.json")
LEAST = 1e-3  # lower bound of a standard deviation
TAGS = 3  # most weights named per preprocessing
# arguments of timm that are also set here, or do not change the computation
SAME = ("num_classes", "img_size", "in_chans", "scriptable", "exportable")
SQUASHED_FROM = 384  # pixels from which ConvNeXt's images are not cropped, in Hugging Face's files
RESAMPLING = {
    0: "nearest",
    2: "bilinear",
    3: "bicubic",
}  # Pillow's numbers, in Hugging Face's files


@dataclass(frozen=True)
class PretrainedInfo:
    """Metadata that the weights' authors give, and notes on how the weights were read.

    Attributes:
        origin: the source of the metadata.
        size: pixels per side of the images.
        resized: pixels of the shorter side before the center crop.
        fit, orientation, encoding: see ``Preprocessing``; None: a crop, unknown, none.
        classes: class names in the order of the outputs; None: unknown.
    """

    origin: str = ""
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    size: int | None = None
    resized: int | None = None
    interpolation: str | None = None
    fit: str | None = omit_at(None)
    orientation: str | None = omit_at(None)
    encoding: str | None = omit_at(None)
    licence: str | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        lists_to_tuples(self)

    def lines(self) -> list[str]:
        """The metadata as lines of a plan or report."""
        named = {
            "mean": self.mean,
            "standard deviation": self.std,
            "pixels per side": self.size,
            "resized to": self.resized,
            "interpolation": self.interpolation,
            "fit": self.fit,
            "orientation": self.orientation,
            "encoding": self.encoding,
            "license": self.licence,
        }
        known = [f"{k} {as_text(v)}" for k, v in named.items() if v is not None]
        return [f"{', '.join(known)} ({self.origin})", *self.notes]


@dataclass(frozen=True)
class PretrainedBase:
    """The description of a pretrained base A, without its tensors.

    Attributes:
        weights: the file, or the library's name for the weights.
        digest: SHA-256 of the tensors, including the input's.
        network: the network's settings, with the weights' number of outputs.
    """

    weights: str = field(metadata=COSMETIC)
    digest: str
    network: ZooNetworkConfig
    facts: PretrainedInfo = field(default=PretrainedInfo(), metadata=COSMETIC)

    @property
    def id(self) -> str:
        return self.digest

    def lines(self) -> list[str]:
        """The description as lines of a plan or report."""
        what = f"{self.network.model}, {self.network.outputs} classes, SHA-256 {self.digest[:12]}"
        name = Path(self.weights).name  # a report does not reveal folders
        return [f"Base A is given: {name} ({what})", *self.facts.lines()]

    def adapted(self, network: NetworkConfig) -> NetworkConfig:
        """``network`` with the input normalization of the pretrained base."""
        keys = ("channel_mean", "channel_std", "input_scale")
        return replace(network, **{key: getattr(self.network, key) for key in keys})


def described_beside(
    path: Path, header: Mapping[str, str], model: str, notes: list[str]
) -> PretrainedInfo | None:
    """Read the preprocessing from the header of a weights file or a file next to it: timm's
    ``config.json``, Hugging Face's ``preprocessor_config.json``; None if it is in none of them.

    A note is added for metadata of another network, or of one with other settings: the tensors
    may have the same names and shapes.

    Raises:
        UserError: mean or standard deviation is impossible.
    """
    own = {key: _json(text) for key, text in header.items()}
    beside = {
        name: _json((path.parent / name).read_text(encoding="utf-8", errors="replace"))
        for name in BESIDE
        if (path.parent / name).is_file()
    }
    for where, found in {f"the header of {path.name}": own, **beside}.items():
        if not isinstance(found, Mapping):
            continue
        config = found.get("pretrained_cfg", found)
        named = str(found.get("architecture") or config.get("architecture") or model)
        named = named.partition(".")[0]
        if {"mean", "std"} <= config.keys() and named == model:
            notes += _made_otherwise(found.get("model_args"), where)
            return _of_timm(config, where)
        if {"mean", "std"} <= config.keys():
            notes.append(read_as(where, named, model, f"network.model={named}"))
        if {"image_mean", "image_std"} <= config.keys():
            return _of_hugging_face(config, where)
    return None


def read_as(where: str, theirs: str, ours: str, setting: str) -> str:
    """A note that the metadata names another network than the weights are read as."""
    return (
        f"{where} says that they are of {theirs}, and they are read as {ours}: {setting} reads "
        "them as it says"
    )


def _made_otherwise(given: Any, where: str) -> list[str]:
    """A note on arguments of timm that change outputs but perhaps no tensor."""
    given = given if isinstance(given, Mapping) else {}
    rest = [f"{k}={v}" for k, v in given.items() if k not in SAME and "drop" not in k]
    said = f"says that their network was made with {' '.join(rest)}, and it is made without"
    return [f"{where} {said}"] if rest else []


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _of_timm(config: Mapping, where: str) -> PretrainedInfo:
    size = (config.get("input_size") or (None,))[-1]
    crop = config.get("crop_pct")
    return PretrainedInfo(
        ", ".join(filter(None, (where, config.get("tag")))),
        mean=_three(config["mean"], where),
        std=_three(config["std"], where, low=LEAST),
        size=size,
        resized=resized_for(size, crop) if size and crop else None,
        interpolation=config.get("interpolation"),
        fit=fit_of(config.get("crop_mode")),
        licence=config.get("license"),
    )


def resized_for(size: int, crop_pct: float) -> int:
    """The shorter side before the center crop, rounded down as in timm."""
    return math.floor(size / crop_pct)


def fit_of(crop_mode: str | None) -> str | None:
    """timm's ``crop_mode`` as ``Preprocessing.fit``; None: a crop."""
    return "squash" if crop_mode == "squash" else None


def _of_hugging_face(config: Mapping, where: str) -> PretrainedInfo:
    factor = 1 if config.get("do_rescale") is False else config.get("rescale_factor") or 1 / 255
    scale = round(255 * factor, 6)  # of pixels from 0 to 1
    lower = 1 if config.get("rescale_offset") else 0  # subtracted after rescaling
    plain = config.get("do_normalize") is False
    mean, std = ([0.0] * 3, [1.0] * 3) if plain else (config["image_mean"], config["image_std"])
    size, crop = (_side(config.get(key)) for key in ("size", "crop_size"))
    share, resized = config.get("crop_pct"), size  # ConvNeXt's
    squashed = isinstance(config.get("size"), Mapping) and "height" in config["size"]
    if size and share:
        squashed = size >= SQUASHED_FROM
        resized = size if squashed else int(size / share)
    return PretrainedInfo(
        where,
        mean=_three(mean, where, scale, plus=lower),
        std=_three(std, where, scale, LEAST),
        size=crop if config.get("do_center_crop") and crop else size,
        resized=resized,
        interpolation=RESAMPLING.get(config.get("resample", -1)),
        fit="squash" if squashed else None,
    )


def _side(size: Any) -> int | None:
    """Pixels of the shorter side."""
    if isinstance(size, Mapping):
        sides = [size.get(key) for key in ("shortest_edge", "height", "width")]
        return min((side for side in sides if side), default=None)
    return size if isinstance(size, int) else None


def _three(
    values: Any, where: str, scale: float = 1, low: float = 0.0, plus: float = 0
) -> tuple[float, ...]:
    """Convert ``values`` + ``plus``, of pixels times ``scale``, to pixels from 0 to 1.

    Raises:
        UserError: the results are not three numbers from ``low`` to 1.
    """
    three = isinstance(values, list) and len(values) == 3
    if three and all(isinstance(v, (int, float)) for v in values):
        found = tuple((v + plus) / scale for v in values)
        if all(low <= v <= 1 for v in found):
            return found
    raise UserError(
        f"{where} says {values}, which is not a mean or standard deviation of three channels from "
        "0 to 1: set network.channel_mean and network.channel_std"
    )


def assumed(network: ZooNetworkConfig) -> PretrainedInfo:
    """The metadata of the library's default weights, for a file without metadata.

    Notes list the library's other weights that need other preprocessing.
    """
    by_tag = {tag: network.info_of(tag) for tag in network.tags()}
    others: dict[str, list[str]] = {}
    if not by_tag:
        return PretrainedInfo(f"{network.kind} has no weights of its own for this network")
    facts = next(iter(by_tag.values()))
    own = _prepares(facts)
    for tag, found in by_tag.items():
        differing = {k: v for k, v in _prepares(found).items() if v != own[k]}
        if differing:
            said = " and ".join(f"{k} {as_text(v)}" for k, v in differing.items())
            others.setdefault(said, []).append(tag)
    differ = "; ".join(
        f"{', '.join(tags[:TAGS])}{and_more(tags[TAGS - 1 :])} {said}"
        for said, tags in others.items()
    )
    note = f"other weights for this network need images prepared differently ({differ})"
    if "mean" in differ:
        note += ": experiments.check_weights says which mean and standard deviation fit"
    origin = f"assumed, as nothing beside the file says it: {facts.origin}"
    return replace(facts, origin=origin, notes=(note,) if differ else ())


def _prepares(facts: PretrainedInfo) -> dict[str, Any]:
    """The preprocessing that has to match the weights."""
    share = round(facts.size / facts.resized, 2) if facts.size and facts.resized else None
    return {
        "mean": facts.mean,
        "standard deviation": facts.std,
        "interpolation": facts.interpolation,
        "fit": facts.fit or "crop",
        "crop of the middle": share,
    }


@contextmanager
def downloading(tag: str, where: str) -> Iterator[None]:
    """Convert all errors within the block to :class:`UserError`."""
    try:
        yield
    except Exception as error:  # of any library that downloads
        raise UserError(
            f"weights={tag} cannot be downloaded ({reason(error)}): fetch the file on a machine "
            f"that can, from {where}, and give its path: weights=PATH"
        ) from error


def as_text(value: Any) -> str:
    return " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else str(value)
