"""How the networks of a study are executed: the device, and the kernels that torch may choose."""

import logging
import os
from dataclasses import dataclass

import joblib
import torch

from transferability.errors import UserError, require
from transferability.study.config import Config

log = logging.getLogger(__name__)
SMALL = 64  # input side in pixels up to which a single network leaves most of a GPU idle


@dataclass(frozen=True)
class Execution:
    """How to execute networks.

    On a CPU in float32 only ``stacked`` would change results, and it requires a GPU.
    """

    device: torch.device
    threads: int = 1  # networks trained at a time on a CPU
    max_networks: int | None = None
    # minimum time between checkpoints (see loop.SAVING); 0: after every step
    checkpoint_seconds: float = 120.0
    stacked: bool = False  # train networks of equal shape as one stack, see gpu_step.py
    graphs: bool = False  # replay the passes of a step as one CUDA graph
    deterministic: bool = False  # on a GPU: bit-identical from run to run


def execution_of(config: Config) -> Execution:
    """The device, threads and other execution settings of a configuration.

    ``cuda`` without a number is any GPU: training claims a free one. Also sets which kernels torch
    may choose in this process.

    Raises:
        UserError: the device is not available, or cannot execute the configuration.
    """
    name = config.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device == torch.device("cuda"):
            torch.cuda.init()  # a tensor would occupy memory on GPU 0 in every process
        else:
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"device={config.device} is not available: {str(error).splitlines()[0]}"
        ) from error
    if device.type == "mps":
        require(
            config.recipe.precision == "float32",
            "recipe.precision",
            config.recipe.precision,
            "float32 on device=mps",
        )
        log.warning("device=mps is untested: compare its accuracies with those of device=cpu")
    gpu = device.type == "cuda"
    stacked, graphs = ways_of(config, device)
    _choose_kernels(gpu and config.deterministic)
    return Execution(
        device,
        1 if device.type != "cpu" else config.threads or joblib.cpu_count(),
        config.max_networks,
        config.checkpoint_seconds,
        stacked=stacked,
        graphs=graphs,
        deterministic=gpu and config.deterministic,
    )


def ways_of(config: Config, device: torch.device) -> tuple[bool, bool]:
    """Whether networks are trained as one stack, and whether steps are replayed as CUDA graphs.

    By default, graphs are used on a GPU, and stacks there for small, stackable networks.

    Raises:
        UserError: ``graphs`` or ``stacked`` is set but not possible.
    """
    gpu, network = device.type == "cuda", config.network
    for key in ("graphs", "stacked"):
        # on a CPU stacking would change results in their last digits
        if getattr(config, key) and not gpu:
            raise UserError(f"{key}=true is not possible on device={device}: it needs a GPU")
    if config.stacked and not network.stackable:
        raise UserError(f"stacked=true is not possible with networks of the kind {network.kind}")
    stacked = gpu and network.stackable and network.input_size <= SMALL
    return (
        stacked if config.stacked is None else config.stacked,
        gpu if config.graphs is None else config.graphs,
    )


def _choose_kernels(deterministic: bool) -> None:
    """Set which kernels torch may choose on a GPU in this process."""
    torch.backends.cudnn.allow_tf32 = False  # float32 means float32; bf16 is the fast precision
    # Long sums of bf16 products are split, and each part would be rounded to bf16 (fc6 sums 9,216).
    torch.backends.cuda.matmul.allow_bf16_reduced_precision_reduction = False
    # Use the fastest kernel for each shape; a study has few shapes. The choice depends on timing,
    # so results are not bit-identical between runs.
    torch.backends.cudnn.benchmark = not deterministic
    if deterministic != torch.are_deterministic_algorithms_enabled():  # imports torch's compiler
        torch.use_deterministic_algorithms(deterministic)
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # required by cuBLAS
        # no code here reads uninitialized memory; mypy does not find the module's attribute
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
