"""Faults of one file stay with it, those of the disk end the command; nothing is left behind."""

import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from small_methods import SIDE

from clcae.files import sha256
from clcae.images import to_uint8
from clcae.methods.inversion_file import load_inversion
from clcae.photographs import passes, reader
from clcae.photographs.results import shared
from clcae.portraits import PortraitImages
from scripts.align import main as align
from scripts.edit import main as edit
from scripts.invert import main as invert

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    images = to_uint8(PortraitImages(split="test", size=SIDE).batch(list(range(6))).images)
    for index, pixels in enumerate(images.permute(0, 2, 3, 1).numpy()):
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{index}.png")
    return tmp_path / "photos"


def arguments_of(script: str, method: Path) -> list[str]:
    if script == "align":
        return ["--device", "cpu"]
    more = ["--edit", "a=1", "--directions", str(method.parent / "directions.safetensors")]
    return ["--method", str(method), *(more if script == "edit" else [])]


def run(script: str, method: Path, *arguments: object) -> int:
    main = {"align": align, "edit": edit, "invert": invert}[script]
    return main([*map(str, arguments), *arguments_of(script, method)])


def start(script: str, method: Path, *arguments: object, limit: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, str(ROOT / "scripts" / f"{script}.py"), *map(str, arguments)]
    return subprocess.Popen(
        [*command, *arguments_of(script, method)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: limit and resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)),
    )


