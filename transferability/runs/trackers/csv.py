"""CSV: one table per network. Each row has the parameters, so tables can be concatenated."""

import csv
from pathlib import Path
from typing import Any

from transferability.study.spec import RunSpec
from transferability.study.trackers import CsvConfig


class Csv:
    def __init__(self, settings: CsvConfig):
        self.folder = Path(settings.folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.parameters: dict[str, dict[str, Any]] = {}

    def begin(self, spec: RunSpec, parameters: dict[str, Any], step: int) -> int:
        self.parameters[spec.run_id] = parameters
        self._path(spec).unlink(missing_ok=True)  # rewritten from the first evaluation on
        return 0

    def log(self, spec: RunSpec, evaluations: list[dict[str, Any]]) -> None:
        parameters, path = self.parameters[spec.run_id], self._path(spec)
        fresh = not path.exists()
        with open(path, "a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, [*parameters, *evaluations[0]])
            if fresh:
                writer.writeheader()
            writer.writerows(parameters | evaluation for evaluation in evaluations)

    def end(self, spec: RunSpec, state: str) -> None:
        self.parameters.pop(spec.run_id)

    def _path(self, spec: RunSpec) -> Path:
        return self.folder / f"{spec.run_id}.csv"
