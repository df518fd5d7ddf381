"""Selection of the networks that figures show, and their means."""

import pandas as pd

from analysis.statistics.linear_model import BLOCK, base_accuracy

MAIN = ("BnB", "BnB+", "AnB", "AnB+")  # treatments that copy layers


def finished(rows: pd.DataFrame, treatment: str) -> bool:
    """Whether any network of the treatment is finished."""
    return bool(rows[rows.treatment == treatment].accuracy.notna().any())


def with_treated(rows: pd.DataFrame) -> pd.DataFrame:
    """Drop the bases of tasks on which only bases were trained."""
    return rows.groupby(BLOCK, dropna=False).filter(lambda own: (own.treatment != "base").any())


def mean_line(rows: pd.DataFrame, treatment: str) -> pd.Series:
    """Mean accuracy by n, starting at the base."""
    done = rows[rows.accuracy.notna() & rows.treatment.isin(["base", treatment])]
    return done.groupby("n").accuracy.mean()


def relative_to_base(rows: pd.DataFrame) -> pd.DataFrame:
    """Replace the accuracy by its difference from the accuracy of the base of the same block."""
    return rows.assign(accuracy=rows.accuracy - base_accuracy(rows))


def with_share(networks: pd.DataFrame) -> pd.DataFrame:
    """Add ``over_base`` (accuracy minus that of the base of the same block) and ``share`` (the
    ratio of the two).
    """
    own = base_accuracy(networks)
    return networks.assign(over_base=networks.accuracy - own, share=networks.accuracy / own)


def relative_table(rows: pd.DataFrame, treatment: str, label: str) -> pd.DataFrame:
    """A row per n: the mean accuracy of the treatment's networks, relative to base and absolute,
    and the standard deviation.
    """
    relative = relative_to_base(rows)
    done = relative[(relative.treatment == treatment) & relative.accuracy.notna()]
    plain = rows.loc[done.index].groupby("n").accuracy.mean()
    table = done.groupby("n").accuracy.agg(["mean", "std", "size"]).reset_index()
    table.columns = ["n", "mean minus base", "standard deviation", "networks"]
    table.insert(0, "networks of", label)
    table.insert(2, "mean accuracy", plain.reindex(table.n).to_numpy())
    return table
