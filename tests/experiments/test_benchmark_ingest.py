"""The ingest bench runs and prints its tables; results made with compressed images say so."""

import re
from dataclasses import replace

import joblib
import numpy as np
import pytest

from analysis.collect import collect
from analysis.figures.write import drawings
from analysis.report import page
from experiments.benchmarks import ingest
from tests.miniature import CPU, shrunk
from transferability.data.pack import pack
from transferability.data.packed import PackedDataset, open_dataset
from transferability.errors import UserError
from transferability.runs.runner import train_missing
from transferability.runs.store import Store
from transferability.study import cells
from transferability.study.spec import RunSpec, make_spec

LABEL = "JPEG-compressed pack (quality 90, 4:4:4)"


def test_the_tables_come_out_and_nothing_stays(tmp_path, capsys):
    config = shrunk(tmp_path)
    ingest.main(config, images=20, rows=70, reads=16, side=16, batch=8, rounds=1)
    out = capsys.readouterr().out
    for encoding in ("raw", "jpeg"):
        for workers in {1, joblib.cpu_count()}:
            assert re.search(
                rf"^ +{encoding}, {workers} threads? +\S+ \(.*\)( +[\d,]+){{3}}$", out, re.M
            )
        for state in ("cold", "warm"):
            for order in ("random", "file"):
                rows = re.findall(rf"^ +{state}, {order} order: .*\) +[\d,]+$", out, re.M)
                assert len(rows) == 2 * len(ingest.WAYS)
                assert (
                    len(
                        re.findall(
                            rf"^ +{encoding}, {state}, {order} order +[\d,]+( +\d+\.\d){{5}}$",
                            out,
                            re.M,
                        )
                    )
                    == 1
                )
    assert "40k / 28 = 1,429" in out and "60k / 60 = 1,000" in out and "23k / 1 = 23,000" in out
    assert list((tmp_path / "data").iterdir()) == []


def test_what_is_measured_reads_the_rows_that_were_packed(tmp_path):
    ingest.make_files(shrunk(tmp_path).dataset, tmp_path / "source", 12)
    rates = ingest.packing_rates(tmp_path / "source", tmp_path, 16, 1)
    assert set(rates) == {(e, w) for e in ("raw", "jpeg") for w in (1, joblib.cpu_count())}
    for encoding in ("raw", "jpeg"):
        ingest.enlarge(tmp_path / encoding, tmp_path / f"large-{encoding}", 31)
        small = PackedDataset(tmp_path / encoding)
        large = PackedDataset(tmp_path / f"large-{encoding}")
        assert large.images.shape == (31, 16, 16, 3) and len(small.labels) == 12
        assert np.array_equal(large.read_rows(np.arange(31)), small.read_rows(np.arange(31) % 12))
        assert large.encoding == small.encoding == (None if encoding == "raw" else "jpeg q95 4:4:4")


def test_a_disk_without_room_is_named(tmp_path):
    with pytest.raises(UserError, match=r"GB free, this needs [\d.]+ for a while: set data_dir"):
        ingest.main(shrunk(tmp_path), rows=10**12)
    assert list((tmp_path / "data").iterdir()) == []


# 6 s of a CPU: two stores, their figures and a page
@pytest.mark.slow
def test_results_of_compressed_images_are_runs_of_their_own_and_say_so(tmp_path, config, dataset):
    settings = replace(
        config.dataset, folder=str(tmp_path / "jpeg"), encoding="jpeg", jpeg_quality=90
    )
    pack(settings)
    compressed = open_dataset(settings.folder)

    def spec(cell, of):
        return make_spec(cells.parse(cell), "random-0", of, config.network, config.recipe, 0)

    assert "encoding" not in spec("baseB", dataset).to_dict()["dataset"]
    mine = spec("B2B", compressed)
    assert mine.dataset == mine.source.dataset
    assert mine.dataset.encoding == "jpeg q90 4:4:4"
    assert RunSpec.from_dict(mine.to_dict()) == mine
    without = replace(mine, dataset=replace(mine.dataset, encoding=None))
    assert len({mine.id, without.id, spec("B2B", dataset).id}) == 3
    for of, labelled in ((compressed, True), (dataset, False)):
        specs, store = [spec("baseB", of), spec("B2B", of)], Store(tmp_path / f"runs-{labelled}")
        train_missing(specs, store, of, CPU)
        tables = collect(specs, store, of)
        made, _ = drawings(tables)
        assert {"accuracy", "filters"} <= {d.name for d in made}
        assert {LABEL in d.caption for d in made} == {labelled}
        assert (
            (LABEL in tables.metadata["title"])
            == (tables.metadata["dataset"].get("encoding") == LABEL)
            == labelled
        )
        if labelled:
            # captions; head, headline, and what was run
            assert page(tables).count(LABEL) == len(made) + 3
