"""The runs of one command and the runs they start from: finished, ready to train, or failed."""

from collections.abc import Collection

from transferability.errors import UserError
from transferability.runs.store import Store
from transferability.study.jobs import with_bases
from transferability.study.spec import RunSpec


class Pending:
    """The runs of one command. Runs that failed in an earlier try are tried again, once.

    Attributes:
        specs: the runs, sources first.
        tried: the ids of the runs that this process has begun.
    """

    def __init__(self, specs: list[RunSpec], store: Store):
        self.specs, self.store = specs, store
        self.tried: set[str] = set()
        self._old_failures = {spec.run_id: store.failure(spec) for spec in specs}

    def runnable(self) -> list[RunSpec]:
        """Runs that can be trained now: not finished, not failed in this try, source finished."""
        left = [s for s in self.specs if not self.store.is_done(s) and not self._failed(s)]
        return [s for s in left if s.base is None or self.store.is_done(s.base)]

    def after(self, wave: Collection[RunSpec]) -> list[RunSpec]:
        """Runs to be trained after those of ``wave``, except where a source failed in this try."""
        now = {spec.run_id for spec in wave}
        left = [s for s in self.specs if s.run_id not in now and not self.store.is_done(s)]
        return [s for s in left if not any(map(self._failed, with_bases([s])))]

    def _failed(self, spec: RunSpec) -> bool:
        """Whether the run has failed in this try."""
        failure = self.store.failure(spec)
        if failure is None:
            return False
        return spec.run_id in self.tried or failure != self._old_failures[spec.run_id]

    def report_failures(self) -> None:
        """Report the networks that failed, and the number of networks that start from them.

        Raises:
            UserError: a network failed.
        """
        left = [spec for spec in self.specs if not self.store.is_done(spec)]
        failures = [(spec, why) for spec in left if (why := self.store.failure(spec))]
        if not failures:
            return
        names = [
            f"{s.split} {s.cell} seed {s.seed} (step {why['step']}, rate {why['lr']:.3g}, last "
            f"validation {why['last']['val_top1'] if why['last'] else 'none'})"
            for s, why in failures
        ]
        raise UserError(
            f"the loss of {len(failures)} of {len(self.specs)} networks became infinite or NaN: "
            f"{', '.join(names[:5])}{' ...' if len(names) > 5 else ''}; "
            f"{len(left) - len(failures)} that start from them were not trained, all others are "
            "finished. The same command tries these again; a smaller recipe.lr makes a new study"
        )
