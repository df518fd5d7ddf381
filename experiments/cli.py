"""What every command shares: the composed configuration, and errors as one clear line."""

import os
import re
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType

import hydra
from hydra import compose, initialize_config_dir
from hydra.conf import HydraConf
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException, OverrideParseException
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from experiments.overrides import as_typed, how_to_quote, plainly
from transferability import signals as stopping
from transferability.console import in_utf8, output
from transferability.errors import UserError
from transferability.study.config import Config, load

MORE = """Settings can be given in any order; quote lists: 'study.seeds=[0,1]'. conf/ documents all
settings; --cfg job prints the resolved configuration. Glossary: docs/glossary.md"""
STOPPED = 130  # exit status after Ctrl-C
JOB = "this is job"  # the log of a job says which, and experiments.sweep finds it by that
HERE = Path(__file__).resolve().parent
# installed; a checkout
CONF = next(path for path in (HERE / "conf", HERE.parent / "conf") if path.is_dir())


def run_module(name: str, rewrite: Callable[[list[str]], list[str]] | None = None) -> int:
    """Run the module ``name``, which stands in ``__main__``, as a command: its ``main`` with the
    configuration; ``rewrite`` makes the settings of the words that it is given. Returns the exit
    status, 0.

    The module calls this above its imports. They are made when the configuration is composed and
    found right, by importing it under its own name: ``--help`` and a misspelt setting are answered
    without waiting for them. The time they take counts, as does that of Python until now.
    """
    began = time.monotonic() - time.process_time()
    in_utf8()
    if {"--help", "-h"} & set(sys.argv[1:]):
        with output():
            print(help_of(sys.modules["__main__"]))
    else:
        if rewrite:
            try:
                sys.argv[1:] = rewrite(sys.argv[1:])
            except UserError as error:
                sys.exit(_fail(str(error)))

        def main(config: Config) -> None:
            config.began = began  # type: ignore[misc]  # a ClassVar, so that it is no setting
            import_module(name).main(config)

        command(main)()
    return 0


def command(main: Callable[[Config], None]) -> Callable[[], None]:
    """A command line of Hydra overrides around ``main``;
    what a user can cause ends in one line and status 2.
    """

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def composed(values: DictConfig) -> None:
        try:
            if _of_joblib(HydraConfig.get()):
                stopping.listen_as_worker()
            with output():  # also that of a job in a process of its own
                config = load(values)
                # a ClassVar, so that it is no setting
                config.words = tuple(HydraConfig.get().overrides.task)  # type: ignore[misc]
                main(config)
        except (UserError, OmegaConfBaseException) as error:
            status = _fail(plainly(error))
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # the launcher goes on with the other jobs
            sys.exit(status)
        except Exception:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                # into the job's log: the launcher passes an error on without its origin
                traceback.print_exc()
            raise
        except KeyboardInterrupt:
            if not stopping.stop_requested():
                raise
            # joblib would kill the other workers; the launcher knows by itself that it
            # was asked to stop

    def run() -> None:
        with output():
            compose_and_run()

    def compose_and_run() -> None:
        sys.argv[1:] = as_typed(sys.argv[1:])
        # Hydra's own handler prints many lines; ours prints one
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        try:
            composed()
        except (HydraException, OmegaConfBaseException) as error:  # of the composition itself
            sys.exit(_fail(_refusal(error)))
        except UserError as error:  # of a job, whose own line is in its log
            if not stopping.stop_requested():
                sys.exit(_fail(str(error)))
        except RuntimeError as error:
            if not type(error).__module__.startswith("submitit."):
                raise
            sys.exit(_fail(str(error).partition("\n---")[0]))  # below the line is the job's log
        except KeyboardInterrupt:
            sys.exit(_stopped())
        if stopping.stop_requested():
            sys.exit(_stopped())

    return run


def configuration(words: Sequence[str]) -> Config:
    """The configuration that these words of a command line make.

    Raises:
        UserError: there is no such setting, or its value is not possible.
    """
    typed = as_typed(list(words))
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = load(compose("config", typed))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_refusal(error)) from error
    config.words = tuple(typed)  # type: ignore[misc]  # a ClassVar, so that it is no setting
    return config


def _refusal(error: HydraException | OmegaConfBaseException) -> str:
    """What is wrong with the words of a command."""
    if isinstance(error, OverrideParseException):
        return how_to_quote(error)
    slurm = "hydra/launcher/submitit_" in str(error)
    extra = "this launcher needs pip install '.[slurm]': " if slurm else ""
    return f"{extra}{plainly(error)}"


def help_of(module: ModuleType) -> str:
    """What ``--help`` prints: what the module says of itself, and where the rest is."""
    name = module.__spec__.name if module.__spec__ else module.__name__
    return f"usage: python -m {name} [SETTING=VALUE ...]\n\n{str(module.__doc__).strip()}\n\n{MORE}"


class Listen(Callback):
    """In a multirun of joblib a request to stop goes to its workers.
    (Other launchers' jobs hear it by themselves.)
    """

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        if _of_joblib(config.hydra):
            stopping.listen_as_launcher()


def _of_joblib(configuration: HydraConf | DictConfig) -> bool:
    """Whether this is a multirun of joblib."""
    return configuration.mode == RunMode.MULTIRUN and configuration.launcher._target_.endswith(
        ".JoblibLauncher"
    )


def _stopped() -> int:
    with output():
        print(
            "\ninterrupted; run the same command again to resume from the last checkpoint",
            file=sys.stderr,
        )
    return STOPPED


def _fail(message: str) -> int:
    line = re.sub(r"\s+", " ", message).strip()
    with output():
        print(f"error: {line}", file=sys.stderr)
    return 2
