"""From a source's words to the model's classes, without guessing."""

from __future__ import annotations

import unicodedata
from importlib.resources import as_file, files
from pathlib import Path

import pytest

from bagindex.errors import LabelError
from bagindex.labels import map_labels, read_class_map, read_classes
from bagindex_schemas.records import ClassRecord

CLASSES = (
    ClassRecord(class_id=0, name="tench", wnid="n01440764"),
    ClassRecord(class_id=1, name="great white shark", wnid="n01484850"),
    ClassRecord(class_id=2, name="caf\u00e9"),
)
DECOMPOSED = unicodedata.normalize("NFD", "caf\u00e9")


def write(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "list.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def names(path: Path) -> list[tuple[int, str, str | None]]:
    return [(record.class_id, record.name, record.wnid) for record in read_classes(path)]


def test_names_and_wnids() -> None:
    labels = ["great white shark", "n01440764", "tench", "tench"]
    assert map_labels(labels, CLASSES) == {"tench": 0, "n01440764": 0, "great white shark": 1}
    assert map_labels([], CLASSES) == {}


@pytest.mark.parametrize("label", ["caf\u00e9", DECOMPOSED])
@pytest.mark.parametrize("name", ["caf\u00e9", DECOMPOSED])
def test_letters_may_be_composed_or_not(label: str, name: str, tmp_path: Path) -> None:
    classes = (ClassRecord(class_id=0, name=name),)
    assert map_labels([label], classes) == {label: 0}
    mapping = read_class_map(write(tmp_path, f"source,class\n{label},tench\n"))
    assert map_labels([name], CLASSES, mapping) == {name: 0}


def test_a_name_goes_before_a_wnid() -> None:
    classes = (ClassRecord(class_id=0, name="b", wnid="a"), ClassRecord(class_id=1, name="a", wnid="c"))
    assert map_labels(["a", "b", "c"], classes) == {"a": 1, "b": 0, "c": 1}


@pytest.mark.parametrize("label", ["Tench", "tench ", "great_white_shark", "shark", "N01440764", "0", ""])
def test_no_label_is_guessed(label: str) -> None:
    with pytest.raises(LabelError, match="1 of 2 labels are not classes of the model") as caught:
        map_labels([label, "tench"], CLASSES)
    assert repr(label) in str(caught.value)
    assert "--class-map FILE" in str(caught.value)


def test_many_unknown_labels_are_counted() -> None:
    with pytest.raises(LabelError, match=r"12 of 13 labels .*'00', .*'05', … \(12 in all\); the model"):
        map_labels([f"{i:02d}" for i in range(12)] + ["tench"], CLASSES)


def test_class_map(tmp_path: Path) -> None:
    mapping = read_class_map(write(tmp_path, "\ufeffclass, source\r\ntench,Schleie\r\n,nothing\r\nn01484850,tench\r\n"))
    assert mapping == {"Schleie": "tench", "nothing": None, "tench": "n01484850"}
    found = map_labels(["Schleie", "nothing", "tench", "caf\u00e9"], CLASSES, mapping)
    assert found == {"Schleie": 0, "nothing": None, "tench": 1, "caf\u00e9": 2}


def test_class_map_to_what_the_model_does_not_know() -> None:
    mapping: dict[str, str | None] = {"Schleie": "tenhc", "Karpfen": "tenhc", "not in the source": "carp"}
    with pytest.raises(
        LabelError, match=r"--class-map names 'tenhc', but the model knows 'tench', 'great white shark'"
    ):
        map_labels(["Schleie", "Karpfen"], CLASSES, mapping)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("source,class\na,tench\nb,tench\na,tench\n", "line 4: 'a' is mapped twice"),
        (f"source,class\ncaf\u00e9,tench\n{DECOMPOSED},tench\n", "line 3: 'caf\u00e9' is mapped twice"),
        ("source,label\na,tench\n", "columns source,class; class is not there"),
        ("source,class\na\n", "line 2: 1 cells where the header has 2"),
        (b"source,class\n\xff,tench\n", "is not UTF-8 text"),
    ],
)
def test_bad_class_map(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_class_map(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tench\neel\n", [(0, "tench", None), (1, "eel", None)]),
        ("\ufefftench, Tinca tinca\r\n\r\n  eel\r\n", [(0, "tench, Tinca tinca", None), (1, "eel", None)]),
        ("name\ntench\neel", [(0, "tench", None), (1, "eel", None)]),
        ("Name,WNID\ntench,n01440764\neel,\n", [(0, "tench", "n01440764"), (1, "eel", None)]),
        ('"class_id","name"\n"0","tench, Tinca"\n"1","eel"\n', [(0, "tench, Tinca", None), (1, "eel", None)]),
        ("wnid , name,class_id\nn01440764, tench , 0\n,eel,1\n", [(0, "tench", "n01440764"), (1, "eel", None)]),
    ],
)
def test_class_list(tmp_path: Path, text: str, expected: list[tuple[int, str, str | None]]) -> None:
    assert names(write(tmp_path, text)) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "names no classes"),
        ("\n \n", "names no classes"),
        ("name,wnid\n", "names no classes"),
        ("tench\neel\ntench\n", "names a class twice: 'tench'"),
        (f"caf\u00e9\n{DECOMPOSED}\n", "names a class twice: 'caf\u00e9'"),
        ("name,wnid\na,n1\nb,n1\nc,\nd,\n", "gives a wnid to two classes: 'n1'"),
        ("name,wnid\ntench,n1\n,n2\n", "has a class without a name"),
        ("class_id,name\n0,tench\n2,eel\n", "class_id must count from 0, without gaps"),
        ("class_id,name\n1,tench\n2,eel\n", "class_id must count from 0, without gaps"),
        ("class_id,name\n1,tench\n0,eel\n", "in the order of the logits"),
        ("name,wnid\ntench,n1,n2\n", "line 2: 3 cells where the header has 2"),
        ("name,name\ntench,eel\n", "two columns called name"),
        (b"\xff\xfet\x00", "is not UTF-8 text"),
    ],
)
def test_bad_class_list(tmp_path: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        read_classes(write(tmp_path, text))


def test_no_class_list(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match=r"cannot read .*classes\.txt: No such file"):
        read_classes(tmp_path / "classes.txt")


def test_the_classes_of_imagenet(shared: Path) -> None:
    with as_file(files("bagindex_schemas") / "imagenet_classes.csv") as path:
        classes = read_classes(path)
        assert names(path) == names(shared / "reference" / "imagenet_classes.csv")
    assert len({record.name for record in classes}) == len({record.wnid for record in classes}) == len(classes) == 1000
    assert classes[0] == ClassRecord(class_id=0, name="tench", wnid="n01440764")
    assert map_labels(["n01440764", "tench", "n15075141"], classes) == {"n01440764": 0, "tench": 0, "n15075141": 999}
