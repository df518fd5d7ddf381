"""Which column of a table says the file, the class and the subset: found, or refused with a setting
that works. Nothing is guessed that may be meant otherwise.
"""

import json
import random

import pytest

from tests.helpers import classes, composed, counts, flat, lines, made, refusal
from tests.spreadsheet import spreadsheet
from transferability.data.readers import tables
from transferability.data.readers.columns import columns_of, together
from transferability.data.readers.named_files import NamedFiles
from transferability.errors import UserError

FILES = [f"{i}.png" for i in range(40)]


def read(rows, *, name="t.csv", images=FILES, group=None, **stated):
    """Of each image what a table of ``rows`` says: class and subset."""
    data = rows
    if not isinstance(rows, bytes):
        data = "".join(",".join(map(str, row)) + "\n" for row in rows).encode()
    files = NamedFiles(list(images))
    rows = together(tables.parts_of(name, data), "", name, files.find)
    placed = [("", row) for row in rows]
    columns = columns_of(placed, stated, name, group, files.find)
    return {
        image: (columns.class_of(row), columns.subset and columns.subset.of(row))
        for _, row in placed
        if (image := files.find(row.get(columns.file, ""), ""))
    }


def kind(i):
    return ["cat", "dog"][i % 2]


def shuffled(head, row):
    order = list(range(40))
    random.Random(0).shuffle(order)
    return [head, *[row(place, i) for place, i in enumerate(order)]]


@pytest.mark.parametrize("head", [["", "file", "label"], ["id", "filename", "label"]])
def test_a_number_of_the_row_is_no_name_of_a_file(head):
    """As pandas writes its index: 0 would be the name of 0.png without its ending."""
    found = read(shuffled(head, lambda place, i: [place, f"{i}.png", kind(i)]))
    assert found == {f"{i}.png": (kind(i), None) for i in range(40)}
    plain = read(shuffled(head, lambda place, i: [place, f"{i}.png", kind(i)])[1:])
    assert plain == found, "without a row of names"


def test_two_columns_that_name_other_images_are_refused():
    rows = shuffled(["row", "id", "label"], lambda place, i: [place, i, kind(i)])
    with pytest.raises(UserError, match="which of row, id is the column of files") as error:
        read(rows)
    assert '"dataset.columns={file: NAME}"' in str(error.value)
    assert read(rows, file="id")["7.png"] == ("dog", None)
    # a number alone is a name where no other column is
    assert read([["id", "label"], *[[i, kind(i)] for i in range(40)]])["7.png"] == ("dog", None)
    assert read([["age", "id", "label"], *[[i % 9, f"x/{i}", kind(i)] for i in range(40)]])


def test_all_rows_say_what_a_column_is():
    """A table that is sorted: the test images, and the second class, come after 1,100 rows."""
    images = [f"{i}.png" for i in range(1300)]
    rows = [["image", "label", "split"]]
    rows += [[name, kind(i), "train" if i < 1100 else "test"] for i, name in enumerate(images)]
    found = read(rows, images=images)
    assert [found[f"{i}.png"][1] for i in (0, 1099, 1100)] == ["train", "train", "test"]
    rows = [["image", "kind", "camera"]]
    rows += [[name, "ab"[i >= 1100], "xy"[i % 2]] for i, name in enumerate(images)]
    with pytest.raises(UserError, match="which of kind, camera is the class"):
        read(rows, images=images)


def split(title, *values):
    rows = [["file", "label", title]]
    return rows + [[f"{i}.png", kind(i), values[i % len(values)]] for i in range(40)]


@pytest.mark.parametrize(
    ("title", "values", "means"),
    [
        ("split", ["train", "val", "test"], ["train", "val", "test"]),
        ("kind of image", ["Training", "PublicTest"], ["train", "test"]),
        ("is_valid", ["False", "True"], ["train", "val"]),
        ("is_train", ["1", "0"], ["train", "test"]),
        ("Partition", ["0", "1", "2"], ["train", "val", "test"]),
        ("split", ["train", "eval"], ["train", "test"]),
        ("split", ["train"], [None]),
    ],
)
def test_what_a_column_of_subsets_says(title, values, means):
    found = read(split(title, *values))
    assert {i: found[f"{i}.png"][1] for i in range(6)} == {
        i: means[i % len(means)] for i in range(6)
    }


