"""The page of ``experiments.advise``."""

import datetime
from pathlib import Path

from analysis.advised import Answer, name
from analysis.advised_figures import curve, race
from analysis.html import figure, template, variable
from analysis.measurements.depths import agreement
from analysis.plotting.style import DARK, layer_colors
from analysis.use import in_python, in_shell, pasted
from experiments.race import RULE
from transferability.console import pluralize
from transferability.files import write_atomic
from transferability.study.config import Config

SHOWN = [
    *("cell", "words", "optimizer", "steps", "rate", "seeds", "validation", "test", "low", "high"),
    *("behind", "behind_low", "behind_high", "cost", "seconds"),
]


def write_page(found: Answer, path: Path, config: Config, title: str) -> None:
    """Write the page of an answer."""
    path.parent.mkdir(parents=True, exist_ok=True)
    colors = DARK | layer_colors(found.layers)
    bars = [("best", found.best, *found.interval)] + [
        (label, row, row.low, row.high)
        for label, row in (("best linear probe", found.probe), ("from scratch", found.scratch))
        if row is not None
    ]
    shown = found.strategies[SHOWN].copy()
    for column in ("steps", "rate"):  # meaningless for linear probes, which are fitted by L-BFGS
        shown[column] = shown[column].astype(object).where(~found.strategies.probe, None)
    text = template("advised.html.j2", name=name, python=in_python, shell=in_shell).render(
        title=title,
        written=f"{datetime.datetime.now().astimezone():%Y-%m-%d %H:%M %Z}",
        networks=pluralize(found.strategies.seeds.sum(), "network"),
        answer=found,
        bars=bars,
        rule=RULE,
        colors={variable(light): (light, dark) for light, dark in colors.items()},
        figures=[figure(drawing, colors) for drawing in (curve(found), race(found)) if drawing],
        agreement=agreement(found.depths),
        table=shown,
        folder=f"{config.store}/{found.best.run}",
        paste=pasted(config, found.spec),
    )
    write_atomic(path, text)
