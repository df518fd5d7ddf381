"""The tables of the ingest benchmark."""

import statistics
from itertools import product

from experiments.benchmarks.timing import spread, table
from transferability.console import pluralize
from transferability.training.loader import READERS

IMAGENET = 1_281_167 + 50_000  # images


ENCODINGS = ("raw", "jpeg")


WAYS = {
    "faults": "page faults only",
    "announced": "rows of the batch announced (WILLNEED)",
    "cpu": f"announced, read ahead by {READERS['cpu']} threads",
    "gpu": f"the same by {READERS['cuda']} into buffers used again, as for a GPU",
}


# (network-images/s of a GPU, networks of a cohort)
NEEDS = (*product((40_000, 60_000), (28, 60)), (23_000, 1))


def print_packing(files: str, images: int, sizes: dict[str, float], rates: dict) -> None:
    """Print table 1: the speed of packing."""
    alone = rates["raw", 1]
    rows = [
        [
            f"{encoding}, {pluralize(workers, 'thread')}",
            spread(of, alone),
            f"{statistics.median(of):,.0f}",
            f"{IMAGENET / statistics.median(of) / 60:,.0f}",
            f"{IMAGENET * sizes[encoding] / 1e9:,.0f}",
        ]
        for (encoding, workers), of in rates.items()
    ]
    table(
        f"1. Packing {images} images ({files}).\n"
        "   Reading, decoding, resizing, writing, checksum; so fast, ImageNet's 1,331,167 images "
        "would take so many\n"
        "   minutes and become so many GB. Speed, raw with one thread = 1.",
        ["", "speed (min to max)", "images/s", "ImageNet: minutes", "GB"],
        rows,
    )


def print_reading(size: dict[str, float], batch: int, rates: dict) -> None:
    """Print table 2: the speed of reading."""
    for encoding in ENCODINGS:
        rows = []
        for (kind, order, way, cold), of in rates.items():
            if kind == encoding:
                ratio = spread(of, rates[kind, order, "faults", cold])
                what = f"{'cold' if cold else 'warm'}, {order} order: {WAYS[way]}"
                rows.append([what, ratio, f"{statistics.median(of):,.0f}"])
        table(
            f"2. Reading batches of {batch} rows from a pack of {size[encoding]:.1f} GB, "
            f"{encoding}. Cold: not in\n"
            "   memory. Speed, without announcement = 1.",
            ["", "speed (min to max)", "rows/s"],
            rows,
        )


def print_needs(rates: dict) -> None:
    """Print table 3: the speed of reading over the needs of training."""
    rows = []
    for (encoding, order, way, cold), of in rates.items():
        if way == "gpu":
            have = statistics.median(of)
            ratios = [f"{have / (rate / networks):.1f}" for rate, networks in NEEDS]
            rows.append(
                [
                    f"{encoding}, {'cold' if cold else 'warm'}, {order} order",
                    f"{have:,.0f}",
                    *ratios,
                ]
            )
    table(
        "3. Rows read as for a GPU over rows that a cohort needs: above 1 the reader waits for "
        "training. (Columns:\n"
        "   network-images/s of the GPU / networks = rows/s.)",
        [
            "",
            "rows/s",
            *(f"{rate // 1000}k / {networks} = {rate / networks:,.0f}" for rate, networks in NEEDS),
        ],
        rows,
    )