@pytest.mark.parametrize(
    ("title", "values", "shown"),
    [
        ("split", ["train", "test", "extra"], "train, test, extra"),
        ("split", ["train", "test", ""], "train, test, nothing"),
        ("usage", ["TRAIN", "VALIDATION", "TEST", "UNASSIGNED"], "TRAIN, VALIDATION, TEST, UNASS"),
        ("x", ["train", "test", "other"], "train, test, other"),
        ("split", ["train", "holdout"], "train, holdout"),
    ],
)
def test_a_column_that_may_be_of_subsets_is_not_passed_over(title, values, shown):
    with pytest.raises(UserError, match=f"Column {title} has {shown}") as error:
        read(split(title, *values))
    assert f'"dataset.columns={{subset: {title}}}"' in str(error.value)
    assert '"dataset.columns={subset: null}"' in str(error.value)
    found = read(split(title, *values), subset=title)
    assert found["0.png"][1] == "train"
    assert found[f"{len(values) - 1}.png"][1] is None, "left out"
    assert read(split(title, *values), subset=None, **{"class": "label"})["1.png"][1] is None


@pytest.mark.parametrize(
    ("title", "values"), [("fold", ["1", "2", "3"]), ("split", ["tr", "te"]), ("set", ["a", "b"])]
)
def test_a_column_of_subsets_whose_values_are_unclear(title, values):
    with pytest.raises(UserError, match=f"Column {title} has") as error:
        read(split(title, *values))
    assert f"subset: {title}" not in str(error.value), "which would read nothing"
    with pytest.raises(UserError, match="write train, val and test into it"):
        read(split(title, *values), subset=title)
    assert len(read(split(title, *values), subset=None)) == 40
    assert len(read(split(title, *values), group=title)) == 40, "held out as a whole"


