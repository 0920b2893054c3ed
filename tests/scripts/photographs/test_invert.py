"""Inverting files: what is written, skipped, kept after a stop, and said of mistakes."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_methods import (
    SIDE,
    small_clcae,
    small_e4e,
    small_styleres,
    write_directions,
    write_method,
)

import clcae
from clcae.images import read_image, to_uint8
from clcae.methods.inversion_file import load_inversion
from clcae.portraits import PortraitImages
from clcae.weight_file import weights_digest
from scripts.edit import main as edit
from scripts.invert import main

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture(scope="module")
def method_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_method(small_clcae(), tmp_path_factory.mktemp("method") / "small.safetensors")


def portraits(count: int, size: int = SIDE) -> list[Image.Image]:
    images = PortraitImages(split="test", size=size).batch(list(range(count))).images
    pixels = to_uint8(images).permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(each) for each in pixels]


def write_portraits(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for index, picture in enumerate(portraits(count)):
        picture.save(folder / f"{index:03d}.png")
    return folder


def invert(method_file: Path, *arguments: object) -> int:
    return main([*map(str, arguments), "--method", str(method_file)])


def times(folder: Path) -> dict[str, int]:
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {file.relative_to(folder).as_posix(): file.stat().st_mtime_ns for file in files}


def records(out: Path) -> list[str]:
    return (out / ".invert.jsonl").read_text().split("\n")[1:]


def test_results_are_those_of_the_library(
    method_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_portraits(tmp_path / "photos", 5)
    (photos / "more").mkdir()
    (photos / "004.png").rename(photos / "more" / "anna.png")
    assert invert(method_file, photos, "--out", tmp_path / "out", "--batch-size", 2) == 0
    out, err = capsys.readouterr()
    assert err == "" and "5 done" in out and "5 images in " in out
    method = clcae.load_method(method_file)
    for name in ("000", "001", "002", "003", "more/anna"):
        image = read_image(photos / f"{name}.png")[None]
        with torch.inference_mode():
            expected = method.invert(image)
            picture = method.synthesize(expected)
        inversion, origin = load_inversion(tmp_path / "out" / f"{name}.safetensors")
        torch.testing.assert_close(inversion.codes, expected.codes)
        torch.testing.assert_close(inversion.feature, expected.feature)
        assert torch.equal(inversion.context["images"], image)
        written = read_image(tmp_path / "out" / f"{name}.png")
        assert (written - picture[0].clamp(-1, 1)).abs().max() <= 1 / 127.5
        assert origin.picture == Path(f"{name}.png").name and origin.picture_size == (SIDE, SIDE)
        assert origin.maker.source == "small.safetensors" and origin.maker.output == "F"
        assert origin.maker.sha256 == weights_digest(method)
        assert origin.crop == "centre"
        assert origin.quad == ((-0.5, -0.5), (-0.5, 31.5), (31.5, 31.5), (31.5, -0.5))


def test_other_sizes_are_cropped_in_the_middle(method_file: Path, tmp_path: Path) -> None:
    inner = portraits(1)[0]
    wide = Image.new("RGB", (SIDE + 20, SIDE), "red")
    wide.paste(inner, (10, 0))
    inner.save(tmp_path / "inner.png")
    wide.save(tmp_path / "wide.png")
    large = inner.resize((SIDE * 3, SIDE * 3), Image.Resampling.NEAREST)
    large.save(tmp_path / "large.png")
    assert invert(method_file, *tmp_path.glob("*.png"), "--out", tmp_path / "out") == 0
    images = {
        name: load_inversion(tmp_path / "out" / f"{name}.safetensors")
        for name in ("inner", "wide", "large")
    }
    expected = images["inner"][0].context["images"]
    assert torch.equal(images["wide"][0].context["images"], expected)
    assert images["wide"][1].quad[0] == (9.5, -0.5) and images["wide"][1].picture_size == (32, 52)
    # With antialiasing, three equal pixels in a row become about the one they were.
    assert (images["large"][0].context["images"] - expected).abs().mean() < 0.05


def test_a_method_that_reads_no_squares(tmp_path: Path) -> None:
    method_file = write_method(small_clcae(image_size=[24, 32]), tmp_path / "cars.safetensors")
    portraits(1, size=48)[0].save(tmp_path / "a.png")
    assert invert(method_file, tmp_path / "a.png", "--out", tmp_path / "out") == 0
    inversion, origin = load_inversion(tmp_path / "out" / "a.safetensors")
    assert inversion.context["images"].shape == (1, 3, 24, 32)
    assert origin.quad[0] == (-0.5, 5.5) and origin.quad[2] == (47.5, 41.5)


def test_every_kind_of_picture(method_file: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    upright = portraits(1)[0]
    grey, cmyk = upright.convert("L"), upright.convert("CMYK")
    clear = upright.convert("RGBA")
    clear.paste((10, 20, 30, 0), (0, 0, SIDE, 8))
    on_white = upright.copy()
    on_white.paste("white", (0, 0, SIDE, 8))
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees clockwise
    upright.rotate(90).save(photos / "exif.png", exif=exif)
    grey.save(photos / "grey.png")
    cmyk.save(photos / "cmyk.tif")
    clear.save(photos / "alpha.png")
    Image.fromarray(np.array(grey).astype(np.uint16) * 257).save(photos / "deep.png")
    expected = {
        "exif": upright,
        "grey": grey.convert("RGB"),
        "cmyk": cmyk.convert("RGB"),
        "alpha": on_white,
        "deep": grey.convert("RGB"),
    }
    assert invert(method_file, photos, "--out", tmp_path / "out") == 0
    for name, picture in expected.items():
        inversion, _ = load_inversion(tmp_path / "out" / f"{name}.safetensors")
        pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1)
        assert torch.equal(to_uint8(inversion.context["images"])[0], pixels), name


def test_what_cannot_be_used_is_listed(
    method_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_portraits(tmp_path / "photos", 3)
    (photos / "corrupt.png").write_bytes((photos / "000.png").read_bytes()[:200])
    (photos / "notes.txt").write_text("no picture")
    (photos / "empty.jpg").touch()
    Image.new("L", (20000, 30)).save(photos / "wide.png")
    assert invert(method_file, photos, "--out", tmp_path / "out") == 1
    _, err = capsys.readouterr()
    lines = err.splitlines()
    assert lines[0] == "3 done, 4 skipped:"
    assert len(lines) == 5
    for name, words in (
        ("corrupt.png", "cannot be read"),
        ("notes.txt", "not a picture"),
        ("empty.jpg", "an empty file"),
        ("wide.png", "20000 x 30 pixels"),
    ):
        assert [words in line for line in lines[1:] if f"{photos / name}: " in line] == [True]
    written = sorted(path.name for path in (tmp_path / "out").iterdir())
    good = [f"00{i}.{suffix}" for i in range(3) for suffix in ("png", "safetensors")]
    assert written == [".invert.json", ".invert.jsonl", *good]


def test_finished_files_are_left_alone(
    method_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = write_portraits(tmp_path / "photos", 4), tmp_path / "out"
    assert invert(method_file, photos, "--out", out) == 0
    before = times(out)
    (out / "001.png").unlink()
    (out / "002.safetensors").unlink()
    capsys.readouterr()
    assert invert(method_file, photos, "--out", out) == 0
    assert "2 done, 2 finished before" in capsys.readouterr().out
    after = times(out)
    changed = {name for name in before if after[name] != before[name]} - {".invert.jsonl"}
    assert changed == {"001.png", "001.safetensors", "002.png", "002.safetensors"}
    assert invert(method_file, photos, "--out", out, "--overwrite") == 0
    redone = times(out)
    assert all(redone[name] != after[name] for name in after)


def test_a_folder_of_other_settings_is_not_mixed(
    method_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = write_portraits(tmp_path / "photos", 1), tmp_path / "out"
    assert invert(method_file, photos, "--out", out) == 0
    capsys.readouterr()
    assert invert(method_file, photos, "--out", out, "--output", "W") == 1
    error = capsys.readouterr().err
    assert "other settings (output)" in error and error.count("\n") == 1
    assert invert(method_file, photos, "--out", out, "--output", "W", "--overwrite") == 0
    assert load_inversion(out / "000.safetensors")[0].feature is None
    claimed = out / ".invert.json"
    claimed.write_text(json.dumps({**json.loads(claimed.read_text()), "precision": "bfloat16"}))
    capsys.readouterr()
    assert invert(method_file, photos, "--out", out, "--output", "W") == 1
    assert "other settings (precision)" in capsys.readouterr().err  # which these do not have


def test_stopped_and_run_again(method_file: Path, tmp_path: Path) -> None:
    photos, out = write_portraits(tmp_path / "photos", 1), tmp_path / "out"
    content = (photos / "000.png").read_bytes()
    count = 800  # more than are done between a look at the folder and the signal
    for index in range(1, count):
        (photos / f"{index:03d}.png").write_bytes(content)
    command = [sys.executable, str(ROOT / "scripts" / "invert.py"), str(photos)]
    command += ["--method", str(method_file), "--out", str(out), "--batch-size", "1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        # What runs in the background of a shell ignores the signal, and so would its children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    deadline = time.monotonic() + 60
    while not len(list(out.glob("*.safetensors"))) > 5:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.002)
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "invert.py: stopped; the same command goes on from here\n"
    assert not list(out.glob("*.partial")) and not list(out.glob(".*.partial"))
    finished = {json.loads(line)["name"] for line in records(out)}
    assert 0 < len(finished) < count
    before = times(out)
    assert invert(method_file, photos, "--out", out) == 0
    after = times(out)
    for name in finished:
        for suffix in ("png", "safetensors"):
            assert after[f"{name}.{suffix}"] == before[f"{name}.{suffix}"]
    assert len(list(out.glob("*.png"))) == len(list(out.glob("*.safetensors"))) == count
    assert not list(out.glob(".*.partial"))
    first = (out / "000.png").read_bytes()
    assert all(file.read_bytes() == first for file in out.glob("*.png"))


def test_mistakes_get_a_line(
    method_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = write_portraits(tmp_path / "photos", 1), tmp_path / "out"
    e4e = write_method(small_e4e(), tmp_path / "e4e.safetensors")
    text = tmp_path / "text.safetensors"
    text.write_text("no method")
    for arguments, words in (
        ([photos, "--method", tmp_path / "none.pt"], "there is no file"),
        ([photos, "--method", "portraits/nothing"], "no shipped file is called 'nothing'"),
        ([photos, "--method", text], "text.safetensors"),
        ([photos, "--method", "portraits/generator"], "expected an inversion method"),
        ([photos, "--method", method_file, "--device", "cuda:77"], "cuda:77"),
        ([photos, "--method", method_file, "--device", "abacus"], "expected auto, cpu"),
        ([photos, "--method", e4e, "--output", "F"], "E4E has W+"),
        ([photos, "--method", method_file, "--faces", "all"], "--faces is for --align"),
        ([tmp_path / "nowhere", "--method", method_file], "no such file or folder"),
    ):
        assert main([*map(str, arguments), "--out", str(out)]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("invert.py: ") and printed.err.count("\n") == 1
        assert words in printed.err
        assert not out.exists()
    for usage in (["--batch-size", "0"], ["--output", "X"], ["--faces", "left"], []):
        with pytest.raises(SystemExit, match="2"):
            main([str(photos), "--method", str(method_file), *usage])


def test_a_residual_is_kept_and_edited_without_the_picture(tmp_path: Path) -> None:
    method_file = write_method(small_styleres(), tmp_path / "styleres.safetensors")
    photos = write_portraits(tmp_path / "photos", 2)
    assert invert(method_file, photos, "--out", tmp_path / "out") == 0
    inversion, _ = load_inversion(tmp_path / "out" / "001.safetensors")
    assert inversion.feature is not None and not inversion.context
    directions = write_directions(tmp_path / "directions.safetensors")
    options = ["--method", method_file, "--directions", directions]
    for source, out in ((photos, "of_pictures"), (tmp_path / "out", "of_inversions")):
        for strength in (0, 2):
            where = ["--edit", f"a={strength}", "--out", tmp_path / f"{out}{strength}"]
            assert edit([*map(str, [source, *options, *where])]) == 0
    read = {path: read_image(path / "001.png") for path in tmp_path.glob("o*") if path.is_dir()}
    assert len(read) == 5 and torch.equal(read[tmp_path / "of_pictures0"], read[tmp_path / "out"])
    for strength in (0, 2):
        pictures = [read[tmp_path / f"{out}{strength}"] for out in ("of_pictures", "of_inversions")]
        torch.testing.assert_close(*pictures, rtol=0, atol=1.01 / 127.5)
    assert (read[tmp_path / "of_pictures2"] - read[tmp_path / "out"]).abs().max() > 0.1


def test_a_picture_that_becomes_nan_is_skipped(
    method_file: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    method = small_clcae()
    method.generator.synthesis.to_rgbs[-1].bias.data.fill_(float("nan"))
    monkeypatch.setattr("training.untrained.load_method", lambda _: method)
    photos = write_portraits(tmp_path / "photos", 2)
    assert invert(method_file, photos, "--out", tmp_path / "out") == 1
    assert capsys.readouterr().err.count("images hold NaN") == 2
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".invert.json"]


def test_faces_of_photographs(
    method_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from skimage.data import astronaut

    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    one = Image.fromarray(astronaut())
    two = Image.new("RGB", (1024, 512))
    two.paste(one, (0, 0))
    two.paste(one.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (512, 0))
    one.save(photos / "one.png")
    two.save(photos / "two.png")
    Image.new("RGB", (200, 200), "grey").save(photos / "wall.png")
    arguments = (photos, "--out", out, "--align", "--faces", "all")
    assert invert(method_file, *arguments) == 1
    assert "wall.png: no face found" in capsys.readouterr().err
    names = {path.stem for path in out.glob("*.safetensors")}
    assert names == {"one", "two-0", "two-1"} == {path.stem for path in out.glob("*.png")}
    left, origin = load_inversion(out / "two-0.safetensors")
    right, mirrored = load_inversion(out / "two-1.safetensors")
    assert origin.crop == "face" and origin.picture_size == (512, 1024)
    # The same face, mirrored: corners swap, and so do columns.
    assert np.allclose(
        np.array(origin.quad)[[3, 2, 1, 0], 1], np.array(mirrored.quad)[:, 1], atol=8
    )
    difference = left.context["images"] - right.context["images"].flip(-1)
    assert difference.abs().mean() < 0.1
    assert invert(method_file, *arguments) == 1
    assert "2 finished before" in capsys.readouterr().err


def test_names_that_would_be_mixed(
    method_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_portraits(tmp_path / "photos", 2)
    (photos / "001.png").rename(photos / "000-1.png")
    assert invert(method_file, photos, "--out", tmp_path / "a") == 0
    capsys.readouterr()
    arguments = (photos, "--out", tmp_path / "b", "--align", "--faces", "all")
    assert invert(method_file, *arguments) == 1
    assert "would be mixed with those of '000'" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert capsys.readouterr().out.count("python scripts/invert.py") >= 3


def test_precision_is_chosen_said_and_kept(
    method_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Files of bfloat16 are edited in float32, and the other way round."""
    given, exact, near = write_portraits(tmp_path / "given", 1), tmp_path / "a", tmp_path / "b"
    assert invert(method_file, given, "--out", exact) == 0
    monkeypatch.setattr("clcae.precision.bfloat16_lacking", lambda device: None)
    assert invert(method_file, given, "--out", near, "--precision", "auto") == 0
    assert "computing in bfloat16\n" in capsys.readouterr().err
    (plain, origin), (fast, other) = (
        load_inversion(folder / "000.safetensors") for folder in (exact, near)
    )
    assert (origin.maker.precision, other.maker.precision) == ("float32", "bfloat16")
    assert fast.codes.dtype == torch.float32
    assert 0 < float((fast.codes - plain.codes).norm() / plain.codes.norm()) < 0.01
    # The folder goes on in the same precision alone.
    assert invert(method_file, given, "--out", near) == 1
    assert "results of other settings" in capsys.readouterr().err
    assert invert(method_file, given, "--out", near, "--precision", "bfloat16") == 0
    directions = write_directions(tmp_path / "directions.safetensors")
    asked = ["--method", method_file, "--directions", directions, "--edit", "a=1"]
    pictures = []
    for folder, precision in ((exact, "bfloat16"), (near, "float32")):
        out = tmp_path / f"edited-{precision}"
        command = [folder, *asked, "--precision", precision, "--out", out]
        assert edit([*map(str, command)]) == 0
        pictures.append(read_image(out / "000.png"))
    assert float((pictures[0] - pictures[1]).abs().mean()) < 0.01
    monkeypatch.setattr("clcae.precision.bfloat16_lacking", lambda device: "it is old")
    old = tmp_path / "old"
    assert invert(method_file, given, "--out", old, "--precision", "bfloat16") == 0
    assert "computing in float32, since it is old\n" in capsys.readouterr().err
    assert load_inversion(old / "000.safetensors")[1].maker.precision == "float32"
