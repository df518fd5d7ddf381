"""Synthetic images: a two-dimensional random hierarchy with known ground truth.

After Cagnetta et al., "How deep neural networks learn compositional data: the random hierarchy
model" (Phys. Rev. X 2024). A class expands by one of m rules into 2x2 symbols of the level below,
each of which expands into 2x2, and so on; the terminals (level 0) are small Gabor patches and color
blobs. Two families of classes share the rules of the lowest ``shared_levels`` levels and have their
own rules above. So the level at which features of one family stop transferring to the other is
known.
"""

from dataclasses import dataclass
from functools import partial

import numpy as np

from transferability.data.config import DatasetConfig, GrammarConfig
from transferability.data.description import ClassInfo
from transferability.data.readers.base import RawDataset, Sample
from transferability.rng import numpy_rng

FAMILIES = ("natural", "man-made")


@dataclass(frozen=True)
class Grammar:
    """Rules and terminals.

    Attributes:
        rules: ``rules[family][level]``, level 1..L: (symbols of the level, m, 4) symbols of the
            level below, each production in the order top left, top right, bottom left, bottom
            right. At level L symbols are classes.
        terminals: (v, patch, patch, 3) float, about -1..1.
    """

    config: GrammarConfig
    rules: list[dict[int, np.ndarray]]
    terminals: np.ndarray

    def derive(self, family: int, label: int, draw: np.random.Generator) -> np.ndarray:
        """Expand class ``label`` of ``family`` to its terminals, (2^L, 2^L) symbols."""
        symbols = np.array([[label]])
        for level in range(self.config.levels, 0, -1):
            choice = draw.integers(0, self.config.rules, symbols.shape)
            produced = self.rules[family][level][symbols, choice]  # (h, w, 4)
            h, w = symbols.shape
            symbols = produced.reshape(h, w, 2, 2).transpose(0, 2, 1, 3).reshape(2 * h, 2 * w)
        return symbols

    def image(self, family: int, label: int, *key: int | str) -> np.ndarray:
        """Generate an image of a class, (S, S, 3) uint8 with S = patch x 2^L; ``key`` identifies
        the draw.
        """
        c = self.config
        draw = numpy_rng(c.seed, "image", family, label, *key)
        symbols = self.derive(family, label, draw)
        size = len(symbols) * c.patch
        x = self.terminals[symbols].transpose(0, 2, 1, 3, 4).reshape(size, size, 3)
        x = np.roll(x, draw.integers(-c.shift, c.shift + 1, 2), axis=(0, 1))
        contrast = 1 + c.brightness * draw.uniform(-1, 1)
        offset = c.brightness * draw.uniform(-1, 1)
        x = contrast * x + offset + c.noise * draw.standard_normal(x.shape)
        return np.clip(np.rint(128 + 56 * x), 0, 255).astype(np.uint8)


def make_grammar(config: GrammarConfig) -> Grammar:
    """Generate the grammar of ``config.seed``. The rules of a level depend on the seed, the level
    and, above the shared levels, the family.
    """
    top, per_family = config.levels, config.classes_per_family
    # One draw for the classes of all families, so that no two classes share a production.
    of_classes = _productions(
        config.families * per_family, config, numpy_rng(config.seed, "rules", top)
    ).reshape(config.families, per_family, config.rules, 4)
    rules = []
    for family in range(config.families):
        own = {top: of_classes[family]}
        for level in range(1, top):
            owner = "shared" if level <= config.shared_levels else FAMILIES[family]
            own[level] = _productions(
                config.symbols, config, numpy_rng(config.seed, "rules", level, owner)
            )
        rules.append(own)
    return Grammar(config, rules, _terminals(config))


def _productions(count: int, config: GrammarConfig, draw: np.random.Generator) -> np.ndarray:
    """Draw (count, m, 4) productions, all different, so that no 2x2 block has two parents."""
    codes = draw.choice(config.symbols**4, count * config.rules, replace=False)
    digits = np.stack([codes // config.symbols**k % config.symbols for k in range(4)], axis=-1)
    return digits.reshape(count, config.rules, 4)


def _terminals(config: GrammarConfig) -> np.ndarray:
    """Draw the terminals: half Gabor patches, half color blobs, each with its own direction in
    color space.

    Each is the one of 20 candidates that is farthest from the previous ones, so that no two look
    the same.
    """
    draw = numpy_rng(config.seed, "terminals")
    chosen: list[np.ndarray] = []
    for symbol in range(config.symbols):
        candidates = [_terminal(symbol, config, draw) for _ in range(20)]
        distances = [min((np.abs(c - t).mean() for t in chosen), default=0.0) for c in candidates]
        chosen.append(candidates[int(np.argmax(distances))])
    return np.stack(chosen)


def _terminal(symbol: int, config: GrammarConfig, draw: np.random.Generator) -> np.ndarray:
    side = np.linspace(-1, 1, config.patch)
    y, x = np.meshgrid(side, side, indexing="ij")
    color = draw.standard_normal(3)
    color /= np.linalg.norm(color) / np.sqrt(1.5)
    if symbol % 2 == 0:
        angle, phase = draw.uniform(0, np.pi), draw.uniform(0, 2 * np.pi)
        pattern = np.cos(2.2 * (x * np.cos(angle) + y * np.sin(angle)) + phase)
    else:
        center = draw.uniform(-0.4, 0.4, 2)
        pattern = 1.6 * np.exp(-((x - center[0]) ** 2 + (y - center[1]) ** 2)) - 0.6
    return pattern[..., None] * color


def read_dataset(config: DatasetConfig) -> RawDataset:
    """Generate the dataset of ``config``, see :func:`readers.read_dataset`."""
    settings = config.grammar
    assert settings is not None  # checked by DatasetConfig.check
    grammar, classes = make_grammar(settings), list[ClassInfo]()
    subsets: dict[str, list[Sample]] = {"train": [], "val": []}
    counts = {"train": settings.train_per_class, "val": settings.val_per_class}
    for family, group in enumerate(FAMILIES):
        for own in range(settings.classes_per_family):
            label = len(classes)
            classes.append(ClassInfo(f"{group}-{own:02d}", None, group))
            for subset, count in counts.items():
                for i in range(count):
                    subsets[subset].append(
                        Sample(
                            label,
                            f"{classes[-1].name}/{subset}/{i}",
                            partial(grammar.image, family, own, subset, i),
                        )
                    )
    return RawDataset(classes, subsets["train"], subsets["val"])
