"""TensorBoard: a folder of event files per network, with its parameters in the HPARAMS tab."""

from pathlib import Path
from typing import Any

from transferability.study.spec import RunSpec
from transferability.study.trackers import TensorboardConfig


class Tensorboard:
    def __init__(self, settings: TensorboardConfig):
        from torch.utils.tensorboard.summary import hparams
        from torch.utils.tensorboard.writer import SummaryWriter

        self.folder, self.writer, self.hparams = Path(settings.folder), SummaryWriter, hparams
        self.folder.mkdir(parents=True, exist_ok=True)
        self.writers: dict[str, SummaryWriter] = {}

    def begin(self, spec: RunSpec, parameters: dict[str, Any], step: int) -> int:
        # Hide evaluations that an earlier try wrote, which may end before or after the checkpoint;
        # all are written again.
        writer = self.writer(str(self.folder / spec.run_id), purge_step=0)
        # add_hparams would create a separate run
        for summary in self.hparams(parameters, {"val_top1": 0}):
            writer._get_file_writer().add_summary(summary)
        self.writers[spec.run_id] = writer
        return 0

    def log(self, spec: RunSpec, evaluations: list[dict[str, Any]]) -> None:
        writer = self.writers[spec.run_id]
        for evaluation in evaluations:
            for name, value in evaluation.items():
                if name != "step":
                    writer.add_scalar(name, value, evaluation["step"])
        writer.flush()

    def end(self, spec: RunSpec, state: str) -> None:
        self.writers.pop(spec.run_id).close()
