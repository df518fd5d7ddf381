"""Settings of trackers, which show training curves.

No result depends on trackers, so no run's identity includes them.
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
    folder: str  # for tensorboard --logdir


@dataclass
class MlflowConfig:
    experiment: str
    uri: str | None = None  # a server, or file:PATH; null: MLflow's default


@dataclass
class WandbConfig:
    project: str
    folder: str  # for W&B's files
    entity: str | None = None  # a user or a team; null: W&B's default
    # online | offline | disabled; null: W&B's default
    mode: Annotated[str | None, one_of("online", "offline", "disabled")] = None


@dataclass
class TrackersConfig:
    """The settings of each requested tracker; the others are null."""

    csv: CsvConfig | None = None
    tensorboard: TensorboardConfig | None = None
    mlflow: MlflowConfig | None = None
    wandb: WandbConfig | None = None

    @property
    def asked(self) -> dict[str, Any]:
        """The settings of the requested trackers, by name."""
        every = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: settings for name, settings in every.items() if settings}

    def check(self) -> None:
        for name, settings in self.asked.items():
            check_bounds(settings, f"tracker.{name}.")
