"""Annotations in the layouts of CelebA, CelebAMask-HQ, Kaggle and JSON, and what is refused."""

import json
from pathlib import Path

import pytest

from clcae.evaluation.labels import read_labels

TABLE = "3\nBangs Smiling Young\n0.jpg  1 -1  1\n1.jpg -1  1 -1\n27.jpg -1 -1 1\n"
FORMS = {
    "list_attr_celeba.txt": TABLE,
    "kaggle.csv": "image_id,Bangs,Smiling,Young\n0.jpg,1,-1,1\n1.jpg,-1,1,-1\n27.jpg,-1,-1,1\n",
    "labels.json": json.dumps(
        {
            "0.jpg": {"Bangs": 1, "Smiling": -1, "Young": 1},
            "1.jpg": {"Bangs": -1, "Smiling": True, "Young": 0},
            "sub/27.jpg": {"Bangs": False, "Smiling": 0, "Young": 1},
        }
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_every_layout_says_the_same(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text(FORMS[name])
    names = ["0.png", "test/1.jpg", "27.png", "28.png"]
    smiling = read_labels(path, attribute="Smiling", names=names)
    assert smiling == {"0.png": 0, "test/1.jpg": 1, "27.png": 0}
    old = read_labels(path, attribute="not Young", names=names)
    assert old == {"0.png": 0, "test/1.jpg": 1, "27.png": 0}


@pytest.mark.parametrize(
    ("text", "attribute", "said"),
    [
        (TABLE, "Smile", r"has no attribute 'Smile': it has Bangs, Smiling, Young"),
        (TABLE.replace("1.jpg -1  1 -1", "1.jpg -1  1"), "Young", r"1\.jpg has 2 values"),
        (TABLE.replace("-1  1 -1", "-1  2 -1"), "Smiling", r"1\.jpg has the value '2'"),
        ('{"0.jpg": {"Smiling": NaN}}', "Smiling", r"holds NaN, expected finite"),
        ('{"0.jpg": {"Smiling": "1e9"}}', "Smiling", r"has the value '1e9'"),
        ('{"0.jpg": [1]}', "Smiling", r"0\.jpg has no 'Smiling': it has none"),
        ('{"0.jpg": {', "Smiling", "no file of attributes"),
        ("", "Smiling", "it has 0 lines"),
        ("a\nb\n", "Smiling", "no file of attributes|no attribute"),
        ("2\nSmiling\nx.jpg 1\ny.jpg -1\n", "Smiling", r"knows none of 2 .*x, y.* they are 0, 1"),
    ],
)
def test_mistakes_are_one_line(text: str, attribute: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text(text)
    with pytest.raises(ValueError, match=said) as caught:
        read_labels(path, attribute=attribute, names=["0.png", "1.png"])
    assert "labels.txt" in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_or_binary_file(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"attributes\.txt: no such file"):
        read_labels(tmp_path / "attributes.txt", attribute="Smiling", names=["0"])
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\xff\xfe\x00")
    with pytest.raises(ValueError, match="no file of attributes"):
        read_labels(tmp_path / "picture.png", attribute="Smiling", names=["0"])
