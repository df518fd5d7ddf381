"""Packing once more: a source that changed since, and a try that was stopped."""

import json
import os
import re
import shutil
import signal
import time
from dataclasses import replace

import pytest

from tests import crash
from tests.helpers import SIDE, coded, config_of, contents, described, make_source, write
from tests.miniature import SHRUNK, shrunk
from transferability.data import encode
from transferability.data import pack as packing
from transferability.data.pack import pack
from transferability.data.packed import open_dataset, open_packed, verify
from transferability.errors import UserError

# --- a source that changes after it was packed ---


def gained(source):
    write(source / "train" / "bee" / "new.png", coded(1, 0, 99))


def lost(source):
    (source / "train" / "bee" / "0.png").unlink()


def renamed(source):
    (source / "train" / "bee" / "0.png").rename(source / "train" / "bee" / "zero.png")


def moved(source):
    (source / "train" / "bee" / "0.png").rename(source / "train" / "ant" / "x.png")


def edited(source):
    (source / "train" / "bee" / "0.png").write_bytes(
        (source / "val" / "bee" / "0.png").read_bytes() + b"more"
    )


def emptied(source):
    shutil.rmtree(source / "train")
    shutil.rmtree(source / "val")


CHANGES = {
    gained: r"\(9 images of \d+ bytes then, 10 images of \d+ bytes now\)",
    lost: r"\(9 images of \d+ bytes then, 8 images of \d+ bytes now\)",
    renamed: (
        r"\(9 images of \d+ bytes, of other names or sizes, "
        r"or in other subsets \(see dataset.parts\)\)"
    ),
    moved: (
        r"\(9 images of \d+ bytes, of other names or sizes, "
        r"or in other subsets \(see dataset.parts\)\)"
    ),
    edited: r"\(9 images of \d+ bytes then, 9 images of \d+ bytes now\)",
    emptied: r"has no images in it",
}


@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("change", CHANGES, ids=lambda c: c.__name__)
def test_packing_again_notices_a_source_that_changed(tmp_path, change, zipped):
    root = make_source(tmp_path / "source", n_train=2, n_val=1)

    def source():
        if not zipped:
            return root
        shutil.make_archive(str(tmp_path / "z"), "zip", root)
        return tmp_path / "z.zip"

    config = config_of(source(), tmp_path / "packed")
    checksum = pack(config).checksum
    assert pack(config).checksum == checksum
    (root / "notes.txt").write_text("no image")
    source()
    assert pack(config).checksum == checksum
    change(root)
    source()
    with pytest.raises(UserError, match=CHANGES[change]) as error:
        pack(config)
    message = str(error.value)
    assert "\n" not in message and message.startswith(
        f"dataset.source={config.source} is not what was packed into"
    )
    assert "delete that folder to pack again, or set dataset.name" in message
    assert open_packed(config).checksum == checksum, "training resumes with what was packed"


