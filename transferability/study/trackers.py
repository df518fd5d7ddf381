"""Settings of trackers, which show the curves of networks that train.

No number depends on them: they are in no identity.
"""

from dataclasses import dataclass, fields
from typing import Annotated, Any

from transferability.bounds import check_bounds, one_of

FOLDERS = ("folder",)  # settings that are paths


@dataclass
class CsvConfig:
    folder: str  # one file per network


@dataclass
class TensorboardConfig:
    folder: str  # what tensorboard --logdir is given


@dataclass
class MlflowConfig:
    experiment: str
    uri: str | None = None  # a server, or file:PATH; null: MLflow's own choice


@dataclass
class WandbConfig:
    project: str
    folder: str  # of W&B's own files
    entity: str | None = None  # a user or a team; null: W&B's own choice
    # online | offline | disabled; null: W&B's own choice
    mode: Annotated[str | None, one_of("online", "offline", "disabled")] = None


@dataclass
class TrackersConfig:
    """Those that are asked for; the others are null."""

    csv: CsvConfig | None = None
    tensorboard: TensorboardConfig | None = None
    mlflow: MlflowConfig | None = None
    wandb: WandbConfig | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """The settings of those that are asked for, by name."""
        every = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: settings for name, settings in every.items() if settings}

    def check(self) -> None:
        for name, settings in self.asked.items():
            check_bounds(settings, f"tracker.{name}.")
