"""How transferable are features?

Cells, splits, lockstep training and the run store of the study; and the door for notebooks.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.notebook import Study, advise
    from transferability.runs.load import load_run

__all__ = ["Study", "advise", "load_run"]


def __getattr__(name: str) -> Any:
    """What notebooks ask for, imported when they do: ``import transferability`` waits for nothing.

    ``Study`` and ``advise`` are the commands, which lie above this package: only its own front
    names them, and nothing in it does.
    """
    if name == "load_run":
        from transferability.runs.load import load_run

        return load_run
    if name in __all__:
        from analysis import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
