"""The filters of layer 1 of a study's bases, and of an untrained network."""

from dataclasses import replace

import numpy as np
import pandas as pd

from analysis.measurements.representations import finished_bases, stored_network
from transferability.runs.store import Store
from transferability.study.cells import UNTRAINED, Cell
from transferability.study.spec import RunSpec
from transferability.training.state import initial_network

FILTERS = ["split", "seed", "network", "filter", "row", "column", "red", "green", "blue"]


def first_layer_filters(specs: list[RunSpec], store: Store) -> pd.DataFrame:
    """The weights of layer 1 of finished base networks, and of an untrained one.

    The bases are those of the first split and seed with two finished bases, or else of the first
    with one. "untrained" has the initial weights of the networks with random filters of that split
    and seed, for target B if baseB is finished.

    Returns:
        A row per pixel of a filter: split, seed, network (baseA, baseB, baseall, untrained),
        filter, row, column (all from 0), and its weights red, green, blue (float32, as stored). No
        rows if layer 1 is not a convolution.
    """
    finished = finished_bases(specs, store)
    if not finished:
        return pd.DataFrame(columns=FILTERS)
    # max returns the first of the largest
    (split, seed), bases = max(finished.items(), key=lambda found: len(found[1]))
    networks = {str(spec.cell): stored_network(spec, store) for spec in bases}
    if any(network.weight(1).dim() != 4 for network in networks.values()):
        return pd.DataFrame(columns=FILTERS)  # layer 1 is not a convolution
    random = replace(bases[-1], cell=Cell(bases[-1].cell.target, UNTRAINED, frozen=1))
    networks["untrained"] = initial_network(
        random, networks[str(bases[-1].cell)].input.mean.numpy()
    )
    tables = []
    for name, network in networks.items():
        weight = network.weight(1).detach().permute(0, 2, 3, 1)
        place = np.indices(weight.shape[:3]).reshape(3, -1).T
        table = pd.DataFrame(place, columns=["filter", "row", "column"])
        table[["split", "seed", "network"]] = split, seed, name
        table[["red", "green", "blue"]] = weight.reshape(-1, 3).numpy()
        tables.append(table[FILTERS])
    return pd.concat(tables, ignore_index=True)
