"""Breaks real processes on purpose, and checks that what they leave behind is whole.

python -m tests.crash --kills 300 --seed 0

Promised: whenever a process that trains, packs or draws dies (SIGKILL: nothing of it runs any
more), the same command resumes and ends with the same bytes as if nothing had happened; no run is
trained again once it is finished, and nothing half-written is left. Deaths come after random times,
and at random file operations (an audit hook counts what the process opens, renames and removes
below the study's folder), under settings that may not matter: threads, networks held at once, time
between checkpoints.

A process starts in milliseconds: a server that has imported everything, has one thread and never
ran an operation of torch forks it (``multiprocessing``'s forkserver), and ``runpy`` then does what
``python -m`` does. The expected bytes come from a fresh ``python -m`` that nobody disturbed.
"""

import argparse
import ctypes
import gc
import json
import multiprocessing
import os
import random
import re
import resource
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import warnings
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import analysis.collect
import analysis.figures.__main__
import analysis.report  # noqa: F401
import transferability.runs.runner
import transferability.study.expand  # noqa: F401
from tests.miniature import SHRUNK
from transferability.runs.store import Store

# in forked processes
warnings.filterwarnings("ignore", "'tests.crash' found in sys.modules", RuntimeWarning)
ROOT = Path(__file__).parent.parent
STUDY = [*SHRUNK, "study.layers=[2,5]"]  # 28 networks in 4 cohorts, 4 of them bases
WRITES = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.chmod", "shutil.rmtree"}
COMPARED = ("spec.json", "weights.safetensors", "predictions.safetensors", "metrics.jsonl")


def start(
    module: str,
    arguments: Iterable[str],
    log: Path,
    point: int = 0,
    limits: dict | None = None,
    begin: Callable[[], None] | None = None,
) -> BaseProcess:
    """Fork a process that runs ``python -m module arguments``;
    what it prints goes to the end of ``log``.

    Args:
        point: it kills itself at its so many-th operation on a file below the folder of ``log``;
            0: it does not.
        limits: soft limits by name (``RLIMIT_FSIZE`` ...);
            that of memory counts from what is in use at the start.
        begin: what the process calls first.
    """
    return forked(_child, module, list(arguments), log, point, limits or {}, begin)


def forked(target: Callable, *arguments) -> BaseProcess:
    """Fork a process that calls ``target`` from the server, which is started the first time."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.crash"])
    before = os.environ.get("OPENBLAS_NUM_THREADS")
    os.environ["OPENBLAS_NUM_THREADS"] = "1"  # the server then has one thread, and forks safely
    try:
        process = context.Process(target=target, args=arguments)
        process.start()
    finally:
        os.environ.pop("OPENBLAS_NUM_THREADS")
        if before is not None:
            os.environ["OPENBLAS_NUM_THREADS"] = before
    return process


def _child(
    module: str,
    arguments: list[str],
    log: Path,
    point: int,
    limits: dict[str, int],
    begin: Callable[[], None] | None,
) -> None:
    gc.freeze()  # what the server imported is no garbage, and need not be looked through
    server_threads = len(os.listdir(f"/proc/{os.getppid()}/task"))
    multiprocessing.set_start_method("fork", force=True)  # as in any fresh process
    os.setsid()
    # a shell's background jobs ignore it, and so do theirs
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(ROOT)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    assert server_threads == 1, f"not safe to fork: the server has {server_threads} threads"
    if begin:
        begin()
    if point:
        sys.addaudithook(_killer(str(log.parent), point))
    if "RLIMIT_AS" in limits:
        allocator = ctypes.CDLL(None)
        allocator.mallopt(-8, 1)  # M_ARENA_MAX: every thread would reserve address space of its own
        # M_MMAP_THRESHOLD: freed tensors leave the address space, not holes in the heap
        allocator.mallopt(-3, 1 << 20)
    for name, value in limits.items():
        _, hard = resource.getrlimit(getattr(resource, name))
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(getattr(resource, name), (value + used * (name == "RLIMIT_AS"), hard))
    sys.argv = [module, *arguments]
    sys.modules.pop(module, None)
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _killer(folder: str, point: int) -> Callable[[str, tuple], None]:
    left = point

    def hook(event: str, arguments: tuple) -> None:
        nonlocal left
        if (
            event in WRITES
            and isinstance(arguments[0], (str, os.PathLike))
            and str(arguments[0]).startswith(folder)
        ):
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return hook


def fresh(module: str, arguments: Iterable[str]) -> str:
    """``python -m module arguments`` in a process that shares nothing with this one;
    what it logged.
    """
    done = subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode:
        raise RuntimeError(f"{module} ended with {done.returncode}: {done.stderr}")
    return done.stderr


def places(folder: Path) -> list[str]:
    """The settings that put data and store below ``folder``."""
    return [f"data_dir={folder}/data", f"store={folder}/runs"]


def contents(folder: Path) -> dict[str, bytes | None]:
    """Every file below ``folder`` with what it must hold;
    None for what tells when and how, and for empty locks.
    """
    found: dict[str, bytes | None] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = str(path.relative_to(folder))
        if path.name == "DONE":
            record = json.loads(path.read_text())
            record.pop("provenance.json")
            found[name] = json.dumps(record).encode()
        else:
            found[name] = path.read_bytes() if path.name in COMPARED else None
    return found


def differences(found: dict, expected: dict) -> list[str]:
    """A line for every file that is missing, too many, or other than expected."""

    def what(name: str) -> str:
        return (
            "missing"
            if name not in found
            else "left over"
            if name not in expected
            else "other bytes"
        )

    return [
        f"{name}: {what(name)}"
        for name in sorted(found.keys() | expected.keys())
        if name not in found or name not in expected or found[name] != expected[name]
    ]


def files(folder: Path) -> dict[str, bytes]:
    """Every file below ``folder`` but locks, byte for byte."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.suffix != ".lock"
    }


