"""Zip and tar files, also those that somebody else made."""

import io
import stat
import struct
import tarfile
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import (
    class_folders,
    classes,
    config_of,
    everything,
    found,
    lines,
    made,
    packing_refusal,
    picture,
    plain_png,
    refusal,
    tarred,
    zipped,
)
from transferability.data.pack import pack
from transferability.data.readers import archives, read_dataset

# --- zip files ---


@pytest.mark.parametrize("below", ["./", "./pets/", ".\\", "pets\\"])
def test_a_zip_may_spell_its_paths_otherwise(below, tmp_path):
    """As ``zip -r a.zip ./*`` elsewhere, and programs of Windows do;
    the checksum is that of the folder.
    """
    root = class_folders(tmp_path / "pets", {"ant": 4, "bee": 4})
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as out:
        for path in sorted(root.rglob("*")):
            name = below + path.relative_to(root).as_posix() + "/" * path.is_dir()
            out.writestr(
                name.replace("/", "\\") if "\\" in below else name,
                b"" if path.is_dir() else path.read_bytes(),
            )
    assert found(tmp_path / "a.zip")[0] == ["ant", "bee"]
    packed = [
        pack(config_of(source, tmp_path / f"packed-{source.stem}"))
        for source in (root, tmp_path / "a.zip")
    ]
    assert packed[0].checksum == packed[1].checksum


def test_a_backslash_beside_slashes_is_one(tmp_path):
    root = class_folders(tmp_path / "pets", {"ant": 4, "b\\ee": 4})
    for source in (root, zipped(root, tmp_path / "a.zip")):
        assert found(source)[0] == ["ant", "b\\ee"]


def foreign(path, *entries, method=zipfile.ZIP_DEFLATED):
    """A zip file of two good classes and of ``entries``, (ZipInfo or name, data)."""
    good = [(f"{name}/{i}.png", plain_png(i)) for name in ("ant", "bee") for i in range(4)]
    with zipfile.ZipFile(path, "w", method) as out:
        for name, data in [*good, *entries]:
            out.writestr(name, data)
    return path


@pytest.mark.parametrize(
    "name",
    [
        "../../evil.jpg",
        "ant/../../evil.jpg",
        "/abs.jpg",
        "C:\\evil.jpg",
        "c:/evil.jpg",
        "..\\..\\evil.jpg",
        "//h/e.jpg",
    ],
)
def test_a_zip_file_whose_names_lead_outside_is_refused(tmp_path, monkeypatch, name):
    work = tmp_path / "a" / "b" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    archive = foreign(work / "z.zip", (name, plain_png()))
    before = everything(tmp_path)
    message = packing_refusal(config_of(archive, work / "packed"))
    assert f"the entry {name} points outside it" in message and "make it again" in message
    assert everything(tmp_path) - before == {"a/b/work/.packed.lock"}
    assert not Path("/abs.jpg").exists()


def test_packing_a_zip_file_writes_the_packed_folder_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    archive = foreign(tmp_path / "z.zip", ("ant/...png", plain_png(9)), ("ant/~.png", plain_png(9)))
    before = everything(tmp_path)
    pack(config_of(archive, tmp_path / "data" / "packed"))
    written = {f"data/packed/{name}" for name in ("images.npy", "labels.npy", "dataset.json")}
    assert everything(tmp_path) - before == {"data", "data/packed", "data/.packed.lock", *written}


def test_a_link_in_a_zip_file_is_not_followed(tmp_path):
    (tmp_path / "secret.png").write_bytes(plain_png(200))
    link = zipfile.ZipInfo("ant/link.png")
    link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    archive = foreign(tmp_path / "z.zip", (link, str(tmp_path / "secret.png")))
    message = packing_refusal(config_of(archive, tmp_path / "failed"))
    assert (
        "ant/link.png cannot be read (a symbolic link in a zip file; zip what it points to)"
        in message
    )
    packed = pack(config_of(archive, tmp_path / "packed", on_error="skip"))
    assert len(packed.images) == 8 and not (packed.images == 200).any()


def patched(archive, name, **values):
    """The archive with fields of the central directory's entry ``name`` overwritten."""
    fields = {"flags": (8, "<H"), "method": (10, "<H"), "size": (24, "<I")}
    data = bytearray(archive.read_bytes())
    at = data.rindex(name.encode()) - 46
    assert data[at : at + 4] == b"PK\1\2"
    for key, value in values.items():
        offset, form = fields[key]
        struct.pack_into(form, data, at + offset, value)
    archive.write_bytes(data)
    return archive


def test_an_encrypted_zip_file_is_refused(tmp_path):
    archive = patched(foreign(tmp_path / "z.zip", ("ant/x.png", plain_png())), "ant/x.png", flags=1)
    message = packing_refusal(config_of(archive, tmp_path / "packed"))
    assert (
        "the entry ant/x.png is encrypted: unzip it with its password and give the folder"
        in message
    )


