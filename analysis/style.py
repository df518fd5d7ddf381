"""How every figure looks: the paper's marks, colours that the colour-blind can tell apart, and files that are equal
for equal tables."""

from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure

matplotlib.use("Agg")


@dataclass(frozen=True)
class Mark:
    """How one kind of network is drawn and what the legend says of it."""

    label: str
    colour: str
    marker: str
    filled: bool = True
    offset: float = 0.0  # shift along the layer axis, so that marks of one layer stand side by side


TREATMENTS = {
    "base": Mark("base B: trained on B from scratch", "#222222", "o", filled=False),
    "BnB": Mark("BnB: B's own layers, frozen", "#1f4e9c", "o", offset=-0.18),
    "BnB+": Mark("BnB+: B's own layers, fine-tuned", "#7fb2e5", "P", offset=-0.06),
    "AnB": Mark("AnB: A's layers, frozen", "#b2182b", "D", offset=0.06),
    "AnB+": Mark("AnB+: A's layers, fine-tuned", "#ef8a7a", "P", offset=0.18),
    "RnB": Mark("RnB: random, untrained layers, frozen", "#8a9a00", "^"),
}
DISSIMILAR = Mark("AnB between natural and man-made", "#e08214", "h")

RC = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "transferability",
    "svg.fonttype": "path",
    "pdf.fonttype": 42,
    "savefig.dpi": 150,
}


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write ``stem``.pdf, .svg and .png with nothing in them that changes from one day to the next."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": {"Software": None}}
    paths = [stem.with_suffix(f".{kind}") for kind in undated]
    with matplotlib.rc_context(RC):  # the salt of SVG identifiers and the fonts count when a file is written
        for path, metadata in zip(paths, undated.values(), strict=True):
            figure.savefig(path, metadata=metadata)
    return paths
