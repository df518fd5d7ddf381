"""Which layers of a network count as low, middle and high, whatever its depth: quarters of it.

The paper speaks of 8 layers: 1 and 2 are low, 4 and 5 in the middle, 6 and 7 high. In a network of
fewer than 4 layers some of these are empty, and what is claimed about them cannot be tested.
"""


class Depths:
    """Values of n, from 1 to layers - 1, in order.

    Attributes:
        all: every n.
        low: the lowest quarter (of 8 layers: 1, 2).
        above_low: every n above it (3 to 7).
        middle: the third quarter (4, 5).
        below_high: above the lowest and below the highest quarter (3, 4, 5).
        high: the highest quarter (6, 7).
        around: those that the middle is compared with: low ones and, above the highest quarter's
            first, high ones (1, 2, 7).
    """

    def __init__(self, layers: int):
        self.all = range(1, layers)
        self.low = [n for n in self.all if 4 * n <= layers]
        self.above_low = [n for n in self.all if 4 * n > layers]
        self.middle = [n for n in self.all if 2 * layers <= 4 * n < 3 * layers]
        self.below_high = [n for n in self.all if layers < 4 * n < 3 * layers]
        self.high = [n for n in self.all if 4 * n >= 3 * layers]
        self.around = self.low + [n for n in self.all if 4 * n > 3 * layers]


def listed(layers: list[int], conjunction: str = ", ") -> str:
    """``4, 5`` or with ``" and "`` ``4 and 5``; ``3 to 7`` where more than three follow each other;
    ``-`` if empty.
    """
    runs: list[list[int]] = []
    for n in layers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    words = []
    for run in runs:
        words += [f"{run[0]} to {run[-1]}"] if len(run) > 3 else map(str, run)
    if not words:
        return "-"
    return ", ".join(words[:-1]) + conjunction + words[-1] if len(words) > 1 else words[0]