def test_a_source_may_be_spelled_otherwise(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = config_of(make_source(tmp_path / "source", n_train=2, n_val=1), tmp_path / "packed")
    checksum = pack(config).checksum
    make_source(tmp_path / "other", n_train=2, n_val=1)
    for spelled in ("source", "./source/", "other/../source"):
        assert open_packed(replace(config, source=spelled)).checksum == checksum
    with pytest.raises(
        UserError, match=r"was packed from .*/source, not from dataset.source=other"
    ):
        open_packed(replace(config, source="other"))


def test_a_dataset_packed_before_sources_were_recorded_is_still_good(tmp_path):
    source = make_source(tmp_path / "source", n_train=2, n_val=1)
    config = config_of(source, tmp_path / "packed")
    checksum = pack(config).checksum
    described(tmp_path / "packed", lambda d: d.pop("source_files") and d.pop("part_checksums"))
    gained(source)
    assert pack(config).checksum == checksum
    verify(tmp_path / "packed")


# --- stopped and continued ---

ENCODINGS = ("raw", "jpeg")


@pytest.fixture
def often(monkeypatch):
    """Points from which packing can go on, after every fourth image."""
    monkeypatch.setattr(encode, "CHUNK", 2)
    monkeypatch.setattr(packing, "CHECKPOINT_EVERY", 4)


def stopped(source, folder, **settings):
    """Packing that a corrupt image stops near its end;
    its progress and the settings to go on with.
    """
    (source / "train" / "ant" / "0.png").write_bytes(b"")  # lies in row 20 of 30
    with pytest.raises(UserError, match="on_error=skip"):
        pack(config_of(source, folder, **settings))
    progress = json.loads(
        (folder.with_name(f".{folder.name}.partial") / "progress.json").read_text()
    )
    assert not folder.exists() and 4 <= progress["items"] < 30
    return progress, config_of(source, folder, on_error="skip", **settings)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_packing_goes_on_after_the_last_safe_row_to_the_same_bytes(
    tmp_path, often, caplog, encoding
):
    caplog.set_level("INFO")
    source, folder = make_source(tmp_path / "source"), tmp_path / "packed"
    progress, config = stopped(source, folder, encoding=encoding)
    config, partial = replace(config, source=f"{config.source}/"), tmp_path / ".packed.partial"
    for name, size in progress["sizes"].items():
        with open(partial / name, "ab") as file:
            file.write(bytes(9999))  # what came after the safe point
        assert (partial / name).stat().st_size > size
    (partial / ".labels.npy.0123.tmp").write_text("left by a process that was killed")
    pack(config)
    assert f"resumes after {progress['items']} images" in caplog.text
    assert not partial.exists()
    pack(replace(config, folder=str(tmp_path / "whole")))
    assert contents(folder) == contents(tmp_path / "whole")
    assert contents(folder).keys() == {*progress["sizes"], "labels.npy", "dataset.json"} - {
        "hashes.npy",
        "perceptual.npy",
    }
    verify(folder)


@pytest.mark.parametrize("change", ["seed", "encoding", "source", "cut", "opencv"])
def test_a_partial_pack_of_something_else_is_not_continued(tmp_path, often, caplog, change):
    caplog.set_level("INFO")
    source = make_source(tmp_path / "source")
    folder = tmp_path / "packed"
    partial = tmp_path / ".packed.partial"
    progress, config = stopped(source, folder)
    if change == "seed":
        config = replace(config, seed=1)
    elif change == "encoding":
        config = replace(config, encoding="jpeg")
    elif change == "source":
        write(source / "train" / "ant" / "0.png", coded(0, 0, 0))
    elif change == "cut":
        os.truncate(partial / "images.npy", progress["sizes"]["images.npy"] - 1)
    else:
        (partial / "progress.json").write_text(json.dumps({**progress, "opencv": "4.0"}))
    pack(config)
    assert "resumes" not in caplog.text and not partial.exists()
    pack(replace(config, folder=str(tmp_path / "whole")))
    assert contents(folder) == contents(tmp_path / "whole")


def test_a_pack_with_a_test_part_goes_on_to_the_same_bytes(tmp_path, often):
    source, folder = make_source(tmp_path / "source"), tmp_path / "packed"
    _, config = stopped(source, folder, test_fraction=0.3)
    pack(config)
    pack(replace(config, folder=str(tmp_path / "whole")))
    assert (
        contents(folder) == contents(tmp_path / "whole") and open_dataset(str(folder)).n_test == 5
    )


def test_a_pack_that_only_lacks_its_last_renaming_gets_it(tmp_path, often):
    source, folder = make_source(tmp_path / "source"), tmp_path / "packed"
    pack(config_of(source, folder))
    whole, stamp = contents(folder), (folder / "images.npy").stat().st_mtime_ns
    partial = folder.rename(tmp_path / ".packed.partial")
    (partial / "progress.json").write_text("{}")
    pack(config_of(source, folder))
    assert contents(folder) == whole and (folder / "images.npy").stat().st_mtime_ns == stamp


MANY = [*SHRUNK, "dataset.grammar.train_per_class=650"]  # 5,240 images: one safe point


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """The bytes of the many images, packed undisturbed."""
    return contents(
        pack(shrunk(tmp_path_factory.mktemp("many"), *MANY[len(SHRUNK) :]).dataset).folder
    )


SLOW = [pytest.param(way, marks=pytest.mark.slow) for way in ("SIGINT", "full disk")]


# Over 5 s of CPU: points from which packing can go on are thousands of images apart.
@pytest.mark.parametrize("way", ["SIGKILL", *SLOW])
def test_a_packing_process_that_ends_early_is_continued_by_the_same_command(tmp_path, many, way):
    log, data = tmp_path / "log", tmp_path / "data"
    log.touch()
    command = ["experiments.pack", [*MANY, *crash.places(tmp_path)], log]
    room = {"RLIMIT_FSIZE": 4600 * 16 * 16 * 3} if way == "full disk" else {}
    wanted = {"SIGKILL": -9, "SIGINT": 130, "full disk": 2}[way]
    for _ in range(5):  # on a busy machine it may be done before the signal comes
        shutil.rmtree(data, ignore_errors=True)
        process = crash.start(*command, limits=room)
        if way != "full disk":
            deadline = time.monotonic() + 200
            while not (data / ".procedural.partial" / "progress.json").exists():
                assert process.is_alive() and time.monotonic() < deadline, log.read_text()
                time.sleep(0.005)
            os.kill(process.pid, getattr(signal, way))
        process.join(200)
        if process.exitcode == wanted:
            break
    assert process.exitcode == wanted, log.read_text()
    assert not (data / "procedural").exists()
    if way == "full disk":
        assert (
            "cannot be written: File too large; make room and run the same command again"
            in log.read_text()
        )
    process = crash.start(*command)
    process.join(200)
    assert process.exitcode == 0, log.read_text()
    assert re.search(r"packing procedural resumes after 4,0\d\d images", log.read_text())
    assert contents(data / "procedural") == many
    assert {p.name for p in data.iterdir()} == {"procedural", ".procedural.lock"}


def test_what_is_written_already_counts_as_room(tmp_path, often, monkeypatch):
    source, folder = make_source(tmp_path / "source"), tmp_path / "packed"
    progress, config = stopped(source, folder)
    left = 30 * SIDE * SIDE * 3 - sum(
        p.stat().st_size for p in (tmp_path / ".packed.partial").iterdir()
    )
    free = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=left - 1))
    with pytest.raises(UserError, match="GB free, the images need"):
        pack(config)
    assert json.loads((tmp_path / ".packed.partial" / "progress.json").read_text()) == progress
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=left))
    assert len(pack(config).labels) == 29


def test_without_a_terminal_lines_tell_rate_and_time_left(tmp_path, often, caplog, monkeypatch):
    caplog.set_level("INFO")
    monkeypatch.setattr(encode, "LOG_SECONDS", 0)
    pack(config_of(make_source(tmp_path / "source"), tmp_path / "packed"))
    lines = [r.getMessage() for r in caplog.records]
    counts = [
        int(re.search(r"packing some: +\d+% (\d+)/30 \[\d\d:\d\d<\d\d:\d\d, .*img.*\]", line)[1])
        for line in lines
    ]
    assert counts == [*range(2, 31, 2)]


@pytest.mark.parametrize("workers", [1, 5])
def test_the_number_of_threads_does_not_matter(tmp_path, often, workers):
    source = make_source(tmp_path / "source", n_train=40)
    one = pack(config_of(source, tmp_path / "one"), workers)
    assert one.checksum == pack(config_of(source, tmp_path / "packed"), 3).checksum
