"""How transferable are features?

Cells, splits, lockstep training and the run store of the study.
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """``from transferability import load_run``, without torch for those who want less."""
    if name == "load_run":
        from transferability.runs.load import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
