"""Console scripts of an installation: ``transferability-run`` is ``python -m experiments.run``."""

import runpy
from collections.abc import Callable
from functools import partial

MODULES = {
    "advise": "experiments.advise",
    "run": "experiments.run",
    "pack": "experiments.pack",
    "layers": "experiments.layers",
    "status": "experiments.status",
    "sweep": "experiments.sweep",
    "export": "experiments.export",
    "collect": "analysis.collect",
    "figures": "analysis.figures",
    "report": "analysis.report",
}


def __getattr__(name: str) -> Callable[[], None]:
    """What pyproject.toml names as ``experiments.scripts:NAME``."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_run, MODULES[name])


def _run(module: str) -> None:
    """``python -m module``; what this returned would be the exit status."""
    runpy.run_module(module, run_name="__main__", alter_sys=True)
