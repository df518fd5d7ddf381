"""What the networks of a study look like inside: how similar two networks' layers are, and what
random filters leave of the differences between images.

All read finished networks from the store; untrained networks are drawn again from their seeds.
"""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import combinations

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from transferability.data.packed import PackedDataset
from transferability.networks.sequential import SequentialNetwork
from transferability.rng import numpy_rng
from transferability.runs.store import Store
from transferability.study.cells import UNTRAINED, Cell
from transferability.study.jobs import with_bases
from transferability.study.spec import RunSpec
from transferability.training.loader import TaskLoader
from transferability.training.state import initial_network

SIMILARITY = ["split", "seed", "pair", "a", "b", "layer", "cka", "images", "run_a", "run_b"]
ACTIVITY = ["run", "layer", "cosine", "silent", "images"]
IMAGES = 1000  # twice as many change the similarities of the demo by about 0.02 at most
FEATURES_AT_ONCE = 4096  # that are float64 at the same moment


def similarity(
    specs: list[RunSpec],
    store: Store,
    dataset: PackedDataset,
    images: int = IMAGES,
    known: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Debiased linear CKA between the layers of two networks, for every layer below the classifier.

    Linear CKA is Kornblith et al. 2019, *Similarity of Neural Network Representations Revisited*;
    debiased with the unbiased HSIC of Song et al. 2012, as in Nguyen et al. 2021, since a layer has
    more features (all values that it puts out: channels x height x width) than there are images.

    The pairs: "bases", baseA and baseB of one split and seed; "untrained", the same two as they
    were at step 0;
    "other seed", bases of one task. Only of finished bases.

    Args:
        images: at most so many validation images, drawn from those of all tasks of the split that
            ``specs`` name; center crop, no mirror.
        known: an earlier result; what it has of these very runs is not computed again.

    Returns:
        A row per layer of a pair: split, seed (of ``a``), pair, a and b (cells, ``b`` with its seed
        if another), layer (from 1), cka (at most 1, about 0 for independent features; NaN where all
        images give the same), images (how many were used), and the two runs.
    """
    rows, splits = [], dict[str, list[RunSpec]]()
    for (split, _), bases in finished_bases(specs, store).items():
        splits.setdefault(split, []).extend(bases)
    for split, bases in splits.items():
        classes = sorted(
            {c for spec in with_bases(specs) if spec.split == split for c in spec.classes}
        )
        stream = _stream(bases[0], dataset, classes, images)
        for pair in _pairs(bases):
            rows += _similarity_of(*pair, store, stream, known)
    return pd.DataFrame(rows, columns=SIMILARITY)


def _similarity_of(
    pair: str, a: RunSpec, b: RunSpec, store: Store, stream: TaskLoader, known: pd.DataFrame | None
) -> list[dict]:
    """Rows of :func:`similarity`, of one pair."""
    runs = {"run_a": a.run_id, "run_b": b.run_id}
    identity = {"pair": pair, "images": len(stream.val_rows), **runs}
    values = _known(known, identity).get("cka", [])
    if not len(values):
        networks = [stored_network(spec, store, start=pair == "untrained") for spec in (a, b)]
        values = _compare(networks, stream)
    names = {"a": str(a.cell), "b": str(b.cell) + (f" seed {b.seed}" if b.seed != a.seed else "")}
    task = {"split": a.split, "seed": a.seed}
    return [
        {**task, **names, "layer": layer, "cka": value, **identity}
        for layer, value in enumerate(values, start=1)
    ]


def activity(
    specs: list[RunSpec],
    store: Store,
    dataset: PackedDataset,
    images: int = IMAGES,
    known: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """How similar the outputs for all images are in the layers of networks with random filters,
    and which units never respond.

    Deep random layers with ReLU map all images to nearly one direction (Schoenholz et al. 2017,
    *Deep Information Propagation*). What is trained above them then gets nearly the same gradient
    from every image, and whole layers of it can end where no image switches a unit on, nothing
    passes and nothing is learned any more (Lu et al. 2020, *Dying ReLU and Initialization*).

    Args:
        images: at most so many validation images, drawn from those of the network's task;
            center crop, no mirror.
        known: an earlier result; what it has of these very runs is not computed again.

    Returns:
        A row per layer below the classifier, of every finished network with random filters and the
        base of its task:
        run, layer (from 1), cosine (mean over pairs of images of the cosine between the layer's
        outputs; 1: all images give one direction; NaN where fewer than two give anything), silent
        (share of the layer's values that are 0 for every image), images (how many were used).
    """
    finished = [spec for spec in specs if store.is_done(spec)]
    random = [spec for spec in finished if spec.cell.source == UNTRAINED]
    theirs = {replace(spec, cell=Cell(spec.cell.target)).run_id for spec in random}
    shown = [*random, *(spec for spec in finished if spec.run_id in theirs)]

    def measure(spec: RunSpec) -> pd.DataFrame:
        stream = _stream(spec, dataset, list(spec.classes), images)
        identity = {"run": spec.run_id, "images": len(stream.val_rows)}
        found = _known(known, identity)
        if found.empty:
            found = pd.DataFrame(
                map(spread, layer_outputs(stored_network(spec, store), stream)),
                columns=["cosine", "silent"],
            )
        return found.assign(layer=range(1, len(found) + 1), **identity)[ACTIVITY]

    # cores change no number
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        measured = list(pool.map(measure, shown))
    return pd.concat(measured, ignore_index=True) if measured else pd.DataFrame(columns=ACTIVITY)


def spread(outputs: Tensor) -> tuple[float, float]:
    """Mean cosine of two images' outputs, (images, features),
    and the share of features that are 0 for all.

    ``outputs`` are those of a ReLU, at least 0.
    """
    norms = outputs.norm(dim=1)
    seen = norms > 0
    count = int(seen.sum())
    # no copy of the outputs
    together = (torch.where(seen, 1 / norms, 0) @ outputs).double().square().sum().item()
    cosine = (together - count) / (count * (count - 1)) if count > 1 else float("nan")
    return cosine, (outputs.amax(0) == 0).double().mean().item()


def _known(table: pd.DataFrame | None, identity: dict[str, object]) -> pd.DataFrame:
    """The rows of these runs and images, layer by layer, from an earlier table;
    none if they are not there.
    """
    if table is None or table.empty or set(identity) - set(table.columns):
        return pd.DataFrame()
    return table[(table[list(identity)] == pd.Series(identity)).all(axis=1)].sort_values(
        "layer", kind="stable"
    )


def _compare(networks: list[SequentialNetwork], stream: TaskLoader) -> list[float]:
    """:func:`cka` of two networks, layer by layer.

    One thread each, as in training: cores do not change a number.
    """
    both = [unit_grams(network, stream) for network in networks]
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return [cka(*pool.map(next, both)) for _ in networks[0].layers[:-1]]


def unit_grams(network: SequentialNetwork, stream: TaskLoader) -> Iterator[Tensor]:
    """:func:`unit_gram` of each layer below the classifier on the stream's validation images,
    one after the other.
    """
    return map(unit_gram, layer_outputs(network, stream))


def layer_outputs(network: SequentialNetwork, stream: TaskLoader) -> Iterator[Tensor]:
    """(images, features) of each layer below the classifier on the stream's validation images,
    one after the other.

    Holds the outputs of one layer for all images, and of the next while they are computed.
    """
    network.eval().requires_grad_(False)
    below = map(network.input, stream.validation())
    for layer in network.layers[:-1]:
        outputs = torch.cat([layer(x) for x in below])
        yield outputs.flatten(1)
        below = outputs.split(stream.recipe.eval_batch_size)


def unit_gram(features: Tensor) -> Tensor:
    """The U-centered Gram matrix of (images, features), of norm 1.

    U-centring leaves the diagonal out and makes every row sum to 0. The scalar product of two
    U-centered matrices is n (n - 3) times the unbiased HSIC of Song et al. 2012, equation 5.

    Returns:
        (images, images) float64; NaN for fewer than 4 images, or if all have the same features.
    """
    n = len(features)
    gram = torch.zeros(n, n, dtype=torch.float64)
    for block in features.split(FEATURES_AT_ONCE, dim=1):
        block = block.double()
        block -= block.mean(0)  # only for less rounding: what a shift adds, U-centring removes
        gram.addmm_(block, block.T)
    if n < 4:
        return torch.full_like(gram, torch.nan)
    gram.fill_diagonal_(0)
    sums = gram.sum(0)
    gram += sums.sum() / ((n - 1) * (n - 2)) - (sums[:, None] + sums) / (n - 2)
    gram.fill_diagonal_(0)
    return gram / gram.norm()


def cka(a: Tensor, b: Tensor) -> float:
    """Debiased linear CKA of two layers from their :func:`unit_gram` on the same images."""
    return (a * b).sum().item()


def finished_bases(specs: list[RunSpec], store: Store) -> dict[tuple[str, int], list[RunSpec]]:
    """(split, seed) -> its finished bases, A before B, where there are any.

    One per task: with fewer images per class, the study's own rather than one that its
    networks start from.
    """
    chosen: dict[tuple[str, int], dict[str, RunSpec]] = {}
    for spec in [*specs, *with_bases(specs)]:
        if spec.cell.is_base:
            chosen.setdefault((spec.split, spec.seed), {}).setdefault(spec.cell.target, spec)
    finished = {
        key: [b for _, b in sorted(bases.items()) if store.is_done(b)]
        for key, bases in chosen.items()
    }
    return {key: bases for key, bases in finished.items() if bases}


def _pairs(bases: list[RunSpec]) -> list[tuple[str, RunSpec, RunSpec]]:
    """What is compared, of one split's bases."""
    together = [(a, b) for a, b in combinations(bases, 2) if a.seed == b.seed]
    apart = [(a, b) for a, b in combinations(bases, 2) if a.seed != b.seed and a.cell == b.cell]
    pairs = {"bases": together, "untrained": together, "other seed": apart}
    return [(pair, a, b) for pair, both in pairs.items() for a, b in both]


def stored_network(spec: RunSpec, store: Store, start: bool = False) -> SequentialNetwork:
    """A finished network, or a base at the start of its training."""
    weights = store.weights(spec)
    network = initial_network(spec, weights["input.mean"].numpy())
    if not start:
        network.load_state_dict(weights)
    return network


def _stream(spec: RunSpec, dataset: PackedDataset, classes: list[int], images: int) -> TaskLoader:
    """The validation images of ``classes``, or so many drawn from them."""
    stream = TaskLoader(
        dataset, classes, None, spec.seed, spec.recipe, spec.network.input_size, torch.device("cpu")
    )
    if len(stream.val_rows) > images:
        generator = numpy_rng("similarity", images)
        stream.val_rows = np.sort(generator.choice(stream.val_rows, images, replace=False))
    return stream
