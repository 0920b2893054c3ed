"""What counts as finished: the digest of the input decides, never its name."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from skimage.data import astronaut
from small_methods import SIDE, small_clcae, write_method

from clcae.faces import read_record
from clcae.files import sha256
from clcae.images import read_image, to_uint8
from clcae.methods.inversion_file import load_inversion
from clcae.portraits import PortraitImages
from scripts.align import main as align
from scripts.edit import main as edit
from scripts.invert import main as invert


@pytest.fixture
def two(tmp_path: Path) -> tuple[Path, Path]:
    """Different people of one file name in two folders."""
    images = to_uint8(PortraitImages(split="test", size=SIDE).batch([0, 1]).images)
    paths = tmp_path / "a" / "0001.png", tmp_path / "b" / "0001.png"
    for path, pixels in zip(paths, images.permute(0, 2, 3, 1).numpy(), strict=True):
        path.parent.mkdir()
        Image.fromarray(pixels).save(path)
    return paths


def run(command: str, method: Path, *arguments: object) -> int:
    given = [*map(str, arguments), "--method", str(method)]
    if command == "invert":
        return invert(given)
    directions = str(method.parent / "directions.safetensors")
    return edit([*given, "--edit", "a=1", "--directions", directions])


@pytest.mark.parametrize("command", ["invert", "edit"])
def test_another_picture_of_the_name(
    command: str, method: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = two[0].parents[1] / "out"
    assert run(command, method, two[0].parent, "--out", out) == 0
    first = (out / "0001.png").read_bytes()
    capsys.readouterr()
    assert run(command, method, two[1].parent, "--out", out) == 0
    said = capsys.readouterr().out
    assert "1 earlier results are made anew, since another file has their name now: 0001" in said
    assert (out / "0001.png").read_bytes() != first
    if command == "invert":
        assert load_inversion(out / "0001.safetensors")[1].picture_sha256 == sha256(two[1])
    shutil.copy(two[0], two[1])  # replaced under its name
    assert run(command, method, two[1].parent, "--out", out) == 0
    assert (out / "0001.png").read_bytes() == first
    assert "made anew" in capsys.readouterr().out
    shutil.move(two[1], two[1].with_name("0001.PNG"))  # the same picture from elsewhere
    assert run(command, method, two[1].with_name("0001.PNG"), "--out", out) == 0
    assert "0 done, 1 finished before" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["invert", "edit"])
def test_another_order_does_not_swap(command: str, method: Path, two: tuple[Path, Path]) -> None:
    root = two[0].parents[1]
    assert run(command, method, *two, "--out", root / "out") == 0
    assert run(command, method, *reversed(two), "--out", root / "out") == 0
    assert run(command, method, *reversed(two), "--out", root / "expected") == 0
    for path in (root / "expected").glob("*.png"):
        assert (root / "out" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("command", ["invert", "edit"])
def test_results_without_a_record_are_made_anew(
    command: str, method: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    out = two[0].parents[1] / "out"
    assert run(command, method, two[0], "--out", out) == 0
    first = (out / "0001.png").read_bytes()
    index = out / f".{command}.jsonl"
    for content in (None, b"", b'\n{"name": 3}\n[[[\n\xff', b"\n" + b"[" * 100_000):
        index.unlink()
        if content is not None:
            index.write_bytes(content)
        (out / "0001.png").write_bytes(two[1].read_bytes())  # as an earlier version left it
        capsys.readouterr()
        assert run(command, method, two[0], "--out", out) == 0
        assert "it is not recorded what they were made of: 0001" in capsys.readouterr().out
        assert (out / "0001.png").read_bytes() == first
        assert run(command, method, two[0], "--out", out) == 0
        assert "1 finished before" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["invert", "edit"])
def test_a_file_of_the_user_is_not_replaced(
    command: str, method: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    before = two[1].read_bytes()
    assert run(command, method, two[0], "--out", two[1].parent) == 1
    assert f"is there and no result of {command}.py" in capsys.readouterr().err
    assert two[1].read_bytes() == before


def test_an_interrupted_overwrite_is_not_mixed(
    method: Path, two: tuple[Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    root = two[0].parents[1]
    assert run("invert", method, *two, "--out", root / "out") == 0
    settings = json.loads((root / "out" / ".invert.json").read_text())
    # As where it was stopped between the settings and the first result.
    (root / "out" / ".invert.json").write_text(json.dumps({**settings, "output": "W"}))
    assert run("invert", method, *two, "--out", root / "out", "--output", "W") == 0
    assert "2 earlier results are made anew, since they were made with other" in (
        capsys.readouterr().out
    )
    for path in (root / "out").glob("*.safetensors"):
        assert load_inversion(path)[0].feature is None


def test_faces_that_are_gone_leave_nothing(method: Path, tmp_path: Path) -> None:
    one = Image.fromarray(astronaut())
    both = Image.new("RGB", (1024, 512))
    both.paste(one, (0, 0))
    both.paste(one.transpose(Image.Transpose.FLIP_LEFT_RIGHT), (512, 0))
    photo, out = tmp_path / "photo.png", tmp_path / "out"
    for picture, names in ((both, {"photo-0", "photo-1"}), (one, {"photo"})):
        picture.save(photo)
        assert run("invert", method, photo, "--out", out, "--align", "--faces", "all") == 0
        assert {path.stem for path in out.glob("*.safetensors")} == names
        assert {path.stem for path in out.glob("*.png")} == names


def test_align_crops_a_changed_photograph_anew(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = tmp_path / "photo.png", tmp_path / "out"
    picture = Image.fromarray(astronaut())
    picture.save(photo)
    arguments = [str(photo), "--out", str(out), "--size", "64", "--device", "cpu"]
    assert align(arguments) == 0
    picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photo)
    assert align(arguments) == 0
    assert "made anew, since another file has their name now: photo" in capsys.readouterr().out
    assert read_record(out / "photo.json").quad.mean(0)[0] > 256
    assert read_record(out / "photo.json").sha256 == sha256(photo)
    assert align(arguments) == 0
    assert "1 finished before" in capsys.readouterr().out
    fields = json.loads((out / "photo.json").read_text())
    del fields["sha256"]  # as an earlier version wrote it
    (out / "photo.json").write_text(json.dumps(fields))
    assert align(arguments) == 0
    assert "it is not recorded what they were made of: photo" in capsys.readouterr().out


def test_the_commands_look_alike(method: Path, tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    colour = (90, 90, 90)
    Image.fromarray(astronaut()).rotate(45, expand=True, fillcolor=colour).save(photo)
    assert align([str(photo), "--out", str(tmp_path / "crops"), "--device", "cpu"]) == 0
    assert run("invert", method, photo, "--out", tmp_path / "out", "--align") == 0
    assert run("edit", method, photo, "--out", tmp_path / "edited", "--align") == 0
    quad = read_record(tmp_path / "crops" / "photo.json").quad
    _, origin = load_inversion(tmp_path / "out" / "photo.safetensors")
    torch.testing.assert_close(torch.tensor(origin.quad, dtype=torch.float64), quad)
    # The edit changes what lies in this quad: its corners, and little more than its seam.
    before, after = read_image(photo), read_image(tmp_path / "edited" / "photo.png")
    changed = (before != after).any(0).nonzero().flip(1).double()
    middle, half = quad.mean(0), (quad[3] - quad[0]).norm() / 2
    along = (quad[3] - quad[0]) / (2 * half)
    across = ((changed - middle) @ along).abs()
    assert half * 0.9 < across.max() < half + 1


def test_another_construction_of_the_same_weights(
    two: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    method = small_clcae()
    file = write_method(method, tmp_path / "m" / "small.safetensors")
    assert run("invert", file, two[0], "--out", tmp_path / "out") == 0
    generator = method.generator
    vars(generator)["settings"]["mapping_lr_multiplier"] = 0.05
    write_method(method, file)
    assert run("invert", file, two[0], "--out", tmp_path / "out") == 0
    assert "made anew, since they were made with other settings: 0001" in capsys.readouterr().out