@dataclass
class Tally:
    """What was broken, and what came of it."""

    kills: Counter = field(default_factory=Counter)  # by kind and phase
    starts: Counter = field(default_factory=Counter)
    finished: Counter = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def table(self, seconds: float) -> str:
        rows = [f"  {kind:8} {phase:46} {n:5}" for (kind, phase), n in sorted(self.kills.items())]
        kinds = [
            (
                f"  {kind:8} started {self.starts[kind]:4} times, finished and compared "
                f"{self.finished[kind]:4}"
            )
            for kind in sorted(self.starts)
        ]
        total = f"{self.kills.total()} kills, {len(self.wrong)} differences, {seconds:.0f} seconds"
        return "\n".join(
            [
                "kills, by what the process was doing:",
                *rows,
                "processes:",
                *kinds,
                total,
                *self.wrong[:40],
            ]
        )


class Victim(ABC):
    """A command in a folder of its own, started and killed until it ends by itself.

    Args:
        reference: the folder of what an undisturbed process made.
    """

    kind: str
    module: str
    longest: float  # seconds until it is killed, at most
    operations: int  # on files until it is killed, on average

    def __init__(self, folder: Path, reference: Path, rng: random.Random, tally: Tally):
        self.folder, self.reference, self.rng, self.tally = folder, reference, rng, tally
        folder.mkdir(parents=True)

    def attack(self, budget: int) -> None:
        """At most ``budget`` kills; then let it end, and compare."""
        before = self.tally.kills.total()
        while self.tally.kills.total() < before + budget:
            if self.start(harmless=False):
                break
        else:
            self.start(harmless=True)
        self.tally.finished[self.kind] += 1
        self.wrong(self.compare())

    def start(self, harmless: bool) -> bool:
        """Start the command, and kill it unless ``harmless``; whether it ended by itself."""
        if harmless:
            return self.run()
        if self.rng.random() < 0.5:
            return self.run(delay=self.rng.uniform(0, self.longest))
        return self.run(point=1 + int(self.rng.expovariate(1 / self.operations)))

    def run(self, delay: float = 600, point: int = 0) -> bool:
        """Start the command; kill it after ``delay`` seconds, or at an operation;
        whether it ended by itself.
        """
        log = self.folder / "log"
        log.write_text("")
        self.before = set(self.folder.rglob(".*.tmp"))
        self.tally.starts[self.kind] += 1
        process = start(self.module, self.arguments(), log, point)
        process.join(delay)
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        said = log.read_text()
        if process.exitcode == -signal.SIGKILL:
            self.tally.kills[self.kind, self.phase(said)] += 1
            self.wrong(self.inspect())
            return False
        if process.exitcode != 0:
            self.wrong([f"ended with {process.exitcode}: {said[-800:]}"])
        return True

    def wrong(self, lines: list[str]) -> None:
        self.tally.wrong += [f"{self.kind} {self.folder.name}: {line}" for line in lines]

    @abstractmethod
    def arguments(self) -> list[str]:
        """What comes after ``python -m``."""

    @abstractmethod
    def phase(self, said: str) -> str:
        """What the process was doing when it died, from what is on disk and what it ``said``."""

    @abstractmethod
    def inspect(self) -> list[str]:
        """What is wrong after a kill."""

    @abstractmethod
    def compare(self) -> list[str]:
        """What is wrong after it ended by itself."""


