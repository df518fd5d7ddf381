"""A real Slurm of one node for the tests, from the system's packages;
all of its state lives in one folder.
"""

import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

HERE = Path(__file__).parent
PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "setpriv")


def missing() -> str | None:
    """Why no cluster can be started here; None if one can."""
    if os.geteuid() != 0:
        return "starting a Slurm needs root"
    absent = [p for p in PROGRAMS if shutil.which(p) is None]
    return f"not installed: {', '.join(absent)} (Debian: slurm-wlm, munge)" if absent else None


@contextmanager
def cluster() -> Iterator[dict[str, str]]:
    """Start munged, slurmctld and slurmd; yield the environment for their clients;
    stop them in every case.
    """
    with (
        TemporaryDirectory(prefix="slurm-", ignore_cleanup_errors=True) as name,
        ExitStack() as stack,
    ):
        folder = Path(name)
        for part in ("state", "spool", "log", "munge"):
            (folder / part).mkdir()
        for path in (folder, folder / "munge"):
            path.chmod(0o711)  # munged wants its socket within reach of everybody
        conf = folder / "slurm.conf"
        conf.write_text(_configuration(folder))
        munge = [f"--{kind}-file={folder}/munge/{kind}" for kind in ("key", "pid", "log", "seed")]
        subprocess.run(["mungekey", "-c", "-k", folder / "munge/key"], check=True)
        environment = {
            **os.environ,
            "SLURM_CONF": str(conf),
            "PATH": f"{HERE}:{os.environ['PATH']}",
        }
        daemon = _start(
            stack, folder, ["munged", "--foreground", f"--socket={folder}/munge/socket", *munge]
        )
        _wait(daemon, folder, lambda: (folder / "munge/socket").exists())
        _start(stack, folder, ["slurmctld", "-D", "-i", "-f", str(conf)])
        daemon = _start(stack, folder, ["slurmd", "-D", "-f", str(conf)])
        _wait(
            daemon,
            folder,
            lambda: ask(environment, "sinfo", "-h", "-o", "%T", "-p", "main") == "idle",
        )
        stack.callback(_end_jobs, environment)
        yield environment


def ask(environment: dict[str, str], *command: str) -> str:
    """What a Slurm client prints."""
    return subprocess.run(command, env=environment, capture_output=True, text=True).stdout.strip()


def _configuration(folder: Path) -> str:
    text = (HERE / "slurm.conf").read_text()
    ports = _free_ports(2)
    values = {"HOST": socket.gethostname().split(".")[0], "FOLDER": folder}
    for name, value in {**values, "CTLD_PORT": ports[0], "SLURMD_PORT": ports[1]}.items():
        text = text.replace(name, str(value))
    return text


def _start(stack: ExitStack, folder: Path, command: list[str]) -> subprocess.Popen:
    """A daemon that is stopped with the stack, and dies with this process."""
    with open(folder / "log" / command[0], "w") as log:
        daemon = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *command],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip

    def stop() -> None:
        daemon.send_signal(signal.SIGTERM)
        try:
            daemon.wait(timeout=20)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    stack.callback(stop)
    return daemon


def _end_jobs(environment: dict[str, str]) -> None:
    ask(environment, "scancel", "--user=root")
    deadline = time.monotonic() + 30
    while ask(environment, "squeue", "-h") and time.monotonic() < deadline:
        time.sleep(0.2)


def _wait(daemon: subprocess.Popen, folder: Path, ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not ready():
        if daemon.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(
                "\n".join(path.read_text() for path in sorted((folder / "log").iterdir()))
            )
        time.sleep(0.1)


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on at this moment."""
    with ExitStack() as stack:
        sockets = [stack.enter_context(closing(socket.socket())) for _ in range(count)]
        for s in sockets:
            s.bind(("127.0.0.1", 0))
        return [s.getsockname()[1] for s in sockets]
