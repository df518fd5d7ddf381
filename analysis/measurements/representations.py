"""Representations of the networks of a study: the similarity of two networks' layers, and how far
random filters preserve differences between images.

Finished networks are read from the store; untrained networks are recreated from their seeds.
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
IMAGES = 1000  # doubling it changes the similarities of the demo by about 0.02 at most
FEATURES_AT_ONCE = 4096  # features converted to float64 at a time


def similarity(
    specs: list[RunSpec],
    store: Store,
    dataset: PackedDataset,
    images: int = IMAGES,
    known: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """Debiased linear CKA between the layers of two networks, for every layer below the classifier.

    Linear CKA is that of Kornblith et al. 2019, *Similarity of Neural Network Representations
    Revisited*. It is debiased with the unbiased HSIC of Song et al. 2012, as in Nguyen et al. 2021,
    since a layer has more features (all outputs: channels x height x width) than there are images.

    The pairs of finished bases are "bases" (baseA and baseB of one split and seed), "untrained"
    (the same two at step 0), and "other seed" (bases of one task with different seeds).

    Args:
        images: the maximum number of validation images, drawn from all tasks of the split that
            ``specs`` name; center crop, no mirror.
        known: an earlier result; its rows for the same runs and number of images are reused.

    Returns:
        A row per layer of a pair: split, seed (of ``a``), pair, a and b (cells, ``b`` with its seed
        if different), layer (from 1), cka (at most 1, about 0 for independent features; NaN if all
        images have the same features), images (the number used), and the two runs.
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
    """Rows of :func:`similarity` for one pair."""
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
    """The similarity of outputs between images in networks with random filters, and the share of
    dead units.

    Deep random layers with ReLU map all images to nearly one direction (Schoenholz et al. 2017,
    *Deep Information Propagation*). The layers trained above them then get nearly the same gradient
    from every image. Entire layers can end up with only dead units, so that nothing is propagated
    or learned any more (Lu et al. 2020, *Dying ReLU and Initialization*).

    Args:
        images: the maximum number of validation images, drawn from those of the network's task;
            center crop, no mirror.
        known: an earlier result; its rows for the same runs and number of images are reused.

    Returns:
        A row per layer below the classifier, of every finished network with random filters and the
        base of its task: run, layer (from 1), cosine (mean over pairs of images of the cosine
        between the layer's outputs; 1 if all images have one direction; NaN if fewer than two have
        nonzero outputs), silent (share of the layer's values that are 0 for every image), images
        (the number used).
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

    # one thread per network, so that results do not depend on the number of cores
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        measured = list(pool.map(measure, shown))
    return pd.concat(measured, ignore_index=True) if measured else pd.DataFrame(columns=ACTIVITY)


def spread(outputs: Tensor) -> tuple[float, float]:
    """The mean cosine over pairs of images, and the share of features that are 0 for all images.

    Args:
        outputs: (images, features), at least 0, as after a ReLU.
    """
    norms = outputs.norm(dim=1)
    seen = norms > 0
    count = int(seen.sum())
    # avoids a copy of the outputs
    together = (torch.where(seen, 1 / norms, 0) @ outputs).double().square().sum().item()
    cosine = (together - count) / (count * (count - 1)) if count > 1 else float("nan")
    return cosine, (outputs.amax(0) == 0).double().mean().item()


def _known(table: pd.DataFrame | None, identity: dict[str, object]) -> pd.DataFrame:
    """The rows of an earlier table for these runs and number of images, by layer; may be empty."""
    if table is None or table.empty or set(identity) - set(table.columns):
        return pd.DataFrame()
    return table[(table[list(identity)] == pd.Series(identity)).all(axis=1)].sort_values(
        "layer", kind="stable"
    )


def _compare(networks: list[SequentialNetwork], stream: TaskLoader) -> list[float]:
    """:func:`cka` of two networks, layer by layer.

    Each network has one thread, as in training, so that results do not depend on the number of
    cores.
    """
    both = [unit_grams(network, stream) for network in networks]
    with ThreadPoolExecutor(2, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return [cka(*pool.map(next, both)) for _ in networks[0].layers[:-1]]


def unit_grams(network: SequentialNetwork, stream: TaskLoader) -> Iterator[Tensor]:
    """Iterate over :func:`unit_gram` of the layers below the classifier, on the stream's validation
    images.
    """
    return map(unit_gram, layer_outputs(network, stream))


def layer_outputs(network: SequentialNetwork, stream: TaskLoader) -> Iterator[Tensor]:
    """Iterate over the outputs, (images, features), of the layers below the classifier, on the
    stream's validation images.

    Memory holds the outputs of one layer for all images, and of the next during its computation.
    """
    network.eval().requires_grad_(False)
    below = map(network.input, stream.validation())
    for layer in network.layers[:-1]:
        outputs = torch.cat([layer(x) for x in below])
        yield outputs.flatten(1)
        below = outputs.split(stream.recipe.eval_batch_size)


def unit_gram(features: Tensor) -> Tensor:
    """The U-centered Gram matrix of (images, features), scaled to norm 1.

    U-centering zeroes the diagonal and makes every row sum to 0. The inner product of two
    U-centered matrices is n (n - 3) times the unbiased HSIC of Song et al. 2012, equation 5.

    Returns:
        (images, images) float64; NaN for fewer than 4 images, or if all have the same features.
    """
    n = len(features)
    gram = torch.zeros(n, n, dtype=torch.float64)
    for block in features.split(FEATURES_AT_ONCE, dim=1):
        block = block.double()
        block -= block.mean(0)  # for precision only: U-centering removes any shift
        gram.addmm_(block, block.T)
    if n < 4:
        return torch.full_like(gram, torch.nan)
    gram.fill_diagonal_(0)
    sums = gram.sum(0)
    gram += sums.sum() / ((n - 1) * (n - 2)) - (sums[:, None] + sums) / (n - 2)
    gram.fill_diagonal_(0)
    return gram / gram.norm()


def cka(a: Tensor, b: Tensor) -> float:
    """Debiased linear CKA of two layers, from :func:`unit_gram` of each on the same images."""
    return (a * b).sum().item()


def finished_bases(specs: list[RunSpec], store: Store) -> dict[tuple[str, int], list[RunSpec]]:
    """(split, seed) -> its finished bases, A before B; without entries that have none.

    There is one base per task. With fewer images per class, this is the study's own base rather
    than one that its networks start from.
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
    """The pairs of one split's bases that are compared."""
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
    """The validation images of ``classes``, or a random sample of ``images`` of them."""
    stream = TaskLoader(
        dataset, classes, None, spec.seed, spec.recipe, spec.network.input_size, torch.device("cpu")
    )
    if len(stream.val_rows) > images:
        generator = numpy_rng("similarity", images)
        stream.val_rows = np.sort(generator.choice(stream.val_rows, images, replace=False))
    return stream
