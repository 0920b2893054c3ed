"""The command: photographs of every kind in, crops with their records out."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.data import astronaut

from clcae.faces import CropFolder, paste_back, picture_quad, read_record, take_whole
from clcae.images import read_image, to_uint8, write_png
from scripts.align import main

ROOT = Path(__file__).resolve().parents[3]
PHOTO = Image.fromarray(astronaut())
# The crop's centre in the astronaut; every way of storing the picture has to give it.
CENTRE = torch.tensor([225.0, 105.0], dtype=torch.float64)


def run(*arguments: object) -> int:
    return main([str(argument) for argument in (*arguments, "--device", "cpu")])


def names(folder: Path) -> list[str]:
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


def group() -> Image.Image:
    """Two people: the larger one left."""
    picture = Image.new("RGB", (900, 512), "grey")
    picture.paste(PHOTO, (0, 0))
    mirrored = PHOTO.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    picture.paste(mirrored.resize((350, 350), Image.Resampling.LANCZOS), (530, 100))
    return picture


def sixteen_bits() -> Image.Image:
    grey = np.asarray(PHOTO.convert("L")).astype(np.uint16)
    return Image.fromarray(grey * 257)


def rotated() -> Image.Image:
    """Lying on its side, with the EXIF note that says so."""
    picture = PHOTO.transpose(Image.Transpose.ROTATE_90)
    picture.getexif()[0x0112] = 6
    return picture


def with_alpha() -> Image.Image:
    picture = PHOTO.convert("RGBA")
    picture.paste((0, 255, 0, 0), (0, 400, 512, 512))  # transparent green, which nobody may see
    return picture


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "photos" / "anna.png"
    path.parent.mkdir()
    PHOTO.save(path)
    return path


def test_a_photograph_there_and_back(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "crops"
    assert run(photo, "--out", out) == 0
    assert capsys.readouterr().out == "1 done\n"
    assert names(out) == ["anna.json", "anna.png"]
    crop, record = read_image(out / "anna.png"), read_record(out / "anna.json")
    assert crop.shape == (3, 256, 256)
    assert (record.source, record.frame) == (str(photo.resolve()), None)
    assert (record.height, record.width, record.size, record.num_crops) == (512, 512, 256, 1)
    assert (record.quad.mean(0) - CENTRE).norm() < 8
    picture = read_image(record.source)
    pasted = paste_back(picture, crop, record.quad)
    assert (to_uint8(pasted).float() - to_uint8(picture).float()).abs().mean() < 0.5
    changed = (pasted != picture).any(0).nonzero()
    assert (changed.flip(1) >= record.quad.amin(0)).all()
    assert (changed.flip(1) <= record.quad.amax(0)).all()


@pytest.mark.parametrize(
    ("file", "make", "options"),
    [
        ("exif.jpg", rotated, {"exif": True, "quality": 95}),
        ("alpha.png", with_alpha, {}),
        ("grey.png", lambda: PHOTO.convert("L"), {}),
        ("deep.png", sixteen_bits, {}),
        ("palette.gif", lambda: PHOTO.quantize(256), {}),
        ("print.jpg", lambda: PHOTO.convert("CMYK"), {"quality": 95}),
        ("a name with späces & 100%.webp", lambda: PHOTO, {}),
    ],
)
def test_every_kind_of_file(tmp_path: Path, file: str, make, options: dict) -> None:
    picture = make()
    if options.pop("exif", False):
        options["exif"] = picture.getexif()
    picture.save(tmp_path / file, **options)
    out = tmp_path / "crops"
    assert run(tmp_path / file, "--out", out, "--size", 64) == 0
    record = read_record(out / f"{Path(file).stem}.json")
    assert (record.quad.mean(0) - CENTRE).norm() < 10
    crop = to_uint8(read_image(out / f"{Path(file).stem}.png")).float()
    assert 90 < crop[:, 20:44, 20:44].mean() < 220 and crop.std() > 30


def test_what_is_skipped_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    PHOTO.save(folder / "sub" / "anna.jpg")
    (folder / "cut.jpg").write_bytes((folder / "sub" / "anna.jpg").read_bytes()[:3000])
    PHOTO.resize((120, 120), Image.Resampling.LANCZOS).save(folder / "far.png")
    Image.new("RGB", (300, 200), "navy").save(folder / "sea.png")
    (folder / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200))
    (folder / "notes.txt").write_text("hello")
    (folder / "empty.png").touch()
    out = folder / "crops"
    assert run(folder, "--out", out) == 1
    assert names(out) == ["sub/anna.json", "sub/anna.png"]
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "1 done, 6 skipped:" and len(lines) == 7
    said = {Path(line.split(": ")[0].strip()).name: line for line in lines[1:]}
    assert "no face found" in said["sea.png"]
    assert "a tiny face: its crop takes" in said["far.png"]
    assert "convert it to JPEG, or pip install pillow-heif" in said["phone.heic"]
    assert "not a picture" in said["notes.txt"]
    assert "empty file" in said["empty.png"]
    assert "cut.jpg" in said


def test_a_finished_file_is_kept(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "crops"
    run(photo, "--out", out)
    written = (out / "anna.png").stat().st_mtime_ns
    assert run(photo, "--out", out) == 0
    assert "0 done, 1 finished before" in capsys.readouterr().out
    assert (out / "anna.png").stat().st_mtime_ns == written
    (out / "anna.json").unlink()  # as where it was stopped between the two
    assert run(photo, "--out", out) == 0
    assert (out / "anna.png").stat().st_mtime_ns > written
    for option in (["--size", 64], ["--faces", "all"]):
        assert run(photo, "--out", out, *option) == 1
        assert "was made with --size 256 --faces largest" in capsys.readouterr().err
    assert run(photo, "--out", out, "--size", 64, "--overwrite") == 0
    assert Image.open(out / "anna.png").size == (64, 64)
    (out / "anna.json").write_text("{}")
    assert run(photo, "--out", out, "--size", 64) == 1
    assert "no record of a crop, or damaged" in capsys.readouterr().err
    assert run(photo, "--out", out, "--size", 64, "--overwrite") == 0


def test_another_photograph_of_the_same_name_is_not_replaced(
    photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "anna.png"
    shutil.copy(photo, other)
    out = tmp_path / "crops"
    assert run(photo, "--out", out) == 0
    assert run(other, "--out", out) == 1
    assert "belongs to" in capsys.readouterr().err
    assert read_record(out / "anna.json").source == str(photo)
    assert run(photo, other, "--out", tmp_path / "both") == 0
    assert len(names(tmp_path / "both")) == 4


def test_several_faces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    group().save(tmp_path / "group.png")
    out = tmp_path / "crops"
    assert run(tmp_path / "group.png", "--out", out, "--faces", "all", "--size", 64) == 0
    assert names(out) == [f"group-{i}.{suffix}" for i in (0, 1) for suffix in ("json", "png")]
    left, right = (read_record(out / f"group-{i}.json") for i in (0, 1))
    assert left.quad[:, 0].mean() < 512 < right.quad[:, 0].mean()
    assert (left.number, right.number, left.num_crops) == (0, 1, 2)
    assert run(tmp_path / "group.png", "--out", out, "--faces", "all", "--size", 64) == 0
    assert "1 finished before" in capsys.readouterr().out
    # Another choice takes the place of both.
    assert run(tmp_path / "group.png", "--out", out, "--overwrite", "--size", 64) == 0
    assert names(out) == ["group.json", "group.png"]
    assert torch.equal(read_record(out / "group.json").quad, left.quad)
    one = tmp_path / "one"
    assert run(tmp_path / "group.png", "--out", one, "--faces", 1, "--size", 64) == 0
    assert torch.equal(read_record(one / "group.json").quad, right.quad)
    assert run(tmp_path / "group.png", "--out", tmp_path / "no", "--faces", 2) == 1
    assert "no face 2: 2 found" in capsys.readouterr().err
    assert not (tmp_path / "no").exists()


def test_of_all_faces_those_that_will_not_do_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture = Image.new("RGB", (700, 512), "grey")
    picture.paste(PHOTO, (0, 0))
    picture.paste(PHOTO.resize((130, 130), Image.Resampling.LANCZOS), (540, 200))
    picture.save(tmp_path / "group.png")
    assert run(tmp_path / "group.png", "--out", tmp_path / "crops", "--faces", "all") == 1
    said = capsys.readouterr().err
    assert "a tiny face" in said and "(face 1 of 2 from 0 at the left)" in said
    assert names(tmp_path / "crops") == ["group.json", "group.png"]


def test_an_aligned_picture_is_resized_only(photo: Path, tmp_path: Path) -> None:
    run(photo, "--out", tmp_path / "first")
    crop = tmp_path / "first" / "anna.png"
    assert run(crop, "--out", tmp_path / "same") == 0
    assert run(crop, "--out", tmp_path / "half", "--size", 128) == 0
    assert torch.equal(read_image(crop), read_image(tmp_path / "same" / "anna.png"))
    half = np.asarray(Image.open(crop).resize((128, 128), Image.Resampling.BICUBIC), dtype=float)
    found = np.asarray(Image.open(tmp_path / "half" / "anna.png"), dtype=float)
    assert np.abs(found - half).max() <= 2
    record = read_record(tmp_path / "half" / "anna.json")
    assert record.was_aligned and torch.equal(record.quad, picture_quad(256, 256))


def frames(folder: Path) -> None:
    """The astronaut moving right by 2 pixels a frame; one frame without her."""
    folder.mkdir()
    for index in range(12):
        picture = Image.new("RGB", (260, 200), "grey")
        if index != 6:
            picture.paste(PHOTO.crop((110, 0, 330, 200)), (2 * index, 0))
        picture.save(folder / f"f{index}.png")  # f10 after f9


def test_video_of_frames(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    frames(tmp_path / "walk")
    (tmp_path / "walk" / "Thumbs.db").write_bytes(b"junk")
    out = tmp_path / "crops"
    assert run(tmp_path / "walk", "--out", out, "--video", "--size", 64) == 0
    printed = capsys.readouterr()
    assert "1 of 12 frames do not show the face: interpolated" in printed.out
    assert "12 done" in printed.out and printed.err == ""
    assert len(names(out)) == 24
    quads = torch.stack([read_record(out / "walk" / f"f{i}.json").quad for i in range(12)])
    steps = quads.mean(1).diff(dim=0)
    assert (steps[:, 0] - 2).abs().max() < 0.6 and steps[:, 1].abs().max() < 0.6
    (tmp_path / "walk" / "Thumbs.db").unlink()
    (out / "walk" / "f3.json").unlink()
    assert run(tmp_path / "walk", "--out", out, "--video", "--size", 64) == 0
    assert "1 done, 11 finished before" in capsys.readouterr().out
    again = read_record(out / "walk" / "f3.json")
    assert (again.quad - quads[3]).abs().max() < 1e-9
    assert again.source.endswith("f3.png")
    Image.new("RGB", (260, 200), "grey").save(tmp_path / "walk" / "f4.png")  # its neighbours too
    assert run(tmp_path / "walk", "--out", out, "--video", "--size", 64) == 0
    assert "12 earlier results are made anew, since another file" in capsys.readouterr().out


def test_video_refusals(photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "crops"
    empty = tmp_path / "sea"
    empty.mkdir()
    Image.new("RGB", (100, 100)).save(empty / "a.png")
    assert run(empty, "--out", out, "--video") == 1
    assert "sea: no face found in any of 1 frames" in capsys.readouterr().err
    PHOTO.save(empty / "b.png")
    assert run(empty, "--out", out, "--video") == 1
    assert "sea: frames of 2 sizes" in capsys.readouterr().err
    assert run(tmp_path / "none", "--out", out, "--video") == 1
    assert "none: no such file or folder" in capsys.readouterr().err
    assert run(empty, "--out", tmp_path, "--video") == 1
    assert "its crops would lie among the frames" in capsys.readouterr().err
    assert names(empty) == ["a.png", "b.png"]
    with pytest.raises(SystemExit) as caught:
        run(empty, "--out", out, "--video", "--faces", "all")
    assert caught.value.code == 2
    assert not out.exists()


def test_video_file_by_ffmpeg(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a stand-in of ffmpeg, a program of its name that knows one kind of file."""
    frames(tmp_path / "walk")
    first, *others = [Image.open(tmp_path / "walk" / f"f{i}.png") for i in range(3)]
    video, out = tmp_path / "-walk.mp4", tmp_path / "crops"
    first.save(video, format="TIFF", save_all=True, append_images=others)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    assert run("./" + os.path.relpath(video), "--out", out, "--video") == 1
    assert "ffmpeg, which is not installed; install it, or give a folder" in capsys.readouterr().err
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "ffmpeg"
    program.write_text(
        f"#!{sys.executable}\n"
        "import sys\n"
        "from PIL import Image, ImageSequence\n"
        "source, pattern = sys.argv[sys.argv.index('-i') + 1], sys.argv[-1]\n"
        "try:\n"
        "    picture = Image.open(source)\n"
        "except Exception:\n"
        "    sys.exit(source + ': Invalid data found when processing input')\n"
        "for index, frame in enumerate(ImageSequence.Iterator(picture)):\n"
        "    frame.save(pattern % (index + 1))\n"
    )
    program.chmod(0o755)
    assert run(video, "--out", out, "--video", "--size", 64) == 0
    assert len(names(out / "-walk")) == 6
    record = read_record(out / "-walk" / "000002.json")
    assert (record.source, record.frame) == (str(video.resolve()), "000002")
    assert run(video, "--out", out, "--video", "--size", 64) == 0
    assert "0 done, 3 finished before" in capsys.readouterr().out
    video.write_bytes(b"junk")
    assert run(video, "--out", tmp_path / "new", "--video") == 1
    assert "ffmpeg cannot read it" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_names_that_meet_do_not_replace_each_other(tmp_path: Path) -> None:
    picture = torch.zeros(3, 8, 8)
    crop = take_whole(picture, torch.zeros(5, 2), size=8)
    for overwrite in (False, True):
        folder = CropFolder(root=tmp_path, size=8, which="all", overwrite=overwrite)
        folder.write("a-0", Path("photos/a-0.png"), picture, [(0, crop)], digest="")
        with pytest.raises(ValueError, match="belongs to"):
            folder.write("a", Path("photos/a.png"), picture, [(0, crop), (1, crop)], digest="")
        with pytest.raises(ValueError, match="would replace the photograph"):
            folder.write("b", tmp_path / "b.png", picture, [(0, crop)], digest="")
        assert names(tmp_path) == ["a-0.json", "a-0.png"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "{", '{"source": 3}', "[" * 5000, '{"source": "a", "frame": null}'],
)
def test_damaged_records(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"a\.json: no record of a crop, or damaged"):
        read_record(path)
    with pytest.raises(FileNotFoundError, match="no such file"):
        read_record(tmp_path / "b.json")


def test_failures_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none.jpg", "--out", tmp_path / "out") == 1
    printed = capsys.readouterr()
    assert printed.err.startswith("align.py: ") and printed.err.count("\n") == 1
    assert "none.jpg: no such file or folder" in printed.err
    assert main([str(tmp_path), "--out", "x", "--device", "toaster"]) == 1
    assert "device is 'toaster', expected auto, cpu" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["a.jpg"],
        ["a.jpg", "--out", "b", "--size", "x"],
        ["a.jpg", "--out", "b", "--size", "99999"],
        ["a.jpg", "--out", "b", "--faces", "-1"],
        ["a.jpg", "--out", "b", "--faces", "both"],
    ],
)
def test_usage_errors(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: align.py" in capsys.readouterr().err


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["--help"])
    assert caught.value.code == 0
    assert capsys.readouterr().out.count("python scripts/align.py") >= 4


def test_as_a_process(photo: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "scripts" / "align.py"), "photos", "--out", "crops"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "1 done\n"
    assert "photograph" not in done.stderr  # no progress bar in a file
    assert names(tmp_path / "crops") == ["anna.json", "anna.png"]
    write_png(torch.zeros(3, 64, 64), photo.with_name("black.png"))
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert "photos/black.png: no face found" in done.stderr
