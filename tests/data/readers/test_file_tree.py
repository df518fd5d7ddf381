"""Which files of a folder are images, which the system put there, and where links lead."""

import os
from collections import Counter

import pytest

from tests.helpers import (
    both,
    class_folders,
    classes,
    config_of,
    counts,
    found,
    lines,
    made,
    picture,
    refusal,
    tarred,
    write_plain,
    zipped,
)
from transferability.data.pack import pack

# --- what the system puts there ---

SYSTEM = [
    *(
        "ant/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
        "@eaDir/x/y.jpg",
        "#recycle/x.jpg",
        "$RECYCLE.BIN/S-1/x.jpg",
    ),
    *(
        "__MACOSX/ant/x.jpg",
        "bee/__MACOSX/x.jpg",
        ".ipynb_checkpoints/x.png",
        "ant/.ipynb_checkpoints/0.png",
    ),
    *(
        "System Volume Information/x.jpg",
        "lost+found/x.jpg",
        "ant/Thumbs.db",
        "bee/desktop.ini",
        "ant/._0.png",
    ),
]


@pytest.mark.parametrize("way", ["folder", "zip", "tar"])
def test_what_the_system_put_there_is_left_out_at_every_depth(tmp_path, caplog, way):
    plain = counts(made(tmp_path / "plain", *classes(count=6)))
    root = made(tmp_path / "own", *classes(count=6), *SYSTEM)
    source = {"folder": lambda: root, "zip": lambda: zipped(root), "tar": lambda: tarred(root)}[
        way
    ]()
    assert counts(source) == plain
    (line,) = lines(caplog)
    assert line.startswith(
        f"{source}: 13 files and folders made by the system or an editor are left out ("
    )
    assert "2 @eaDir" in line and "2 __MACOSX" in line


def test_what_the_system_put_there_is_left_out_inside_parts(tmp_path):
    root = made(
        tmp_path,
        *classes("train/", 4),
        *classes("val/", 2),
        *SYSTEM,
        "train/@eaDir/x.jpg",
        "val/ant/@eaDir/y.jpg",
    )
    (root / "ant").rename(root / ".ant")
    (root / "bee").rename(root / ".bee")
    assert counts(root) == [both(4), both(2), {}]


def test_what_systems_and_editors_hide_is_no_image(tmp_path):
    root = class_folders(tmp_path / "own", {"ant": 3, "bee": 3})
    plain = found(root)
    write_plain(root / ".ipynb_checkpoints" / "x.png")
    write_plain(root / "ant" / ".ipynb_checkpoints" / "000-checkpoint.png")
    (root / "ant" / "._000.png").write_bytes(b"\0\5\x16\7")
    (root / "ant" / "Thumbs.db").write_bytes(b"x")
    assert found(root) == plain
    write_plain(root / "__MACOSX" / "ant" / "x.png")
    assert found(zipped(root, tmp_path / "own.zip"))[0] == ["ant", "bee"]


# --- images by what they contain ---


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        *(
            (".gif", "GIF"),
            (".jpe", "JPEG"),
            (".jfif", "JPEG"),
            (".jpg_large", "JPEG"),
            (".avif", "AVIF"),
        ),
        *(
            ("", "JPEG"),
            ("", "PNG"),
            ("", "BMP"),
            ("", "GIF"),
            (".dat", "WEBP"),
            (".jpg~", "TIFF"),
            (".1", "PPM"),
        ),
        (".x", "JPEG2000"),
    ],
)
def test_images_are_known_by_what_they_contain(tmp_path, ending, kind):
    cats = {f"cat/{i}{ending}": picture(100 + i, kind) for i in range(3)}
    root = made(tmp_path / "own", *classes(), **cats)
    packed = pack(config_of(root, folder=str(tmp_path / "packed")))
    assert Counter(packed.labels.tolist()) == {0: 3, 1: 3, 2: 3}


def test_other_files_are_counted_and_texts_are_not_opened(tmp_path, caplog, monkeypatch):
    others = {
        "ant/x.pkl": b"\x80",
        "ant/LICENSE": b"free",
        "bee/x.pkl": b"\x80",
        "bee/x.txt": b"\xff\xd8\xff",
    }
    root = made(tmp_path, *classes(), **others)
    assert counts(root) == [both(2), both(1), {}]
    assert lines(caplog) == [
        f"{root}: 3 other files (2 *.pkl, 1 *) are not images and are left out"
    ]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["a.zip", "b.tar.gz"],
            "but archives: a.zip and 1 more; unpack them, or give one as dataset.source",
        ),
        (["a.pkl", "b.pkl", "notes"], "but 3 other files (2 *.pkl, 1 *)"),
        ([], "and no files"),
    ],
)
def test_a_source_without_images_says_what_it_has(tmp_path, names, message):
    (tmp_path / "own").mkdir()
    root = made(tmp_path / "own", **dict.fromkeys(names, b"PK"))
    assert refusal(root) == f"dataset.source={root} has no images in it, {message}"


def test_an_archive_in_an_archive_is_to_be_unpacked(tmp_path):
    root = made(tmp_path / "own", **{"n01440764.tar": b"x"})
    for archive in (zipped(root), tarred(root)):
        assert refusal(archive).endswith(
            "but archives: n01440764.tar; unpack all of it and give the folder"
        )


def test_a_source_that_is_neither_file_nor_folder_does_not_wait(tmp_path):
    os.mkfifo(tmp_path / "pipe.zip")
    for source in (tmp_path / "pipe.zip", "/dev/zero"):
        assert "neither a folder nor a zip or tar file" in refusal(source)
    for source in ("~nobody-of-this-name/x", "x" * 5000, "a\0b"):
        assert refusal(source).startswith("dataset.source=")


# --- links ---


def test_links_are_followed(tmp_path):
    counts = {"ant": 3, "bee": 1}
    class_folders(class_folders(tmp_path / "disk", counts, "train"), {"ant": 2, "bee": 1}, "val")
    (tmp_path / "here").mkdir()
    for name in ("train", "val"):
        (tmp_path / "here" / name).symlink_to(tmp_path / "disk" / name)
    names, train, val = found(tmp_path / "here")
    assert names == ["ant", "bee"] and len(train) == 4 and len(val) == 3


def test_links_never_lead_in_circles(tmp_path, caplog):
    root = class_folders(tmp_path / "own", {"ant": 4, "bee": 4})
    plain = found(root)
    (root / "ant" / "self").symlink_to(root / "ant")
    (root / "ant" / "up").symlink_to("..")
    (root / "bee" / "up").symlink_to(root)
    (root / "bee" / "knot").symlink_to("knot")
    assert found(root) == plain
    lines = sorted(r.getMessage().removeprefix(f"{root}/") for r in caplog.records)
    assert lines[1:] == [
        f"{at} is left out: it is a link to a folder that contains it"
        for at in ("ant/self", "ant/up", "bee/up")
    ]
    assert lines[0] == f"{root}: 1 other files (1 *) are not images and are left out"  # the knot


def test_two_folders_that_link_to_each_other_end(tmp_path):
    root = class_folders(tmp_path / "own", {"ant": 4, "bee": 4})
    (root / "ant" / "b").symlink_to(root / "bee")
    (root / "bee" / "a").symlink_to(root / "ant")
    names, train, val = found(root)
    # each through the link once more, and no deeper
    assert names == ["ant", "bee"] and len(train + val) == 16
