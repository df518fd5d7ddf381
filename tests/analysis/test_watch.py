"""A report that follows a study: it is written again until nothing is to come.

What happens between two reports happens in ``time.sleep``.
"""

import time

import pandas as pd
import pytest

from analysis import watch
from tests.miniature import CPU, shrunk
from transferability.data.pack import pack
from transferability.errors import UserError
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.study.expand import study_specs

BASES = ["study.treatments={random:[base],natural-manmade:[base]}", "split=random-0"]


@pytest.fixture
def study(tmp_path):
    """study(*overrides): the configuration of two bases, their specifications, and a function that
    trains some.
    """

    def make(*overrides):
        config = shrunk(tmp_path, *BASES, f"out={tmp_path}/tables", *overrides)
        dataset = pack(config.dataset)
        specs = study_specs(config, dataset)
        return config, specs, lambda some: train_missing(some, Store(config.store), dataset, CPU)

    return make


@pytest.fixture
def between(monkeypatch):
    """between(first, second, ...): what happens in the pauses, one after the other; the list of
    their seconds.
    """

    def set_to(*events):
        todo, pauses = iter(events), []

        def sleep(seconds):
            pauses.append(seconds)
            next(todo)()

        monkeypatch.setattr(time, "sleep", sleep)
        return pauses

    return set_to


def reloads(folder) -> bool:
    return "http-equiv" in (folder / "tables/report.html").read_text()


# Over 5 s of CPU: it writes four reports.
@pytest.mark.slow
def test_a_report_follows_a_study_to_its_end(study, between, capsys, tmp_path):
    config, specs, train = study()
    seen = []

    def trained(some):
        seen.append(reloads(tmp_path))
        train(some)

    pauses = between(lambda: trained(specs[:1]), lambda: trained(specs))
    watch.main(config)
    lines = capsys.readouterr().out.splitlines()
    assert [line[5:] for line in lines] == [
        f" {done} of 2 networks are finished: {tmp_path}/tables/report.html" for done in (0, 1, 2)
    ]
    assert seen == [True, True] and not reloads(tmp_path)
    assert len(pauses) == 2 and min(pauses) >= watch.PAUSE
    assert (pd.read_csv(tmp_path / "tables/results.csv").state == "done").all()
    watch.main(config)
    assert len(capsys.readouterr().out.splitlines()) == 1 and len(pauses) == 2, (
        "nothing to wait for"
    )


# Over 5 s of CPU: two reports, and four networks.
def test_failed_networks_are_not_waited_for(study, between, capsys, tmp_path):
    """Nor those that start from them."""
    treatments = "study.treatments={random:[base,AnB],natural-manmade:[base]}"
    config, specs, train = study("recipe.lr=1e30", treatments, "study.layers=[3]")

    def fail():
        with pytest.raises(UserError, match="2 of 4 networks became infinite"):
            train(specs)

    between(fail)
    watch.main(config)
    assert (
        " 0 of 4 networks are finished, 4 failed or wait for one that did: "
        in (capsys.readouterr().out.splitlines()[-1])
    )


def test_a_stop_is_one_line(study, between, capsys):
    def interrupt():
        raise KeyboardInterrupt

    config, *_ = study()
    between(interrupt)
    with pytest.raises(SystemExit) as ended:
        watch.main(config)
    assert ended.value.code == 130
    assert capsys.readouterr().err == (
        "\nno longer watched; training continues, and the report stays as it is\n"
    )
