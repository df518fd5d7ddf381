"""Earlier results in a folder of tables, for networks whose weights are no longer in the store."""

import numpy as np
import pandas as pd

from analysis.tables import StudyResults

# The columns of a finished network that do not follow from its spec.
MEASURED = [
    "state",
    "top1",
    "top1_mean_best10",
    "evaluations",
    "val_loss",
    "train_loss",
    "images",
    "seconds",
    "test_top1",
    "top1_balanced",
    "test_balanced",
]


def keep_earlier(tables: StudyResults, earlier: StudyResults) -> StudyResults:
    """Add the results in ``earlier`` for runs that are missing in ``tables``; a run id identifies
    its result.
    """
    results = tables.results
    known = earlier.results[earlier.results.state == "done"].set_index("run")
    known = known.reindex(columns=MEASURED)  # older tables lack some
    kept = (results.state == "missing") & results.run.isin(known.index)
    if not kept.any():
        return tables
    results = results.astype({name: object for name in MEASURED})
    results.loc[kept, MEASURED] = known.loc[results.run[kept], MEASURED].to_numpy()
    results = results.infer_objects()

    def joined(name: str, runs: list[str], rows: list[str], of: pd.Series) -> pd.DataFrame:
        """The new rows, and earlier rows of the runs ``of`` without a new counterpart."""
        old, new = getattr(earlier, name), getattr(tables, name)
        old = old[old[runs].isin(set(of)).all(axis=1)] if len(old) else old
        there = [table for table in (old, new) if len(table)]
        if not there:
            return new
        return pd.concat(there).drop_duplicates([*runs, *rows], keep="last", ignore_index=True)

    abouts = [tables.metadata, earlier.metadata]
    union = {
        name: sorted({value for about in abouts for value in about[name]})
        for name in ("device", "versions", "commit")
    }
    return StudyResults(
        tables.metadata
        | union
        | {"finished": max(filter(None, (about["finished"] for about in abouts)), default=None)},
        results,
        joined("curves", ["run"], ["step"], results.run[results.in_study]),
        first_filters(results, tables.filters, earlier.filters),
        joined("similarity", ["run_a", "run_b"], ["pair", "layer"], results.run),
        joined("activity", ["run"], ["layer"], results.run),
        tables.predictors if len(tables.predictors) else earlier.predictors,
        _kept_predictions(results, earlier.predictions) | tables.predictions,
    )


def first_filters(results: pd.DataFrame, new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    """The one of the two tables whose split and seed :func:`first_layer_filters` would prefer if
    all weights were in the store.
    """
    bases = results[(results.treatment == "base") & (results.state == "done")]
    counts = bases.groupby(["split", "seed"], sort=False).size()
    for chosen in counts.sort_values(ascending=False, kind="stable").index:
        for table in (new, old):
            if len(table) and (table.split.iloc[0], table.seed.iloc[0]) == chosen:
                return table
    return new


def _kept_predictions(
    results: pd.DataFrame, earlier: dict[str, np.ndarray]
) -> dict[str, np.ndarray]:
    """The earlier predictions and labels of networks and tasks that are still in the study."""
    whose = set(results.run) | set(results.task)
    return {key: found for key, found in earlier.items() if key.rpartition(" ")[0] in whose}
