"""Cells: the networks of the study, written as the paper writes them.

=============  ==========  ==========  ======  =================================================
cell           source      copied      frozen  in the paper
=============  ==========  ==========  ======  =================================================
``baseB``      -           0           0       base network on task B
``B3B``        baseB       3           3       selffer BnB: control for co-adaptation
``B3B+``       baseB       3           0       selffer BnB+, fine-tuned
``A3B``        baseA       3           3       transfer AnB
``A3B+``       baseA       3           0       transfer AnB+, fine-tuned
``R3B``        untrained   0           3       random, untrained filters, frozen
``A3B~1``      baseA       4           3       "preserved" layers: copy n+1, freeze n
``A3.B``       baseA       3           3       not there: the network ends above layer 3, with
                                               pooling and a classifier (a linear probe)
``A3.B+``      baseA       3           0       not there: the same, fine-tuned
``A3B++``      A3B         all         0       not there: the network ``A3B``, trained, then all of
                                               it fine-tuned (two phases)
``A3.B++``     A3.B        all         0       not there: the same for ``A3.B``
=============  ==========  ==========  ======  =================================================

and the same with A and B exchanged, or with the task ``all``.
``B0B`` and ``A0B`` are ``baseB`` itself.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from transferability.errors import UserError

TASKS = ("A", "B", "all")
UNTRAINED = "R"
_BASE = re.compile(r"base(A|B|all)")
_CELL = re.compile(r"(A|B|all|R)([0-9]{1,3})(\.?)(A|B|all)(?:(\+\+?)|~([0-9]{1,3}))?")
_TREATMENT = re.compile(r"([ABR])n(\.?)B(\+\+?|~(all|[0-9]{1,3}))?")


@dataclass(frozen=True)
class Cell:
    """One network, defined by its target, its source, two numbers of layers and two flags."""

    target: str  # the task that the network is trained on: A, B or all
    # the task of the base network that it starts from; "R" for untrained; None for a base
    source: str | None = None
    copied: int = 0  # number of bottom layers that are copied from the source
    frozen: int = 0  # number of bottom layers that are frozen
    short: bool = False  # truncated: only pooling and a classifier above layer n
    # the second of two phases: all layers are copied from ``first_phase``, and none is frozen
    again: bool = False
    # the treatment that the study requested, if the fields above do not determine it
    asked: str | None = field(default=None, compare=False)

    @property
    def n(self) -> int:
        """The n in the cell's name; 0 for a base."""
        if self.source is None:
            return 0
        return self.frozen or self.copied

    @property
    def is_base(self) -> bool:
        return self.source is None

    @property
    def first_phase(self) -> "Cell | None":
        """The cell whose trained network this one starts from, head included; None unless the cell
        is a second phase.
        """
        return replace(self, frozen=self.copied, again=False) if self.again else None

    @property
    def treatment(self) -> str:
        """The kind of cell with n left open: base, BnB, BnB+, AnB, AnB+, RnB, AnB~1,
        AnB~all, An.B, AnB++ ...
        """
        if self.source is None:
            return "base"
        source = {UNTRAINED: "R", self.target: "B"}.get(self.source, "A")
        return self.asked or f"{source}n{self._dot}B{self._suffix}"

    @property
    def _dot(self) -> str:
        return "." if self.short else ""

    @property
    def _suffix(self) -> str:
        if self.source in (None, UNTRAINED) or self.copied == self.frozen:
            return ""
        if self.again:
            return "++"
        return f"~{self.copied - self.frozen}" if self.frozen else "+"

    def __str__(self) -> str:
        if self.source is None:
            return f"base{self.target}"
        return f"{self.source}{self.n}{self._dot}{self.target}{self._suffix}"


def parse(text: str, n_layers: int | None = None) -> Cell:
    """Parse the name of a cell, for networks of ``n_layers`` layers (None: any number).

    Raises:
        UserError: ``text`` is not a cell, or n is outside 1..n_layers-1 (0 is the base itself).
    """
    if match := _BASE.fullmatch(text):
        return Cell(target=match[1])
    match = _CELL.fullmatch(text)
    if match is None:
        raise UserError(f"{text!r} is not a cell: write baseA, A3B, A3B+, B5B, R2B, A3B~1 or A3.B")
    source, number, dot, target, plus, more = match.groups()
    n, extra, short = int(number), int(more or 0), bool(dot)
    if short and extra:
        raise UserError(f"{text!r}: a network that ends above layer {n} has no {extra} more layers")
    if n == 0 and source != UNTRAINED and not extra and not short:
        return Cell(target=target)
    if n < 1 or (n_layers and n >= n_layers):
        last = n_layers - 1 if n_layers else ""
        raise UserError(f"{text!r}: n={n} is outside 1..{last}, the layers below the classifier")
    if n_layers and n + extra >= n_layers:
        raise UserError(
            f"{text!r}: {n}+{extra} layers cannot be copied, the classifier is layer {n_layers}"
        )
    if source == UNTRAINED:
        if plus or extra:
            raise UserError(
                f"{text!r}: random layers are frozen, as those that are trained make a base "
                f"network: write R{n}{target}, or {target} for the base"
            )
        return Cell(target, UNTRAINED, copied=0, frozen=n, short=short)
    return Cell(target, source, n + extra, 0 if plus else n, short, again=plus == "++")


def expand(treatment: str, target: str, layers: list[int] | None, n_layers: int) -> list[Cell]:
    """The cells of a treatment (``base``, ``BnB``, ``AnB+``, ``RnB``, ``AnB~1``, ``AnB~all``,
    ``An.B``, ``AnB++`` ...) for one target task.

    In a treatment, B is the target task and A the other one, as in the paper. ``layers`` are the
    values of n (None: all values for ``n_layers`` layers). ``~all`` copies every layer below the
    classifier and freezes the lowest n, including n = 0: the first and last cells of this series
    are those of AnB+ and AnB.
    """
    if treatment == "base":
        return [Cell(target)]
    match = _TREATMENT.fullmatch(treatment)
    if match is None:
        raise UserError(
            f"{treatment!r} is not a treatment: write base, BnB, BnB+, AnB, AnB+, RnB, AnB~1, "
            "AnB~all, An.B, An.B+, AnB++ or An.B++"
        )
    letter, dot, suffix, more = match.groups()
    other = {"A": "B", "B": "A", "all": "all"}[target]
    source = {"A": other, "B": target, "R": UNTRAINED}[letter]
    if more == "all":
        inner = range(1, n_layers) if layers is None else layers
        return _all_copied(treatment, source, target, inner, n_layers)
    inner = range(1, n_layers - int(more or 0)) if layers is None else layers
    return [parse(f"{source}{n}{dot}{target}{suffix or ''}", n_layers) for n in inner]


def _all_copied(
    treatment: str, source: str, target: str, layers: Sequence[int], n_layers: int
) -> list[Cell]:
    """The cells of AnB~all or BnB~all: the number of frozen layers rises from 0 to all copied
    layers.
    """
    top = n_layers - 1
    cells = [parse(f"{source}{top}{target}+", n_layers)]
    for n in layers:
        if n < top:
            cell = parse(f"{source}{n}{target}~{top - n}", n_layers)
            cells.append(replace(cell, asked=treatment))
    return cells + ([parse(f"{source}{top}{target}", n_layers)] if top in layers else [])
