"""Training and use prepare an image alike: the row of a pack is what ``preprocess`` makes of its
file, whatever the settings and the kind of file.
"""

import io
import re
import resource
from dataclasses import fields, replace

import cv2
import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from PIL import Image

from experiments.cli import CONF
from tests.helpers import config_of, lines
from transferability.data.config import DatasetConfig
from transferability.data.pack import pack
from transferability.data.transforms import IMAGE_ERRORS, Preprocessing
from transferability.errors import UserError
from transferability.networks.sequential import SequentialNetwork
from transferability.runs.load import Run
from transferability.study.cells import parse
from transferability.study.spec import make_spec
from transferability.training.loader import TaskLoader

SMOOTH = np.asarray(
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize(
        (60, 44), Image.Resampling.BICUBIC
    )
)
CMYK = Image.merge("CMYK", [Image.fromarray(SMOOTH[..., i]) for i in (0, 1, 2, 1)])
GRAY16 = np.linspace(0, 40000, 44 * 60).reshape(44, 60).astype(np.uint16)
ALPHA = np.dstack([SMOOTH, SMOOTH[..., 0]])
DARK_OPAQUE = np.dstack([np.full((8, 8, 3), 200, np.uint16), np.full((8, 8), 65535, np.uint16)])
COLOR16 = SMOOTH.astype(np.uint16) * 200
SETTINGS = {
    "image_size": (16, 23),
    "resize": ("area", "linear", "bilinear", "bicubic"),
    "fit": ("squash", "crop"),
    "orientation": ("ignore", "apply"),
    "encoding": ("raw", "jpeg"),
    "jpeg_quality": (95, 60),
}
# settings that choose images, name them, or say where they are, and leave their pixels alone
NO_PIXELS = {
    *("kind", "name", "folder", "source", "on_error", "parts", "val_fraction", "test_fraction"),
    *("duplicates", "val_labels", "seed", "grammar", "class_level", "leave_out", "group"),
    *("labels", "columns", "pattern"),
}


def file_of(image, kind="PNG", **options):
    out = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(out, kind, **options)
    return out.getvalue()