def test_flags_are_not_classes():
    rows = [["file", "kind", "is_train", "is_test"]]
    rows += [[f"{i}.png", kind(i // 3), int(i % 4 > 0), int(i % 4 == 0)] for i in range(40)]
    with pytest.raises(UserError, match="Column is_train has 0, 1"):
        read(rows)
    found = read(rows, subset="is_train")
    assert [found[f"{i}.png"] for i in (0, 1, 4)] == [
        *(("cat", "test"), ("cat", "train"), ("dog", "test")),
    ]
    rows = [["file", "kind", "male", "female"]]
    rows += [[f"{i}.png", kind(i // 3), i % 2, 1 - i % 2] for i in range(40)]
    with pytest.raises(UserError, match="which of male, female, kind is the class") as error:
        read(rows)
    assert "{class: [male, female]}" in str(error.value)
    assert read(rows, **{"class": ["male", "female"]})["0.png"][0] == "female"
    assert read(rows, **{"class": "kind"})["3.png"][0] == "dog"


def test_headers_that_are_not_whole():
    """Two columns of one name, none, and more cells than names; a cell of 0 and 1 that is empty."""
    rows = [["file", "label", "label"], *[[f"{i}.png", kind(i), i % 5] for i in range(40)]]
    with pytest.raises(UserError, match=r"which of x, x \(3\)"):
        read([row if i else ["file", "x", "x"] for i, row in enumerate(rows)])
    assert read(rows)["1.png"][0] == "dog"
    long = [["file", "label"], *[[f"{i}.png", kind(i), ""] for i in range(40)]]
    assert read(long)["1.png"][0] == "dog"
    hot = [
        ["file", "a", "b"],
        *[[f"{i}.png", i % 2, "" if i == 39 else 1 - i % 2] for i in range(40)],
    ]
    with pytest.raises(UserError, match="which of a, b is the class"):
        read(hot)
    first = [["x.png", "cat"], *[[f"{i}.png", kind(i)] for i in range(40)]]
    assert len(read(first)) == 40, "an image that is not there is no row of names"


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('file, label\n0.png, "cat, small"\n1.png, "dog"\n', ["cat, small", "dog"]),
        ("sep=;\nfile;label\n0.png;cat\n1.png;dog\n", ["cat", "dog"]),
        ("\n\nfile|label\n0.png|cat\n1.png|dog\n", ["cat", "dog"]),
        ("file,label\r0.png,cat\r1.png,dog\r", ["cat", "dog"]),
        ("\ufefffile;label\r\n0.png;cat\r\n1.png;dog\r\n", ["cat", "dog"]),
        ("FILE,label\n0.PNG,cat\n1.Png,dog\n", ["cat", "dog"]),
        ("file,label\n0.png,nan\n1.png,dog\n2.png,dog\n3.png,ant\n", ["", "dog"]),
    ],
)
def test_how_tables_are_written(text, wanted):
    for data in (text.encode(), text.removeprefix("\ufeff").encode("utf-16")):
        found = read(data)
        assert [found[f"{i}.png"][0] for i in range(2)] == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("# a comment\n0.png golden retriever\n1.png pug\n", ["golden retriever", "pug"]),
        ("0.png cat\n1.png dog\n\n", ["cat", "dog"]),
        ("a b.png cat\n1.png dog\n", ["cat", "dog"]),
    ],
)
def test_lists_of_files_and_classes(text, wanted):
    images = ["a b.png" if "a b" in text else "0.png", "1.png"]
    found = read(text.encode(), name="t.txt", images=images)
    assert [found[image][0] for image in images] == wanted


def test_bytes_that_are_no_utf8_are_refused(tmp_path):
    """Two classes of Latin-1 that differ in an accent were one."""
    text = "file,label\n" + "".join(f"{i}.png,caf{'éè'[i % 2]}\n" for i in range(12))
    root = made(tmp_path, *flat("", 12), **{"t.csv": text.encode("latin-1")})
    message = refusal(root, labels="t.csv")
    assert "dataset.labels=t.csv cannot be read (" in message and "text must be UTF-8" in message
    (root / "t.csv").write_text(text, encoding="utf-8")
    assert counts(root, labels="t.csv")[0] == {"café": 5, "cafè": 5}


def by_split(count=30):
    return {
        "train": {f"{i}.png": kind(i) for i in range(count)},
        "test": {f"{i}.png": kind(i) for i in range(count, 40)},
    }


@pytest.mark.parametrize(
    "value",
    [
        by_split(),
        {f"{i}.png": {"label": kind(i), "split": "train" if i < 30 else "test"} for i in range(40)},
        [{"f": f"{i}.png", "label": kind(i), "split": "train" if i < 30 else "test", "x": None}
         for i in range(40)],
    ],
)  # fmt: skip
def test_json_says_the_subset(value, monkeypatch):
    found = read(json.dumps(value).encode(), name="t.json")
    assert found == {f"{i}.png": (kind(i), "train" if i < 30 else "test") for i in range(40)}


def test_json_with_more_images_than_a_table_has_columns(monkeypatch):
    monkeypatch.setattr("transferability.data.readers.columns.MOST", 20)
    assert read(json.dumps(by_split()).encode(), name="t.json")["39.png"] == ("dog", "test")
    flat_one = json.dumps({f"{i}.png": kind(i) for i in range(40)}).encode()
    assert read(flat_one, name="t.json")["39.png"] == ("dog", None)
    with pytest.raises(UserError, match=r"file: x is none of 1, 2$"):
        read(flat_one, name="t.json", file="x")


def test_what_json_does_not_say_is_no_class():
    rows = [{"f": f"{i}.png", "label": [None, "cat", "dog", float("nan")][i % 4]} for i in range(8)]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    found = read(text.encode(), name="t.jsonl")
    assert [found[f"{i}.png"][0] for i in range(4)] == ["", "cat", "dog", ""]


def inline(text):
    return f'<c r="{{c}}{{r}}" t="inlineStr"><is><t>{text}</t></is></c>'


def test_a_spreadsheet_has_values_and_sheets_of_their_own():
    """A formula is not its value, how a word is pronounced no part of it, and each sheet has a row
    of names.
    """

    def numbered(i):
        return f'<c r="{{c}}{{r}}"><f>ROW()*10</f><v>{i % 2}</v></c>'

    shared = ["<t>猫</t><rPh><t>ネコ</t></rPh>", "<r><t>イ</t></r><r><t>ヌ</t></r>"]
    word = '<c r="{{c}}{{r}}" t="s"><v>{}</v></c>'
    first = [[inline("file"), inline("label"), inline("number")]]
    first += [[inline(f"{i}.png"), word.format(i % 2), numbered(i)] for i in range(20)]
    second = [[inline("number"), inline("label"), inline("file")]]
    second += [[numbered(i), word.format(i % 2), inline(f"{i}.png")] for i in range(20, 40)]
    legend = [[inline("code"), inline("meaning")], [inline("1"), inline("dogs")]]
    found = read(spreadsheet(first, second, legend, shared=shared), name="t.xlsx")
    assert found == {f"{i}.png": (["猫", "イヌ"][i % 2], None) for i in range(40)}
    found = read(spreadsheet(first, second, shared=shared), name="t.xlsx", **{"class": "number"})
    assert found["0.png"][0] == "0" and found["21.png"][0] == "1"


@pytest.mark.parametrize("book", ["xl/workbook22.xml", "xl/Workbook.xml", "book.xml"])
def test_a_spreadsheet_says_where_its_sheets_are_named(book):
    """Not all programs call that file xl/workbook.xml."""
    rows = [[inline("file"), inline("label")]]
    rows += [[inline(f"{i}.png"), inline(kind(i))] for i in range(22)]
    found = read(spreadsheet(rows, book=book), name="t.xlsx")
    assert found == {f"{i}.png": (kind(i), None) for i in range(22)}


@pytest.mark.parametrize("names", [("train", "test"), ("test", "train")])
def test_sheets_may_be_of_training_and_test_images(names):
    """Or of classes: then their names are."""
    halves = [range(20), range(20, 40)]
    sheets = [
        [[inline("file"), inline("label")], *([inline(f"{i}.png"), inline(kind(i))] for i in half)]
        for half in halves
    ]
    found = read(spreadsheet(*sheets, names=names), name="t.xlsx")
    assert found == {f"{i}.png": (kind(i), names[i // 20]) for i in range(40)}
    found = read(spreadsheet(*sheets, names=names), name="t.xlsx", subset=None)
    assert found == {f"{i}.png": (kind(i), None) for i in range(40)}
    found = read(spreadsheet(*sheets, names=("2019", "2020")), name="t.xlsx")
    assert found == {f"{i}.png": (kind(i), None) for i in range(40)}
    alone = [[[inline("file")], *([inline(f"{i}.png")] for i in half)] for half in halves]
    found = read(spreadsheet(*alone, names=("ants", "bees")), name="t.xlsx")
    assert found == {f"{i}.png": (["ants", "bees"][i // 20], None) for i in range(40)}
    three = spreadsheet(*sheets, sheets[0], names=("train", "test", "notes"))
    with pytest.raises(UserError, match="Column sheet has train, test, notes"):
        read(three, name="t.xlsx")


@pytest.mark.parametrize(
    "heads", [("file,label,grade", "file,grade,label"), ("file,cat,dog", "file,dog,cat")]
)
def test_tables_of_one_name_have_headers_of_their_own(tmp_path, heads):
    root = made(tmp_path, *flat("train/", 12), *flat("test/", 12))
    for part, head in zip(("train", "test"), heads, strict=True):
        rows = [head]
        for i in range(12):
            values = {"file": f"{i}.png", "label": kind(i), "grade": f"g{i // 6}"}
            values |= {"cat": 1 - i % 2, "dog": i % 2}
            rows.append(",".join(str(values[name]) for name in head.split(",")))
        (root / part / "m.csv").write_text("\n".join(rows))
    assert counts(root, labels="m.csv") == [{"cat": 5, "dog": 5}, {"cat": 1, "dog": 1},
                                            {"cat": 6, "dog": 6}]  # fmt: skip
    rows = "".join(f"{i}.png,a\n" for i in range(12))
    (root / "test" / "m.csv").write_text(f"name,kind\n{rows}")
    message = refusal(root, labels="m.csv")
    assert "train/m.csv has no column name, as the table of that name in another folder" in message
    assert sum(counts(root, labels="train/m.csv")[0].values()) == 10


@pytest.mark.parametrize("text", ["cat,dog", "cat;dog", "['cat', 'dog']", "cat dog", "cat|dog"])
def test_a_class_that_is_a_list_of_others_is_refused(tmp_path, text):
    rows = "".join(f"{i}.png\t{kind(i)}\n" for i in range(11)) + f"11.png\t{text}\n"
    root = made(tmp_path, *flat("", 12), **{"t.tsv": ("file\tlabel\n" + rows).encode()})
    said = "11.png has 2 classes (cat, dog): an image must have one"
    assert said in refusal(root, labels="t.tsv")
    if text.startswith("["):
        lists = rows.replace("\tcat", "\t['cat']").replace("\tdog", "\t['dog']")
        (root / "t.tsv").write_text("file\tlabel\n" + lists)
        assert said in refusal(root, labels="t.tsv")


def test_a_path_that_is_not_there_is_no_image_elsewhere(tmp_path):
    """train.csv names train/3.png, which is missing; there is a test/3.png."""
    rows = [f"train/{i}.png,{kind(i)}" for i in range(12)]
    root = made(tmp_path, *[f"train/{i}.png" for i in range(12) if i != 3], "test/3.png",
                **{"t.csv": ("file,label\n" + "\n".join(rows)).encode()})  # fmt: skip
    train, val, test = counts(root, labels="t.csv")
    assert (sum(train.values()) + sum(val.values()), test) == (11, {})
    files = NamedFiles(["photos/train/a.png", "photos/b/c.png"])
    assert files.find("train/a.png") == "photos/train/a.png"
    assert files.find("/home/me/data/train/a.png") == "photos/train/a.png"
    assert files.find("old/c.png") == "photos/b/c.png", "the folder was renamed"
    assert files.find("photos/c.png") == "photos/b/c.png"
    assert files.find("b/a.png") is None


def test_accents_that_macos_takes_apart_and_case():
    files = NamedFiles(["cafe\u0301.png", "B.JPG"])
    assert files.find("caf\u00e9.png") == "cafe\u0301.png"
    assert files.find("b.jpg") == "B.JPG" and files.find("b") == "B.JPG"


def test_what_a_column_leaves_out_is_counted(tmp_path, caplog):
    rows = [f"{i}.png,{kind(i)},{['train', 'test', 'extra'][i % 3]}" for i in range(12)]
    root = made(
        tmp_path, *flat("", 12), **{"t.csv": ("f,label,split\n" + "\n".join(rows)).encode()}
    )
    assert '"dataset.columns={subset: split}"' in refusal(root, labels="t.csv")
    train, val, test = counts(root, labels="t.csv", columns={"subset": "split"})
    assert [sum(part.values()) for part in (train, val, test)] == [2, 2, 4]
    assert f"{root}: 4 images are left out: their subset in t.csv is extra" in lines(caplog)


@pytest.mark.parametrize(
    ("beside", "why"),
    [
        (flat("holdout/", 6), "holdout/0.png lies beside train/ and is in no subset"),
        (["banner.png"], "banner.png lies beside test/, train/ and is in no subset"),
    ],
)
def test_labeled_images_beside_subsets_are_not_pooled(tmp_path, beside, why):
    names = [*flat("train/", 8)] + ([] if len(beside) > 1 else flat("test/", 8))
    names = [n.replace("train/", "train/a").replace("test/", "test/b") for n in names] + [*beside]
    rows = "\n".join(f"{name},{kind(i)}" for i, name in enumerate(names))
    root = made(tmp_path, *names, **{"t.csv": f"file,label\n{rows}".encode()})
    assert why in refusal(root, labels="t.csv")


def test_subsets_are_found_however_deep_the_labeled_images_lie(tmp_path):
    """Beside an image that no table names, and in the folders of several sites."""
    names = [f"ds/{p}/{p}{i}.png" for p in ("train", "test") for i in range(8)]
    rows = "\n".join(f"{name},{kind(i)}" for i, name in enumerate(names))
    root = made(tmp_path / "a", *names, "banner.png", **{"t.csv": f"file,label\n{rows}".encode()})
    train, val, test = counts(root, labels="t.csv")
    assert (sum(train.values()) + sum(val.values()), test) == (8, {"cat": 4, "dog": 4})
    sites = [
        f"site{s}/{p}/{s}{p}{i}.png" for s in "01" for p in ("train", "test") for i in range(4)
    ]
    rows = "\n".join(f"{name},{kind(i)}" for i, name in enumerate(sites))
    root = made(tmp_path / "b", *sites, **{"t.csv": f"file,label\n{rows}".encode()})
    train, val, test = counts(root, labels="t.csv")
    assert (sum(train.values()) + sum(val.values()), test) == (8, {"cat": 4, "dog": 4})


def test_a_setting_for_columns_is_read_from_the_command_line():
    words = ["dataset=folder", "dataset.name=x", "dataset.source=x", "dataset.labels=t.csv"]
    for text, value in (
        ("{subset: null}", {"subset": None}),
        ("{class: [a, b], file: f}", {"class": ["a", "b"], "file": "f"}),
    ):
        assert composed(*words, f"dataset.columns={text}").dataset.columns == value
    for text in ("{class: null}", "{subset: [a]}", "{file: 3}"):
        with pytest.raises(UserError, match="names of columns for class, file, subset"):
            composed(*words, f"dataset.columns={text}")


def test_of_classes_of_vehicles_one_may_be_called_train(tmp_path):
    root = made(tmp_path, *classes(names=("car", "train", "ship"), count=4))
    assert set(counts(root, pattern="([^/]+)/")[0]) == {"car", "train", "ship"}
