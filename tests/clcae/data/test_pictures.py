"""Commands over many files: what is listed, how it is named, what is skipped and why."""

import os
import threading
import time
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from PIL import Image

from clcae.data.pictures import Item, find_items
from clcae.data.threads import (
    AbandonedError,
    BackgroundWriter,
    batched,
    check_wanted,
    in_order,
)
from clcae.images import read_image
from clcae.photographs.passes import Account, read_ahead
from clcae.picture_file import EXPECTED, FORMATS


def touch(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4)).save(path) if path.suffix == ".png" else path.write_text("text")


def names(*inputs: str | Path, **keywords: Path) -> list[str]:
    return [item.name for item in find_items(inputs, **keywords)]


def test_folders_files_and_patterns(tmp_path: Path) -> None:
    touch(tmp_path, "b.png", "a.png", "holiday/anna.png", "notes.txt", ".hidden", ".cache/x.png")
    assert names(tmp_path) == ["a", "b", "notes", "holiday/anna"]
    assert names(tmp_path / "b.png", tmp_path / "a.png") == ["b", "a"]
    assert names(f"{tmp_path}/*.png") == ["a", "b"]
    assert names(f"{tmp_path}/**/anna.*") == ["anna"]
    assert names(tmp_path / "a.png", tmp_path, f"{tmp_path}/*.png") == [
        "a",
        "b",
        "notes",
        "holiday/anna",
    ]


def test_names_are_unique(tmp_path: Path) -> None:
    touch(tmp_path, "one/a.png", "one/a.txt", "two/a.png", "two/A.jpg")
    found = names(tmp_path / "one", tmp_path / "two")
    assert found == ["a_png", "a_txt", "A_jpg", "a_png_2"]
    touch(tmp_path, "three/x.y.png", "three/x.z.png")
    assert names(tmp_path / "three") == ["x.y", "x.z"]


def test_results_are_no_inputs(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "out/a.png")
    assert names(tmp_path, without=tmp_path / "out") == ["a"]
    with pytest.raises(FileNotFoundError, match="nothing but what lies in the folder of"):
        names(tmp_path / "out", without=tmp_path / "out")


def test_our_own_outputs_are_inputs_and_rename_nothing(tmp_path: Path) -> None:
    touch(tmp_path, "a.png", "a.json", "b.png", "b.safetensors", ".invert.json", "c.safetensors")
    touch(tmp_path, "Thumbs.db", "desktop.ini", ".DS_Store", "__MACOSX/a.png", "d.jpg", "d.txt")
    assert names(tmp_path) == ["a", "b", "c", "d", "d_txt"]
    items = find_items([tmp_path], inversions=True)
    assert [item.name for item in items] == ["a", "b", "b_safetensors", "c", "d", "d_txt"]
    assert names(tmp_path / "a.json") == ["a"]  # asked for by name


def test_links_pipes_and_names_that_are_not_utf_8_are_listed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.png")
    (tmp_path / "b.png").symlink_to("b.png")
    (tmp_path / os.fsdecode(b"c\xff.png")).write_bytes(b"")
    items = find_items([tmp_path])
    assert [item.name for item in items] == ["a", "b", "c\\xff"]
    account = Account()
    assert not list(read_ahead(items, read_image, account)) and len(account.skipped) == 3


def test_nothing_found(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"absent\.png: no such file"):
        names(tmp_path / "absent.png")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty: no file in it"):
        names(tmp_path / "empty")


