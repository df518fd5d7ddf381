"""What every command shares: the composed configuration, and errors as one clear line."""

import os
import re
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from transferability.config import Config, load
from transferability.datasets import PackedDataset
from transferability.errors import UserError
from transferability.pack import open_packed, pack

CONF = Path(__file__).resolve().parent.parent / "conf"


def command(main: Callable[[Config], None]) -> Callable[[], None]:
    """A command line of Hydra overrides around ``main``; what a user can cause ends in one line and status 2."""

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def composed(values: DictConfig) -> None:
        try:
            main(load(values))
        except (UserError, OmegaConfBaseException) as error:
            sys.exit(_fail(str(error)))

    def run() -> None:
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # Hydra's own handler prints many lines; ours prints one
        try:
            composed()
        except (HydraException, OmegaConfBaseException) as error:  # of the composition itself
            cause = error.__cause__ if isinstance(error.__cause__, OmegaConfBaseException) else None
            sys.exit(_fail(f"{error} {cause or ''}"))
        except KeyboardInterrupt:
            print("\nstopped; the same command goes on from the last checkpoint", file=sys.stderr)
            sys.exit(130)

    return run


def dataset_of(config: Config) -> PackedDataset:
    """The packed dataset; the embedded one is made on first use."""
    return pack(config.dataset) if config.dataset.kind == "procedural" else open_packed(config.dataset)


def _fail(message: str) -> int:
    line = re.sub(r"\s+", " ", message).strip()
    print(f"error: {line}", file=sys.stderr)
    return 2
