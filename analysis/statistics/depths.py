"""Low, middle and high layers of a network of any depth, by quarters of its depth.

In the paper's 8 layers, 1 and 2 are low, 4 and 5 in the middle, 6 and 7 high. In a network of fewer
than 4 layers some of these groups are empty, and claims about them cannot be tested.
"""


class Depths:
    """Values of n, from 1 to layers - 1, in order.

    Attributes:
        all: every n.
        low: the lowest quarter (of 8 layers: 1, 2).
        above_low: every n above the lowest quarter (3 to 7).
        middle: the third quarter (4, 5).
        below_high: above the lowest and below the highest quarter (3, 4, 5).
        high: the highest quarter (6, 7).
        around: the n that the middle is compared with: the lowest quarter, and the n strictly
            above three quarters of the depth (1, 2, 7).
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
    """Layers as text: ``4, 5``, or ``4 and 5`` with ``" and "``; ``3 to 7`` for more than three in
    a row; ``-`` if empty.
    """
    runs: list[list[int]] = []
    for n in layers:
        if runs and n == runs[-1][-1] + 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    words: list[str] = []
    for run in runs:
        words += [f"{run[0]} to {run[-1]}"] if len(run) > 3 else map(str, run)
    if not words:
        return "-"
    return ", ".join(words[:-1]) + conjunction + words[-1] if len(words) > 1 else words[0]