@pytest.mark.parametrize("script", ["align", "invert", "edit"])
def test_names_that_are_long_or_not_utf8(
    script: str, method: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    names = [
        b"n" * 250 + b".jpg",
        b"m" * 240 + b".jpg",
        b"caf\xe9.jpg",
        b"two\nlines.jpg",
        b"z.jpg",
    ]
    for name in names:
        Image.fromarray(astronaut()).save(Path(os.fsdecode(os.fsencode(photos) + b"/" + name)))
    (photos / "k").symlink_to("k")
    status = run(script, method, photos, "--out", tmp_path / "out")
    out, err = capsys.readouterr()
    made = {path.stem for path in (tmp_path / "out").glob("*.png")}
    assert {"z", "m" * 240} <= made and len(made) >= 4 and status == 1
    too_long = script == "invert"  # .safetensors does not fit behind the longest name
    assert (out + err).count("File name too long") == too_long and "Traceback" not in err
    if script == "invert":
        for path in (tmp_path / "out").glob("*.safetensors"):
            load_inversion(path)
    run(script, method, photos, "--out", tmp_path / "out")
    assert f"{len(made)} finished before" in capsys.readouterr().err


@pytest.mark.parametrize("script", ["align", "invert", "edit"])
def test_what_is_refused_is_not_read_whole(
    script: str, method: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "photos").mkdir()
    Image.new("1", (16000, 7000)).save(tmp_path / "photos" / "large.png")
    Image.fromarray(astronaut()).save(tmp_path / "photos" / "good.png")
    digested = []

    def counted(path: Path) -> str:
        digested.append(path.name)
        return sha256(path)

    monkeypatch.setattr(reader, "sha256", counted)
    assert run(script, method, tmp_path / "photos", "--out", tmp_path / "out") == 1
    assert digested == ["good.png"] and (tmp_path / "out" / "good.png").exists()


@pytest.mark.parametrize("script", ["align", "invert"])
def test_a_file_that_changes_while_it_is_read(
    script: str,
    method: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    Image.fromarray(astronaut()).save(tmp_path / "photo.png")

    def changing(path: Path) -> str:
        Image.new("RGB", (64, 64)).save(path)
        return sha256(path)

    monkeypatch.setattr(reader, "sha256", changing)
    assert run(script, method, tmp_path / "photo.png", "--out", tmp_path / "out") == 1
    assert "the file changed while it was read" in capsys.readouterr().err
    assert not list((tmp_path / "out").glob("*.png"))


def test_memory_for_one_picture(
    method: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import scripts.invert

    compute = scripts.invert._compute
    mean = torch.tensor(0.0)

    def failing(method, cutouts):  # the batch of four, and one picture
        if len(cutouts) > 1 or cutouts[0].image.mean() == mean:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return compute(method, cutouts)

    Image.new("RGB", (SIDE, SIDE), (255, 255, 255)).save(photos / "3.png")
    mean = torch.tensor(1.0)
    monkeypatch.setattr(scripts.invert, "_compute", failing)
    assert run("invert", method, photos, "--out", photos.parent / "out", "--batch-size", 4) == 1
    err = capsys.readouterr().err
    assert "5 done, 1 skipped" in err and "3.png: CUDA out of memory." in err

    monkeypatch.setattr(scripts.invert, "_compute", lambda *_: failing(None, [None, None]))
    assert run("invert", method, photos, "--out", photos.parent / "all") == 1
    err = capsys.readouterr().err
    assert err == "invert.py: out of memory: give a smaller --batch-size, or another --device\n"


def test_memory_while_one_is_written(
    method: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import scripts.invert

    write = scripts.invert.write_png

    def failing(picture, path, **more):
        if path.name.startswith(".2.png"):
            raise MemoryError
        write(picture, path, **more)

    monkeypatch.setattr(scripts.invert, "write_png", failing)
    out = photos.parent / "out"
    assert run("invert", method, photos, "--out", out) == 1
    assert "5 done, 1 skipped" in capsys.readouterr().err
    assert not (out / "2.safetensors").exists() and not list(out.glob("*.partial"))


def test_our_own_faults_are_not_hidden(
    method: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import scripts.invert

    def broken(*_: object) -> None:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(scripts.invert, "_compute", broken)
    with pytest.raises(RuntimeError, match="mat1"):
        run("invert", method, photos, "--out", photos.parent / "out")


@pytest.mark.parametrize("script", ["align", "invert", "edit"])
def test_a_full_disk_ends_the_command(script: str, method: Path, photos: Path) -> None:
    for path in photos.glob("*.png"):
        Image.fromarray(astronaut()).save(path)
    out = photos.parent / "out"
    process = start(script, method, photos, "--out", out, limit=1500)
    said, error = process.communicate(timeout=120)
    assert process.returncode == 1 and said == ""
    *_, line = error.splitlines()  # edit.py may have warned of strong edits before
    assert line.startswith(f"{script}.py: [Errno 27] File too large: '{out}")
    assert error.count("Errno") == 1 and "partial" not in line
    assert not list(out.rglob("*.partial")) and not list(out.rglob("*.png"))


def test_a_read_only_disk_ends_the_command(
    method: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import scripts.edit  # noqa: F401
    from clcae.photographs import edited

    def failing(picture, path, **more):
        raise OSError(30, "Read-only file system", str(path))

    monkeypatch.setattr(edited, "write_png", failing)
    assert run("edit", method, photos, "--out", photos.parent / "out") == 1
    printed = capsys.readouterr()
    assert "Read-only file system" in printed.err and printed.err.count("\n") == 1
    assert {28, 30} <= passes.UNWRITABLE


def test_leftovers_are_collected_and_nothing_else(method: Path, photos: Path) -> None:
    out = photos.parent / "out"
    (out / "sub").mkdir(parents=True)
    ours = [".1.png.0123abcd.partial", "sub/.a.safetensors.0123abcd.partial"]
    ours += ["..1.png.0123abcd.partial.89ef0123.partial", ".invert.json.0123abcd.partial"]
    theirs = [".1.png.partial", "1.png.0123abcd.partial", ".notes.0123abcd.partial", "my.tmp"]
    theirs += [".last.pt.0123abcd.partial", ".1.png.0123ABCD.partial"]
    with shared(out):  # another command is at work here
        for name in ours + theirs:
            (out / name).write_text("x")
        (out / "sub" / ".2.png.0123abcd.partial").mkdir()
        assert run("invert", method, photos, "--out", out) == 0
        assert all((out / name).exists() for name in ours + theirs)
    assert run("align", method, photos, "--out", out) in (0, 1)
    assert [name for name in ours if (out / name).exists()] == []
    assert all((out / name).exists() for name in theirs)


def test_two_commands_at_once(method: Path, photos: Path) -> None:
    out = photos.parent / "out"
    both = [start("invert", method, photos, "--out", out) for _ in range(2)]
    for process in both:
        assert process.communicate(timeout=120)[1] == "" and process.returncode == 0
    assert run("invert", method, photos, "--out", photos.parent / "expected") == 0
    expected = sorted((photos.parent / "expected").iterdir())
    assert sorted(path.name for path in out.iterdir()) == [path.name for path in expected]
    for path in expected:
        if path.suffix == ".png":
            assert (out / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("script", ["invert", "edit"])
def test_killed_at_any_moment(script: str, method: Path, photos: Path) -> None:
    content = [path.read_bytes() for path in sorted(photos.iterdir())]
    for index in range(120):
        (photos / f"{index:03d}.png").write_bytes(content[index % len(content)])
    expected, out = photos.parent / "expected", photos.parent / "out"
    more = ["--batch-size", "1"]  # so that it does not matter in which batch a picture is
    assert run(script, method, photos, "--out", expected, *more) == 0
    rng = random.Random(0)
    for _ in range(4):
        process = start(script, method, photos, "--out", out, *more)
        while process.poll() is None and not list(out.glob(".*.jsonl")):
            time.sleep(0.01)
        time.sleep(rng.random() * 0.4)
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert run(script, method, photos, "--out", out, *more) == 0
    assert {path.name for path in out.iterdir()} == {path.name for path in expected.iterdir()}
    for path in expected.iterdir():
        if path.suffix in (".png", ".safetensors"):
            assert (out / path.name).read_bytes() == path.read_bytes()
    lines = (out / f".{script}.jsonl").read_text().split("\n")[1:]
    assert {json.loads(line)["name"] for line in lines} == {path.stem for path in photos.iterdir()}