def turned(kind, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    return file_of(SMOOTH, kind, exif=exif)


# name -> the file, the array that holds the same pixels (None: there is none), and by how many
# levels Pillow's decoder may differ from OpenCV's
FILES = {
    "plain.png": (file_of(SMOOTH), SMOOTH, 0),
    "plain.jpg": (file_of(SMOOTH, "JPEG", quality=95), None, 2),
    "gray.png": (file_of(SMOOTH[..., 0]), SMOOTH[..., 0], 0),
    "one bit.png": (file_of(Image.fromarray(SMOOTH).convert("1")), None, 0),
    "palette.png": (file_of(Image.fromarray(SMOOTH).quantize(17)), None, 0),
    "palette.gif": (file_of(Image.fromarray(SMOOTH).quantize(17), "GIF"), None, 0),
    "alpha.png": (
        file_of(np.dstack([SMOOTH, SMOOTH[..., 0]])),
        np.dstack([SMOOTH] * 2)[..., :4],
        0,
    ),
    "gray alpha.png": (file_of(Image.fromarray(SMOOTH).convert("LA")), None, 0),
    "alpha.tif": (file_of(ALPHA, "TIFF"), ALPHA, 0),
    "gray alpha.tif": (file_of(ALPHA[..., 2:], "TIFF"), SMOOTH[..., 2], 0),
    "alpha turned.tif": (file_of(ALPHA, "TIFF", tiffinfo={274: 6}), None, 0),
    "16 bits.png": (file_of(GRAY16), GRAY16, 0),
    "16 bits.tif": (file_of(GRAY16, "TIFF"), GRAY16, 0),
    "16 bits color.png": (cv2.imencode(".png", COLOR16[..., ::-1])[1].tobytes(), COLOR16, 0),
    "cmyk.jpg": (file_of(CMYK, "JPEG", quality=95), None, 0),
    "cmyk.tif": (file_of(CMYK, "TIFF"), None, 2),
    **{f"turned {i}.jpg": (turned("JPEG", i), None, 2) for i in range(2, 9)},
    "turned 6.png": (turned("PNG", 6), None, 0),
    "turned 6.webp": (turned("WEBP", 6), None, 2),
    "turned 6.tif": (turned("TIFF", 6), None, 0),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("kinds")
    for i, subset in enumerate(("train", "val")):
        for name in ("ant", "bee"):
            (root / subset / name).mkdir(parents=True)
            for file, (data, _, _) in FILES.items():
                if i == 0 and name == "ant":
                    (root / subset / name / file).write_bytes(data)
            (root / subset / name / "own.png").write_bytes(file_of(SMOOTH[:, :: 1 - 2 * i]))
    return root


def opened(dataset, config):
    """As load_run opens a run that was trained on ``dataset``."""
    network = replace(config.network, input_size=14)
    spec = make_spec(parse("baseall"), "all", dataset, network, config.recipe, 0)
    images = TaskLoader.of(spec, dataset, torch.device("cpu")).images_of
    return Run(spec, SequentialNetwork(spec.network, np.zeros(3, np.float32)), images, [])


def test_every_setting_of_a_dataset_either_changes_pixels_and_is_tested_here_or_does_not():
    assert {f.name for f in fields(DatasetConfig)} == SETTINGS.keys() | NO_PIXELS
    known = {f.name for f in fields(Preprocessing)}
    assert known == SETTINGS.keys() - {"jpeg_quality"}  # encoding says it, too


@pytest.mark.parametrize("setting", SETTINGS)
def test_what_is_preprocessed_is_what_was_packed(tmp_path, folder, config, setting):
    """Of a file at its path the very pixels; of what Pillow opened, and of arrays, those too but
    for what Pillow's own decoder makes of JPEG.
    """
    base = {"image_size": 20, "fit": "crop", "orientation": "apply", "encoding": "raw"}
    base["encoding"] = "jpeg" if setting == "jpeg_quality" else "raw"
    checksums = set()
    for value in SETTINGS[setting]:
        dataset = pack(config_of(folder, tmp_path / f"{value}", **base | {setting: value}))
        checksums.add(dataset.checksum)
        run = opened(dataset, config)
        rows = {p: run.preprocess(p)[0].numpy() for p in sorted((folder / "train").rglob("*.*"))}
        packed = sorted(image.tobytes() for image in dataset.images[: dataset.n_train])
        assert sorted(row.tobytes() for row in rows.values()) == packed, value
        for name, (data, array, most) in FILES.items():
            row = rows[folder / "train" / "ant" / name]
            found = run.preprocess(Image.open(io.BytesIO(data)))[0].numpy()
            most = most and (30 if dataset.encoding else most)
            assert np.abs(found.astype(int) - row).max() <= most, name
            assert array is None or np.array_equal(run.preprocess(array)[0], row), (value, name)
    assert len(checksums) == len(SETTINGS[setting]), "it changes pixels"


def test_what_pillow_loads_upright_is_not_turned_twice(folder):
    """Pillow turns a TIFF file when it loads it, and takes its tag away."""
    path = folder / "train" / "ant" / "turned 6.tif"
    for orientation, side in (("apply", (60, 44)), ("ignore", (44, 60))):
        preprocessing = Preprocessing(20, "bilinear", "squash", orientation)
        image = Image.open(path)
        found, asks = preprocessing(image)
        assert asks and np.array_equal(found, preprocessing(path)[0])
        upright = np.rot90(SMOOTH, 3) if orientation == "apply" else SMOOTH
        assert upright.shape[:2] == side and np.array_equal(found, preprocessing(upright.copy())[0])


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (np.zeros((8, 8, 3)), "an array of float64; uint8 and uint16 are"),
        (np.zeros((8, 8, 2), np.uint8), "an array of shape (8, 8, 2)"),
        (np.zeros((2, 8, 8, 3), np.uint8), "an array of shape (2, 8, 8, 3)"),
        (torch.zeros(8, 8, 3), "an array of torch.float32"),
        (Image.new("F", (8, 8)), "a floating-point image"),
        (Image.new("I", (8, 8), 70000), "an image of 32 bits per value"),
        (np.full((8, 8), 200, np.uint16), "16 bits per value, all below 256: of the highest 8"),
        (DARK_OPAQUE, "16 bits per value, all below 256: of the highest 8"),
        (Image.new("I", (8, 8), 200), "16 bits per value, all below 256: of the highest 8"),
    ],
)
def test_what_is_not_understood_is_refused_not_guessed(image, what):
    with pytest.raises(IMAGE_ERRORS) as error:
        Preprocessing(20)(image)
    assert what in str(error.value)


def test_a_damaged_file_is_named(tmp_path, folder, config):
    run = opened(pack(config_of(folder, tmp_path / "packed", image_size=20)), config)
    (tmp_path / "half.png").write_bytes(FILES["plain.png"][0][:900])
    with pytest.raises(UserError, match=r"half\.png is corrupt"):
        run.preprocess(tmp_path / "half.png")
    with pytest.raises(UserError, match=r"none\.png cannot be read \(No such file"):
        run.preprocess(tmp_path / "none.png")


# --- images that ask to be turned ---