def test_a_method_of_compression_that_is_not_known_is_named(tmp_path):
    archive = patched(
        foreign(tmp_path / "z.zip", ("ant/x.png", plain_png())), "ant/x.png", method=9
    )
    message = packing_refusal(config_of(archive, tmp_path / "packed"))
    assert "ant/x.png cannot be read (zip: " in message and "on_error=skip" in message


@pytest.mark.parametrize("claim", [None, 100], ids=["honest", "lying"])
def test_a_zip_bomb_is_not_unpacked(tmp_path, monkeypatch, claim):
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 20)
    archive = foreign(tmp_path / "z.zip", ("ant/x.png", bytes(100 << 20)))
    assert archive.stat().st_size < 200_000
    if claim:
        patched(archive, "ant/x.png", size=claim)
    tracemalloc.start()
    message = packing_refusal(config_of(archive, tmp_path / "packed"))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "ant/x.png cannot be read (" in message
    assert (
        "zip: " if claim else "104,857,600 bytes; one image may have at most 1,048,576"
    ) in message
    assert peak < 8 << 20


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_damage_in_other_methods_of_compression_is_one_clear_line(tmp_path, method):
    noise = np.random.default_rng(0).bytes(2000)
    archive = foreign(tmp_path / "z.zip", ("ant/x.png", plain_png() + noise), method=method)
    assert found(archive)[0] == ["ant", "bee"]
    data = bytearray(archive.read_bytes())
    at = data.index(b"ant/x.png") + 30
    data[at : at + 40] = bytes(40)
    archive.write_bytes(data)
    assert "ant/x.png cannot be read (" in packing_refusal(config_of(archive, tmp_path / "packed"))


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9, 0.999])
def test_a_zip_file_that_is_cut_off_is_refused(tmp_path, keep):
    archive = foreign(tmp_path / "z.zip")
    data = archive.read_bytes()
    archive.write_bytes(data[: int(keep * len(data))])
    message = packing_refusal(config_of(archive, tmp_path / "packed"))
    assert (
        "neither a folder nor a zip or tar file, or the file is truncated: get it again" in message
    )


def test_a_name_that_a_zip_file_has_twice_is_one_image(tmp_path):
    with pytest.warns(UserWarning, match="Duplicate name"):
        archive = foreign(tmp_path / "z.zip", ("ant/0.png", plain_png(77)))
    packed = pack(config_of(archive, tmp_path / "packed"))
    assert len(packed.images) == 8 and (packed.images[:, 0, 0, 0] == 77).sum() == 1


class Unflagged(zipfile.ZipInfo):
    """An entry whose name is bytes of which the zip file does not say how they are to be read."""

    __slots__ = ("raw",)

    def __init__(self, name, encoding, system=3):
        super().__init__(name)
        self.raw, self.create_system = name.encode(encoding), system

    def _encodeFilenameFlags(self):
        return self.raw, 0


def unflagged(path, encoding, *names, system=3, more=()):
    """A zip file of four images in each of the classes ``names``, and of ``more``, (name, data)."""
    with zipfile.ZipFile(path, "w") as out:
        for name in names:
            for i in range(4):
                out.writestr(Unflagged(f"{name}/{i}.png", encoding, system), plain_png(i))
        for entry, data in more:
            out.writestr(entry, data)
    return path


@pytest.mark.parametrize("names", [("café", "thé"), ("猫", "犬"), ("ant", "bée")])
def test_names_of_utf8_are_read_as_such_also_where_the_zip_file_does_not_say_so(
    tmp_path, caplog, names
):
    """As macOS writes them."""
    archive = unflagged(tmp_path / "z.zip", "utf-8", *names)
    assert found(archive)[0] == sorted(names) and not caplog.records
    packed = pack(config_of(archive, tmp_path / "packed"))
    root = class_folders(tmp_path / "own", dict.fromkeys(names, 4))
    assert packed.checksum == pack(config_of(root, tmp_path / "plain")).checksum


@pytest.mark.parametrize(
    ("encoding", "names", "read"),
    [("gbk", ("猫", "狗"), ["├¿", "╣╖"]), ("cp437", ("café", "thé"), ["café", "thé"])],
)
def test_names_that_are_no_utf8_and_may_be_misread_are_named_once(
    tmp_path, caplog, encoding, names, read
):
    archive = unflagged(tmp_path / "z.zip", encoding, *names)
    assert found(archive)[0] == read
    assert lines(caplog) == [
        f"{archive}: it does not say how its names are encoded, and 8 of them may be misread, the "
        f"first {read[0]}/0.png: where that is wrong, unpack it yourself and give the folder"
    ]


