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
    """The console script that pyproject.toml refers to as ``experiments.scripts:NAME``."""
    if name not in MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return partial(_run, MODULES[name])


def _run(module: str) -> None:
    """Run ``python -m module``. A return value would become the exit status, so there is none."""
    runpy.run_module(module, run_name="__main__", alter_sys=True)