class Study(Victim):
    """Packing and training of a study of several cohorts, sources and transfers;
    the machine changes at every start.
    """

    kind, module, longest, operations = "study", "experiments.run", 4.0, 250

    settings = STUDY

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.store, self.once = self.folder / "runs", {}

    def arguments(self) -> list[str]:
        threads, networks = self.rng.choice([1, 2, 3]), self.rng.choice(["null", 3, 8])
        seconds = self.rng.choice([0, 0, 0.05])
        execution = [
            f"threads={threads}",
            f"max_networks={networks}",
            f"checkpoint_seconds={seconds}",
        ]
        return [*self.settings, *places(self.folder), *execution]

    def phase(self, said: str) -> str:
        new = set(self.folder.rglob(".*.tmp")) - self.before
        if new:
            return f"writing {re.sub('.[0-9a-f]{32}.tmp', '', min(new).name[1:])}"
        if list(self.folder.glob("data/.*.partial")):
            return "packing"
        if any((f / "DONE").exists() and list(f.glob("checkpoint*")) for f in self.store.glob("*")):
            return "between DONE and the end of its checkpoints"
        if "steps of" not in said:
            return (
                "start-up" if list(self.store.glob("*/DONE")) else "start-up, nothing finished yet"
            )
        begun, ended = said.count("steps of"), said.count(": finished in")
        if any(
            (f / "weights.safetensors").exists() and not (f / "DONE").exists()
            for f in self.store.glob("*")
        ):
            return "finishing, between two files"
        return "training, or writing a checkpoint" if begun > ended else "between two cohorts"

    def inspect(self) -> list[str]:
        """No finished run was touched again, and nothing that a reader could open is damaged."""
        lines = []
        for path in self.store.glob("*/DONE"):
            stamp = tuple((path.parent / name).stat().st_mtime_ns for name in ("DONE", *COMPARED))
            if self.once.setdefault(path.parent.name, stamp) != stamp:
                lines.append(f"{path.parent.name} was trained twice")
        return [*lines, *(Store(self.store).verify()[1] if self.store.exists() else [])]

    def compare(self) -> list[str]:
        return [
            *self.inspect(),
            *differences(contents(self.store), contents(self.reference / "runs")),
        ]


class Small(Study):
    """A base and a network that starts from it, for two steps: few enough operations to die
    at each of them.
    """

    kind, longest, operations = "small", 1.5, 100

    recipe = ("recipe.steps=2", "recipe.eval_every=1", "recipe.warmup_steps=0")
    settings = (*SHRUNK, *recipe, "split=random-0", "cell=A3B+")


class Packing(Victim):
    """Packing alone: the data folder is there whole, or not at all."""

    kind, module, longest, operations = "packing", "experiments.pack", 0.6, 6

    def arguments(self) -> list[str]:
        return [*SHRUNK, *places(self.folder)]

    def phase(self, said: str) -> str:
        data = self.folder / "data"
        if any(set(data.rglob(".*.tmp")) - self.before):
            return "writing the description"
        for state, pattern in (
            ("packed", "*/dataset.json"),
            ("labels", ".*/labels.npy"),
            ("images", ".*/images.npy"),
        ):
            if list(data.glob(pattern)):
                return state if state == "packed" else f"writing {state}"
        return "start-up"

    def inspect(self) -> list[str]:
        expected, folder = files(self.reference / "data"), self.folder / "data"
        found = {name: data for name, data in files(folder).items() if not name.startswith(".")}
        if found or self.rng.random() < 0.5:  # else the next start finds what this one left
            shutil.rmtree(folder, ignore_errors=True)
        return differences(found, expected) if found else []

    def compare(self) -> list[str]:
        return differences(files(self.folder / "data"), files(self.reference / "data"))


