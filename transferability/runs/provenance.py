"""The provenance of a run: machine, versions and training time."""

import datetime
import platform
import re
import subprocess
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch

from transferability.study.spec import RunSpec
from transferability.training.execution import Execution


def provenance(
    spec: RunSpec, seconds: float, images: int, cohort_size: int, execution: Execution
) -> dict:
    """Facts about how a run was made that are not part of its identity.

    Args:
        seconds: the run's share of the time spent.
        images: the number of images trained on, with repetitions.
        cohort_size: the number of networks that trained side by side.
    """
    device = execution.device
    return {
        "seconds": round(seconds, 3),
        "images": images,
        "cohort_networks": cohort_size,
        "device": torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else _processor(device.type),
        "threads": execution.threads,
        "stacked": execution.stacked,
        "graphs": execution.graphs,
        "deterministic": execution.deterministic,
        "torch": torch.__version__,
        "network_made_by": spec.network.library_version,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "commit": _commit(),
        "finished": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _processor(device: str) -> str:
    """The kind of processor, because another kind may order sums differently:
    "cpu, x86_64, AMD EPYC, AVX512", "mps, arm64, arm".
    """
    info = Path("/proc/cpuinfo")  # on Linux; elsewhere Python has the name
    named = re.search(
        r"^model name\s*: (.+)$",
        info.read_text(encoding="utf-8") if info.exists() else "",
        re.MULTILINE,
    )
    name = named[1] if named else platform.processor()
    vectors = torch.backends.cpu.get_cpu_capability() if device == "cpu" else None
    return ", ".join(filter(None, [device, platform.machine(), name, vectors]))


@lru_cache(maxsize=1)
def _commit() -> str | None:
    """The commit of the code, with a + if the tree has changes; None outside a git checkout."""
    where = Path(__file__).parent
    try:
        out = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
            cwd=where,
            capture_output=True,
            encoding="utf-8",
        )
    except FileNotFoundError:
        return None
    return out.stdout.strip() or None