def test_images_that_ask_to_be_turned_are_counted_and_the_setting_is_named(
    tmp_path, folder, caplog
):
    asked = config_of(folder, tmp_path / "ignored", image_size=20)
    assert pack(asked).meta["turned"] == 11 == pack(asked).meta["turned"]
    line = (
        "some: 11 of 30 images have an EXIF or TIFF tag that asks for rotation, and are packed as "
        "they are stored: dataset.orientation=apply rotates them"
    )
    assert lines(caplog).count(line) == 2, "when it is packed, and when it is asked for again"
    caplog.clear()
    caplog.set_level("INFO")
    applied = pack(replace(asked, folder=str(tmp_path / "applied"), orientation="apply"))
    assert applied.meta["turned"] == 11 and (
        "some: 11 of 30 images are rotated according to their tags (dataset.orientation=apply)"
        in lines(caplog)
    )


def test_the_presets_for_photographs_turn_them_and_those_of_the_paper_do_not():
    for name, wanted in (
        ("advice", "apply"),
        ("pretrained", "apply"),
        ("imagenet", "ignore"),
        ("tiny_imagenet", "ignore"),
        ("folder", "ignore"),
    ):
        with initialize_config_dir(str(CONF), version_base="1.3"):
            assert compose("config", [f"experiment={name}"]).dataset.orientation == wanted, name


def test_a_run_that_does_not_say_whether_its_images_were_turned_says_so_once(
    tmp_path, folder, config, caplog
):
    run = opened(pack(config_of(folder, tmp_path / "packed", image_size=20)), config)
    images = {"classes": run.classes, "image_size": 20, "resize": "area", "fit": "squash"}
    old = Run(run.spec, run.network, images, [])
    caplog.clear()
    turned, plain = (folder / "train" / "ant" / f for f in ("turned 6.jpg", "plain.jpg"))
    assert torch.equal(old.preprocess(plain), run.preprocess(plain)) and not caplog.records
    assert torch.equal(old.preprocess(turned, turned), run.preprocess(turned, turned))
    (line,) = lines(caplog)
    assert "was trained before runs kept dataset.orientation" in line


# --- images of extreme shapes ---


@pytest.fixture
def little_memory():
    """At most a gigabyte more than this process has already."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + (1 << 30), before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("resize", SETTINGS["resize"])
@pytest.mark.parametrize("shape", [(1, 65000), (65000, 1), (1, 1_000_000), (3, 400_000)])
def test_a_thin_image_takes_no_more_memory_than_another(little_memory, shape, resize):
    """A PNG file of some kilobytes; scaled whole it would have 10^10 pixels."""
    data = file_of(Image.new("RGB", shape[::-1], (9, 90, 200)))
    for fit in ("crop", "squash"):
        found = Preprocessing(108, resize, fit)(data)[0]
        assert found.shape == (108, 108, 3) and (found == (9, 90, 200)).all()


@pytest.mark.parametrize("resize", SETTINGS["resize"])
def test_the_middle_is_cut_out_at_the_place_where_it_would_be_taken(resize):
    """Of an image 12 times as long as wide: as if it had been scaled whole."""
    columns = np.linspace(0, 255, 720).astype(np.uint8)
    image = np.broadcast_to(columns[None, :, None], (60, 720, 3)).copy()
    whole = cv2.resize(image, (30 * 12, 30), interpolation=cv2.INTER_AREA)[:, 165:195]
    found = Preprocessing(30, resize, "crop")(image)[0]
    assert np.abs(found.astype(int) - whole).max() <= 1


def test_what_one_image_does_to_memory_or_opencv_is_that_images_fault(tmp_path, monkeypatch):
    """Whatever else it may be that needs more memory than there is: a message, and skip skips."""
    root = tmp_path / "own"
    for name in ("ant", "bee"):
        (root / name).mkdir(parents=True)
        for i in range(6):
            (root / name / f"{i}.png").write_bytes(file_of(SMOOTH + np.uint8(7 * i)))
    (root / "ant" / "big.png").write_bytes(file_of(np.zeros((700, 700, 3), np.uint8)))
    real, errors = cv2.resize, [MemoryError(), cv2.error("(-4) Insufficient memory")]
    errors[1].err = "Insufficient memory"

    whats = ("needs more memory than there is", "cannot be resized (OpenCV: Insufficient memory)")
    for error, what in zip(errors, whats, strict=True):

        def resize(image, *args, error=error, **named):
            if image.shape[0] == 700:
                raise error
            return real(image, *args, **named)

        monkeypatch.setattr(cv2, "resize", resize)
        with pytest.raises(UserError, match=re.escape(f"big.png {what}")):
            pack(config_of(root, tmp_path / "failed", image_size=20))
        packed = pack(config_of(root, tmp_path / what, image_size=20, on_error="skip"))
        assert packed.meta["skipped"] == {f"{root}/ant/big.png": what}