class Drawing(Victim):
    """Figures or a report from tables: every file is whole,
    or not there (hidden ``.tmp`` files do not count).
    """

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.tables = self.folder / self.reference.name
        self.given = {p.name for p in self.reference.parent.joinpath("tables").iterdir()}
        shutil.copytree(self.reference.parent / "tables", self.tables)

    def arguments(self) -> list[str]:
        return [str(self.tables)]

    def phase(self, said: str) -> str:
        made = {p.name for p in self.tables.iterdir()} - self.given
        return f"{len(made)} files were there"

    def inspect(self) -> list[str]:
        found = {n: data for n, data in files(self.tables).items() if not n.endswith(".tmp")}
        return [
            line
            for line in differences(found, files(self.reference))
            if not line.endswith("missing")
        ]

    def compare(self) -> list[str]:
        missing = files(self.reference).keys() - files(self.tables).keys()
        return [*self.inspect(), *(f"{name}: missing" for name in sorted(missing))]


class Figures(Drawing):
    kind, module, longest, operations = "figures", "analysis.figures", 12.0, 12


class Report(Drawing):
    kind, module, longest, operations = "report", "analysis.report", 8.0, 4


def references(folder: Path, kinds: Sequence[type[Victim]]) -> dict[type[Victim], Path]:
    """What undisturbed, fresh processes make, for each kind."""
    fresh("experiments.run", [*STUDY, *places(folder)])
    drawn = {kind: folder / kind.kind for kind in set(kinds) if issubclass(kind, Drawing)}
    if drawn:
        fresh("analysis.collect", [*STUDY, *places(folder), f"out={folder}/tables"])
    for kind, made in drawn.items():
        shutil.copytree(folder / "tables", made)
        fresh(kind.module, [str(made)])
    return {Study: folder, Packing: folder, **drawn}


ALL = (Study, Study, Packing, Study, Packing, Study, Figures, Packing, Study, Report)


def harass(
    folder: Path,
    kills: int,
    seed: int,
    kinds: Sequence[type[Victim]] = ALL,
    most: int = 12,
    expected: dict[type[Victim], Path] | None = None,
) -> Tally:
    """Kill processes of ``kinds``, in turn and at most ``most`` on the way to one result,
    until ``kills`` died and each kind had its turn.
    """
    expected = expected or references(folder / "reference", kinds)
    rng, tally, round_ = random.Random(seed), Tally(), 0
    while tally.kills.total() < kills or round_ < len(kinds):
        victim = kinds[round_ % len(kinds)]
        victim(folder / f"{round_:03d}", expected[victim], rng, tally).attack(
            min(most, kills - tally.kills.total())
        )
        if not tally.wrong:
            shutil.rmtree(folder / f"{round_:03d}")  # what went wrong stays, to be looked at
        round_ += 1
    return tally


def each(folder: Path, stride: int = 1, first: int = 1, expected: Path | None = None) -> Tally:
    """Die at every ``stride``-th file operation of a small study, one after the other;
    each time go on and compare with the undisturbed study in ``expected``.
    """
    tally, point = Tally(), first
    if expected is None:
        expected = folder / "reference"
        fresh("experiments.run", [*Small.settings, *places(expected)])
    while True:
        victim = Small(folder / f"{point:03d}", expected, random.Random(point), tally)
        victim.arguments = lambda v=victim: [*v.settings, *places(v.folder), "checkpoint_seconds=0"]
        if victim.run(point=point):
            return tally
        victim.attack(0)
        point += stride


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--each", action="store_true", help="die once at every file operation of a small study"
    )
    parser.add_argument(
        "--folder", type=Path, help="where to work; kept. Otherwise a temporary folder"
    )
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.folder or Path(temporary)
        tally = each(folder) if options.each else harass(folder, options.kills, options.seed)
    print(tally.table(time.monotonic() - began))
    sys.exit(bool(tally.wrong))


if __name__ == "__main__":
    main()
