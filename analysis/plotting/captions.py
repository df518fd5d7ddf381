"""The common parts of captions: the study, the number of networks, and missing networks."""

import numpy as np
import pandas as pd

from analysis.statistics.linear_model import base_accuracy
from analysis.tables import StudyResults

# what each kind of 95% interval covers, in the same words everywhere
MODEL_COVERS = "networks, seeds and validation images of these tasks"
SPLITS_COVER = "other splits of the same classes, with their networks and seeds"


def study(tables: StudyResults) -> str:
    """Dataset and network, for the title."""
    volumes = sorted(set(tables.networks.images_per_class.dropna()))
    reduced = f", {volumes[0]:.0f} images per class" if len(volumes) == 1 else ""
    return f"{tables.dataset}{reduced}, {tables.metadata['network']['name']} network"


def counts(rows: pd.DataFrame) -> str:
    """The numbers of networks, target tasks, seeds and missing networks, and the splits."""
    done, missing = int((rows.state == "done").sum()), int((rows.state == "missing").sum())
    tasks, seeds = rows.task.nunique(), rows.seed.nunique()
    text = f"{done} networks: {', '.join(sorted(rows.split.unique()))}; "
    text += (
        f"{tasks} target {'task' if tasks == 1 else 'tasks'}, {seeds} "
        f"{'seed' if seeds == 1 else 'seeds'}."
    )
    if rows.groupby("split_kind").split.nunique().max() == 1:  # no second split to compare with
        these = "this split" if rows.split.nunique() == 1 else "these splits"
        text += f" What it shows is of {these} alone."
    return text + (f" {missing} networks of the study are missing here." if missing else "")


def without_base(rows: pd.DataFrame) -> str:
    count = int((rows.accuracy.notna() & np.isnan(base_accuracy(rows))).sum())
    return (
        f" {count} networks have no finished base and are not drawn relative to it."
        if count
        else ""
    )


def without_interval(networks: pd.DataFrame) -> str:
    """Ends a sentence on intervals of validation images: which networks have none."""
    unknown = int(networks.binomial_images.isna().sum())
    which = "" if unknown == len(networks) else f" of {unknown} networks"
    return f"; none{which}, as predictions were not kept" if unknown else ""


def statistic(tables: StudyResults) -> str:
    return f"Accuracy: {tables.metadata['statistic_label']}."
