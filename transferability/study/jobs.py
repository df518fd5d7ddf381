"""Group the runs of a study that train together into cohorts and jobs."""

from transferability.data.packed import PackedDataset
from transferability.errors import UserError
from transferability.study.spec import RunSpec


def with_bases(specs: list[RunSpec]) -> list[RunSpec]:
    """``specs`` and the runs that they start from, without duplicates, sources first."""
    bases = [s.base for s in specs if s.base]
    earlier = with_bases(bases) if bases else []
    return list({s.run_id: s for s in [*earlier, *specs]}.values())


def cohort_key(spec: RunSpec) -> tuple:
    """The key of a cohort: runs with the same key train on the same batches."""
    crop = spec.network.input_size
    return (
        spec.dataset.checksum,
        spec.classes,
        spec.images_per_class,
        spec.all_images,
        spec.seed,
        spec.recipe.batching_key,
        crop,
    )


def group_into_jobs(runs: list[RunSpec]) -> list[list[RunSpec]]:
    """Group ``runs`` into jobs, sources first; the runs of a job train in lockstep.

    The index of a job is its number: a study always has the same jobs.
    """
    groups: dict[tuple, list[RunSpec]] = {}
    for spec in sorted(runs, key=lambda s: s.stage):
        groups.setdefault((spec.stage, *cohort_key(spec)), []).append(spec)
    return list(groups.values())


def check_volumes(specs: list[RunSpec], dataset: PackedDataset) -> None:
    """Raise :class:`UserError` if no class of a run's task has ``images_per_class`` training
    images.
    """
    volumes = {(s.classes, s.images_per_class) for s in with_bases(specs) if s.images_per_class}
    for classes, images in sorted(volumes):
        dataset.train_rows(list(classes), images)


def job_specs(specs: list[RunSpec], number: int | None) -> list[RunSpec]:
    """The runs of job ``number``, or ``specs`` if ``number`` is None.

    Raises:
        UserError: there is no such job.
    """
    if number is None:
        return specs
    every = group_into_jobs(with_bases(specs))
    if not 0 <= number < len(every):
        raise UserError(f"job={number} is not possible: the study has jobs 0 to {len(every) - 1}")
    return every[number]
