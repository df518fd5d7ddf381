"""How transferable are features?

Cells, splits, lockstep training and the run store, and the entry points for notebooks.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from analysis.notebook import Study, advise
    from transferability.runs.load import load_run

__all__ = ["Study", "advise", "load_run"]


def __getattr__(name: str) -> Any:
    """Import the names in ``__all__`` on first use, so that ``import transferability`` is fast.

    ``Study`` and ``advise`` are in ``analysis``, which is above this package: no other module in
    the package imports them.
    """
    if name == "load_run":
        from transferability.runs.load import load_run

        return load_run
    if name in __all__:
        from analysis import notebook

        return getattr(notebook, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
