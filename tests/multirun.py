"""The multiruns of a forked sweep (``tests/crash.py``) are forked, too, from a process that has
done nothing yet: each would take seconds to import torch.

``python -m experiments.sweep`` starts them as ``python -m experiments.run -m``. This is for the
basic launcher: a forked process waits at its end for joblib's workers, which stay for minutes.
"""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
from contextlib import suppress
from multiprocessing.connection import Connection


class Multirun:
    """What ``subprocess.Popen`` gives: the part of it that a sweep uses."""

    def __init__(self, server: Connection, command: list[str]):
        self.server = server
        server.send(command)
        self.pid = server.recv()

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):  # it has ended
            os.kill(self.pid, number)

    def wait(self) -> int:
        return self.server.recv()


def fork_multiruns() -> None:
    """From now on what this process starts as ``python -m MODULE`` is forked."""
    here, there = multiprocessing.Pipe()
    if not os.fork():
        here.close()
        _serve(there)
    there.close()
    real, python = subprocess.Popen, [sys.executable, "-m"]
    subprocess.Popen = (
        lambda command, *rest, **named: (  # type: ignore[misc,assignment]
            Multirun(here, command[2:]) if command[:2] == python else real(command, *rest, **named)
        )
    )


def _serve(sweep: Connection) -> None:
    """Start what the sweep asks for, until it has ended; signals to all its processes are not for
    this one.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with suppress(EOFError):
        while True:
            process = multiprocessing.Process(target=_run, args=[sweep, *sweep.recv()])
            process.start()
            sweep.send(process.pid)
            process.join()
            sweep.send(process.exitcode)
    os._exit(0)


def _run(sweep: Connection, module: str, *words: str) -> None:
    sweep.close()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    sys.argv = [module, *words]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)