def test_names_are_checked_as_they_are_read(tmp_path):
    said = ("café/0.png", plain_png(77))  # as UTF-8
    archive = unflagged(tmp_path / "twice.zip", "utf-8", "café", "thé", more=[said])
    packed = pack(config_of(archive, tmp_path / "packed"))
    assert len(packed.images) == 8 and (packed.images[:, 0, 0, 0] == 77).sum() == 1
    archive = unflagged(tmp_path / "out.zip", "utf-8", "café", "../thé")
    assert "the entry ../thé/0.png points outside it" in refusal(archive)
    windows = unflagged(tmp_path / "w.zip", "utf-8", "own\\café", "own\\thé", system=0)
    assert found(windows)[0] == ["café", "thé"]


# --- tar files ---


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
@pytest.mark.parametrize("below", [".", "flowers"])
def test_a_tar_file_is_read_as_a_folder_is(tmp_path, kind, below):
    root = made(tmp_path / "own", *classes(count=4), **{"ant/" + "long" * 40 + ".png": picture(99)})
    plain = pack(config_of(root, folder=str(tmp_path / "plain")))
    archive = tarred(root, kind, below)
    packed = pack(config_of(archive, folder=str(tmp_path / "packed")), 3)
    assert packed.checksum == plain.checksum
    assert pack(config_of(archive, folder=str(tmp_path / "packed"))).checksum == plain.checksum


def added(path, *entries):
    """A tar file of two classes and of ``entries``, (TarInfo, data)."""
    with tarfile.open(path, "w") as out:
        for value, name in enumerate(classes()):
            data = picture(value)
            info = tarfile.TarInfo(name)
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
        for info, data in entries:
            info.size = len(data)
            out.addfile(info, io.BytesIO(data))
    return path


def entry(name, **fields):
    info = tarfile.TarInfo(name)
    for key, value in fields.items():
        setattr(info, key, value)
    return info


@pytest.mark.parametrize("name", ["../evil.jpg", "ant/../../evil.jpg", "/abs.jpg", "c:/evil.jpg"])
def test_a_tar_file_whose_names_lead_outside_is_refused(tmp_path, name):
    archive = added(tmp_path / "t.tar", (entry(name), picture(9)))
    assert f"the entry {name} points outside it" in refusal(archive)


def test_links_in_a_tar_file(tmp_path, caplog):
    hard = entry("bee/again.png", type=tarfile.LNKTYPE, linkname="ant/0.png")
    soft = entry("bee/soft.png", type=tarfile.SYMTYPE, linkname="/etc/passwd")
    folder = entry("ant/more", type=tarfile.SYMTYPE, linkname="../bee")
    archive = added(tmp_path / "t.tar", (hard, b""), (soft, b""), (folder, b""))
    source = read_dataset(config_of(archive))
    assert (
        lines(caplog)[0]
        == f"{archive}: the symbolic link ant/more is left out: archive what it points to"
    )
    items = {item.name: item for item in source.train + source.val}
    assert np.array_equal(
        items[f"{archive}/bee/again.png"].load(), items[f"{archive}/ant/0.png"].load()
    )
    with pytest.raises(
        OSError, match="a symbolic link, or not a file, in a tar file; archive what it points to"
    ):
        items[f"{archive}/bee/soft.png"].load()


@pytest.mark.parametrize("kind", ["", "gz", "bz2", "xz"])
@pytest.mark.parametrize("keep", [0.0, 0.3, 0.7])
def test_a_tar_file_that_is_cut_off_is_refused(tmp_path, kind, keep):
    archive = tarred(made(tmp_path / "own", *classes(count=8)), kind)
    data = archive.read_bytes()
    archive.write_bytes(data[: int(keep * len(data))])
    message = refusal(archive)
    assert (
        "neither a folder nor a zip or tar file, or the file is truncated" in message
        or "cannot be read" in message
    )


def test_a_tar_file_that_ends_between_two_files_or_is_damaged_there_is_refused(tmp_path):
    archive = added(tmp_path / "t.tar")
    data = archive.read_bytes()
    with tarfile.open(archive) as opened:
        last = opened.getmembers()[-1].offset
    for damaged in (data[:last], data[:last] + b"\xff" * 512 + data[last + 512 :]):
        archive.write_bytes(damaged)
        assert "or the file is truncated" in refusal(archive)


def test_a_file_in_a_tar_file_that_is_too_large_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(archives, "MAX_BYTES", 1 << 16)
    source = read_dataset(
        config_of(added(tmp_path / "t.tar", (entry("ant/x.png"), bytes(100_000))))
    )
    (item,) = (item for item in source.train + source.val if item.name.endswith("x.png"))
    with pytest.raises(OSError, match="100,000 bytes; one image may have at most 65,536"):
        item.load()
