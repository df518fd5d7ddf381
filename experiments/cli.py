"""Configuration and errors shared by all commands: a user error is printed as one line."""

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
JOB = "this is job"  # logged with the job's number; experiments.sweep finds the log by it
HERE = Path(__file__).resolve().parent
# in an installation, in a checkout
CONF = next(path for path in (HERE / "conf", HERE.parent / "conf") if path.is_dir())


def run_module(name: str, rewrite: Callable[[list[str]], list[str]] | None = None) -> int:
    """Run ``python -m NAME``: call the module's ``main`` with the configuration; return 0.

    The module calls this function above its imports. Once the configuration is valid, it is
    imported under its own name, so ``--help`` and misspelled settings do not wait for its imports.
    The time since ``config.began`` includes these imports and the start of Python; jobs of a
    multirun have none.

    Args:
        name: the module that runs as ``__main__``.
        rewrite: turns the words of the command line into settings.
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
            # a job of a multirun has waited for others, or runs on a machine with another clock
            if HydraConfig.get().mode == RunMode.RUN:
                config.began = began  # type: ignore[misc]  # a ClassVar, so it is not a setting
            import_module(name).main(config)

        command(main)()
    return 0


def command(main: Callable[[Config], None]) -> Callable[[], None]:
    """Make ``main`` a command with Hydra overrides. User errors end in one line and status 2."""

    @hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
    def composed(values: DictConfig) -> None:
        try:
            if _of_joblib(HydraConfig.get()):
                stopping.listen_as_worker()
            with output():  # also for jobs in their own processes
                config = load(values)
                # a ClassVar, so it is not a setting
                config.words = tuple(HydraConfig.get().overrides.task)  # type: ignore[misc]
                main(config)
        except (UserError, OmegaConfBaseException) as error:
            status = _fail(plainly(error))
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                raise  # the launcher continues with the other jobs
            sys.exit(status)
        except Exception:
            if HydraConfig.get().mode == RunMode.MULTIRUN:
                # to the job's log: the launcher does not report where the error was raised
                traceback.print_exc()
            raise
        except KeyboardInterrupt:
            if not stopping.stop_requested():
                raise
            # not raised: joblib would kill the other workers, and the launcher has its own
            # request to stop

    def run() -> None:
        with output():
            compose_and_run()

    def compose_and_run() -> None:
        sys.argv[1:] = as_typed(sys.argv[1:])
        # Hydra's own handler prints many lines; ours prints one
        os.environ.setdefault("HYDRA_FULL_ERROR", "1")
        try:
            composed()
        except (HydraException, OmegaConfBaseException) as error:  # from the composition itself
            sys.exit(_fail(_refusal(error)))
        except UserError as error:  # from a job, whose message is also in its log
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
    """Compose the configuration from the words of a command line.

    Raises:
        UserError: a setting is unknown, or its value is invalid.
    """
    typed = as_typed(list(words))
    try:
        with initialize_config_dir(str(CONF), version_base="1.3"):
            config = load(compose("config", typed))
    except (HydraException, OmegaConfBaseException) as error:
        raise UserError(_refusal(error)) from error
    config.words = tuple(typed)  # type: ignore[misc]  # a ClassVar, so it is not a setting
    return config


def _refusal(error: HydraException | OmegaConfBaseException) -> str:
    """The message for an error in the words of a command line."""
    if isinstance(error, OverrideParseException):
        return how_to_quote(error)
    slurm = "hydra/launcher/submitit_" in str(error)
    extra = "this launcher needs pip install '.[slurm]': " if slurm else ""
    return f"{extra}{plainly(error)}"


def help_of(module: ModuleType) -> str:
    """The text of ``--help``: the module's docstring, and where all settings are documented."""
    name = module.__spec__.name if module.__spec__ else module.__name__
    return f"usage: python -m {name} [SETTING=VALUE ...]\n\n{str(module.__doc__).strip()}\n\n{MORE}"


class Listen(Callback):
    """Forward requests to stop to the workers of a joblib multirun.

    Jobs of other launchers receive the signals directly.
    """

    def on_multirun_start(self, config: DictConfig, **_: object) -> None:
        if _of_joblib(config.hydra):
            stopping.listen_as_launcher()


def _of_joblib(configuration: HydraConf | DictConfig) -> bool:
    """Whether the command is a multirun with the joblib launcher."""
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