def test_photographs_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("not a picture")
    Image.new("L", (20000, 30)).save(tmp_path / "wide.png")
    Image.new("1", (16000, 12000)).save(tmp_path / "bomb.png")
    Image.new("1", (16000, 7000)).save(tmp_path / "large.png")
    good = tmp_path / "good.png"
    Image.new("RGB", (5, 4), "white").save(good)
    (tmp_path / "phone.png").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    (tmp_path / "short.png").write_bytes(good.read_bytes()[:-30])
    reasons = {
        "empty": "an empty file",
        "text": "not a picture",
        "wide": "20000 x 30 pixels; expected at most 16384 a side",
        "bomb": r"16000 x 12000 pixels; .* and 89 megapixels.*CLCAE_MAX_MEGAPIXELS=193",
        "large": r"16000 x 7000 pixels; .*CLCAE_MAX_MEGAPIXELS=113",
        "phone": "a HEIC picture, which needs a reader: convert it",
        "short": "cannot be read",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=reason) as refused:
            read_image(tmp_path / f"{name}.png")
        assert "\n" not in str(refused.value)
        assert name in ("wide", "bomb", "large") or str(refused.value).endswith(EXPECTED)
    assert all(kind.replace("PPM", "PNM") in EXPECTED.upper() for kind in FORMATS if kind != "HEIF")
    assert torch.equal(read_image(good), torch.ones(3, 4, 5))


def test_reading_ahead_keeps_the_order_and_lists_what_fails(
    capsys: pytest.CaptureFixture[str],
) -> None:
    held, most, lock = 0, 0, threading.Lock()

    def read(path: Path) -> str:
        nonlocal held, most
        if path.name.startswith("bad"):
            raise ValueError(f"{path}: broken\nin two lines")
        with lock:
            held += 1
            most = max(most, held)
        return path.name.upper()

    items = [Item(Path(f"bad{i}" if i % 7 == 3 else f"x{i}"), f"x{i}") for i in range(50)]
    account, seen = Account(), []
    for item, text in read_ahead(items, read, account, ahead=5):
        with lock:
            held -= 1
        assert text == item.name.upper()
        seen.append(item.name)
        account.done.append(item.name)
    assert seen == [item.name for item in items if not item.path.name.startswith("bad")]
    assert most <= 5 + 2 and account.report() == 1
    assert account.skipped[0] == (Path("bad3"), "broken\nin two lines")
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["43 done, 7 skipped:", "  bad3: broken in two lines"] and len(lines) == 8


def test_an_account_without_faults(capsys: pytest.CaptureFixture[str]) -> None:
    assert Account(done=["a"], kept=["b", "c"]).report() == 0
    expected = "1 done, 2 finished before (--overwrite does them again)\n"
    assert capsys.readouterr().out == expected


def test_writes_settle_in_order_and_an_error_is_raised() -> None:
    seen: list[int] = []
    with BackgroundWriter(threads=2, pending=3) as writer:
        for index in range(9):
            writer.add(lambda i=index: i, lambda future: seen.append(future.result()))
    assert seen == list(range(9))
    with pytest.raises(OSError, match="full"), BackgroundWriter(threads=1, pending=1) as writer:
        writer.add(lambda: Path("/nowhere/full").read_text())


def test_running_work_ends_where_its_result_is_not_waited_for() -> None:
    begun, ended = threading.Event(), threading.Event()

    def work(_: int) -> None:
        begun.set()
        try:
            while True:
                check_wanted()
                time.sleep(0.001)
        finally:
            ended.set()

    results = in_order(range(3), work, threads=1, ahead=0)
    assert isinstance(results, Generator)
    _, future = next(results)
    assert begun.wait(timeout=60) and not ended.is_set()
    results.close()
    assert ended.is_set() and isinstance(future.exception(), AbandonedError)
    check_wanted()  # of no pool


def test_heavy_elements_are_few_at_a_time() -> None:
    asked: list[int] = []
    weights = {"threads": 2, "ahead": 9, "weight": lambda i: 40 if i % 2 else 0, "heaviest": 100}
    for seen, future in in_order(range(20), lambda i: asked.append(i), **weights):  # type: ignore[arg-type]
        future.result()
        assert sum(i % 2 for i in asked if i >= seen) <= 3
    assert sorted(asked) == list(range(20))
    assert list(batched([3, 3, 3, 9, 1], 3, weight=int, heaviest=7)) == [[3, 3], [3], [9], [1]]


def test_batches() -> None:
    assert list(batched(range(5), 2)) == [[0, 1], [2, 3], [4]]
    assert list(batched([], 2)) == []
