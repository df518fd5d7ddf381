"""MLflow: the networks are runs of one experiment, identified by a tag with the network's id."""

import os
import time
from typing import Any

from transferability.study.spec import RunSpec
from transferability.study.trackers import MlflowConfig

LAST = "val_top1"  # the metric whose history gives the last evaluation
MOST = 1000  # the maximum of metrics per MLflow request
STATES = {"finished": "FINISHED", "failed": "FAILED", "stopped": "KILLED"}
# Detect a server that is down within seconds: MLflow's defaults are seven tries over minutes.
PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}


class Mlflow:
    def __init__(self, settings: MlflowConfig):
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)
        from mlflow import MlflowClient

        self.client = MlflowClient(settings.uri)
        self.experiment = self._experiment(settings.experiment)
        self.runs: dict[str, str] = {}  # MLflow's ids

    def _experiment(self, name: str) -> str:
        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(name)
            except Exception:  # another process has created it in the meantime
                found = self.client.get_experiment_by_name(name)
                if found is None:
                    raise
        return found.experiment_id

    def begin(self, spec: RunSpec, parameters: dict[str, Any], step: int) -> int:
        from mlflow.entities import Param

        of_it, known = f"tags.identity = '{spec.id}'", 0
        if found := self.client.search_runs([self.experiment], of_it, max_results=1):
            run = found[0].info.run_id
            self.client.update_run(run, "RUNNING")
            known = max((m.step for m in self.client.get_metric_history(run, LAST)), default=0)
        else:
            tags = {"identity": spec.id}
            made = self.client.create_run(self.experiment, tags=tags, run_name=spec.run_id)
            run = made.info.run_id
        self.client.log_batch(run, params=[Param(k, str(v)) for k, v in parameters.items()])
        self.runs[spec.run_id] = run
        return known

    def log(self, spec: RunSpec, evaluations: list[dict[str, Any]]) -> None:
        from mlflow.entities import Metric

        now = int(1000 * time.time())
        metrics = [
            Metric(name, value, now, evaluation["step"])
            for evaluation in evaluations
            for name, value in evaluation.items()
            if name != "step"
        ]
        for start in range(0, len(metrics), MOST):
            self.client.log_batch(self.runs[spec.run_id], metrics[start : start + MOST])

    def end(self, spec: RunSpec, state: str) -> None:
        self.client.set_terminated(self.runs.pop(spec.run_id), STATES[state])
