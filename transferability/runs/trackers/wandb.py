"""Weights & Biases: each network is a run with the network's id."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transferability.study.spec import RunSpec
from transferability.study.trackers import WandbConfig

if TYPE_CHECKING:
    from wandb import Run


class Wandb:
    def __init__(self, settings: WandbConfig):
        import wandb

        self.wandb, self.settings = wandb, settings
        self.mode: Any = settings.mode or os.environ.get("WANDB_MODE", "online")
        if self.mode == "online":
            wandb.login(verify=True)
        self.runs: dict[str, Run] = {}

    def begin(self, spec: RunSpec, parameters: dict[str, Any], step: int) -> int:
        before = list(Path(self.settings.folder, "wandb").glob(f"offline-run-*-{spec.id}"))
        run = self.runs[spec.run_id] = self.wandb.init(
            project=self.settings.project,
            entity=self.settings.entity,
            mode=self.mode,
            dir=self.settings.folder,
            id=spec.id,
            name=spec.run_id,
            group=f"{spec.dataset.name} {spec.split} {spec.cell.target}",
            config=parameters,
            resume="allow",
            reinit="create_new",  # several runs in one process
            settings=self.wandb.Settings(silent=True, console="off", x_disable_stats=True),
        )
        if self.mode == "online":
            return run.starting_step - 1
        return step if before else 0  # the service has no offline runs that are not synced yet

    def log(self, spec: RunSpec, evaluations: list[dict[str, Any]]) -> None:
        for evaluation in evaluations:
            values = {name: value for name, value in evaluation.items() if name != "step"}
            self.runs[spec.run_id].log(values, step=evaluation["step"])

    def end(self, spec: RunSpec, state: str) -> None:
        self.runs.pop(spec.run_id).finish(exit_code=0 if state == "finished" else 1)
