"""Editing files: what edits promise, what stays untouched, what is said of mistakes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from small_methods import SIDE, small_clcae, small_e4e, write_directions, write_method

import clcae
from clcae.images import to_uint8
from clcae.methods.foundation import FoundationInversion
from clcae.methods.interface import Inversion, InversionMethod
from clcae.methods.inversion_file import load_inversion
from clcae.photographs.cutouts import Cutout
from clcae.photographs.edited import Change, changed_pictures
from clcae.photographs.reader import Reader
from clcae.portraits import PortraitImages
from editing import edit_inversion, load_directions
from scripts.edit import main
from scripts.invert import main as invert


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A method, directions, three pictures and what the method makes of them."""
    folder = tmp_path_factory.mktemp("edit")
    write_method(small_clcae(), folder / "small.safetensors")
    write_directions(folder / "directions.safetensors")
    (folder / "photos").mkdir()
    images = PortraitImages(split="test", size=SIDE).batch([0, 1, 2]).images
    for index, pixels in enumerate(to_uint8(images).permute(0, 2, 3, 1).numpy()):
        Image.fromarray(pixels).save(folder / "photos" / f"{index}.png")
    method = ["--method", str(folder / "small.safetensors")]
    assert invert([str(folder / "photos"), *method, "--out", str(folder / "inverted")]) == 0
    return folder


def edit(folder: Path, *arguments: object) -> int:
    given = ["--method", folder / "small.safetensors"]
    given += ["--directions", folder / "directions.safetensors"]
    return main([*map(str, arguments), *map(str, given)])


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB")).astype(int)


def cutouts(folder: Path, method: InversionMethod) -> list[Cutout]:
    reader = Reader(method, faces=None)
    paths = sorted((folder / "photos").iterdir())
    return [part for path in paths for part in reader.read(path).parts]


@pytest.mark.parametrize("rule", ["refined", "foundation"])
@pytest.mark.parametrize("output", ["W", "W+", "F"])
def test_zero_and_there_and_back(folder: Path, rule: str, output: str) -> None:
    method = clcae.load_method(folder / "small.safetensors").with_output(output)
    assert isinstance(method, FoundationInversion)
    method = method.with_rule(rule)  # type: ignore[arg-type]
    direction = load_directions(folder / "directions.safetensors")["a"]

    def by(*strengths: float) -> Change:
        def change(inversion: Inversion) -> Inversion:
            for strength in strengths:
                inversion = edit_inversion(method, inversion, [(direction, strength)])
            return inversion

        return change

    changes = [by(), by(0.0), by(1.5, -1.5), by(1.5)]
    for pictures in changed_pictures(method, cutouts(folder, method), changes):
        plain, zero, back, edited = pictures
        assert (zero - plain).abs().max() <= 1e-5
        torch.testing.assert_close(back, plain, atol=1e-4, rtol=1e-4)
        assert (edited - plain).abs().max() > 0.01


def test_zero_strength_is_the_reconstruction(folder: Path, tmp_path: Path) -> None:
    assert edit(folder, folder / "photos", "--edit", "a=0", "--out", tmp_path) == 0
    for index in range(3):
        before = (folder / "inverted" / f"{index}.png").read_bytes()
        assert (tmp_path / f"{index}.png").read_bytes() == before


def test_two_edits_are_their_sum(folder: Path, tmp_path: Path) -> None:
    photos = folder / "photos"
    assert edit(folder, photos, "--edit", "a=1", "--edit", "b=2", "--out", tmp_path / "two") == 0
    assert edit(folder, photos, "--edit", "ab", "--out", tmp_path / "sum") == 0
    assert edit(folder, photos, "--edit", "a=1", "--out", tmp_path / "one") == 0
    for name in ("0.png", "1.png", "2.png"):
        two, total, one = (pixels(tmp_path / each / name) for each in ("two", "sum", "one"))
        assert np.abs(two - total).max() <= 1
        assert np.abs(two - one).max() > 3


def test_inversion_files_instead_of_pictures(folder: Path, tmp_path: Path) -> None:
    arguments = ("--edit", "a=1.5", "--strip")
    assert edit(folder, folder / "photos", *arguments, "--out", tmp_path / "a") == 0
    # The folder holds the reconstructions too, which are not inverted again.
    assert edit(folder, folder / "inverted", *arguments, "--out", tmp_path / "b") == 0
    expected = {f"{i}{end}.png" for i in range(3) for end in ("", "-strip")}
    expected |= {".edit.json", ".edit.jsonl"}
    assert {path.name for path in (tmp_path / "b").iterdir()} == expected
    for index in range(3):
        name = f"{index}.png"
        difference = pixels(tmp_path / "a" / name) - pixels(tmp_path / "b" / name)
        assert np.abs(difference).max() <= 1
    one = folder / "inverted" / "1.safetensors"
    both = (one, folder / "photos" / "0.png", "--edit", "a=1.5", "--out", tmp_path / "c")
    assert edit(folder, *both) == 0
    for name in ("0.png", "1.png"):
        difference = pixels(tmp_path / "a" / name) - pixels(tmp_path / "c" / name)
        assert np.abs(difference).max() <= 1


def test_rules_differ(folder: Path, tmp_path: Path) -> None:
    source = folder / "inverted" / "0.safetensors"
    for rule in ("refined", "foundation"):
        arguments = (source, "--edit", "a=1", "--rule", rule, "--out", tmp_path / rule)
        assert edit(folder, *arguments) == 0
    difference = pixels(tmp_path / "refined" / "0.png") - pixels(tmp_path / "foundation" / "0.png")
    assert np.abs(difference).max() > 2


def test_files_of_others_are_listed(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    good = (folder / "inverted" / "0.safetensors").read_bytes()
    (given / "good.safetensors").write_bytes(good)
    (given / "short.safetensors").write_bytes(good[:-7])
    (given / "method.safetensors").write_bytes((folder / "small.safetensors").read_bytes())
    other = write_method(small_clcae(seed=3), tmp_path / "other.safetensors")
    for name, arguments in (
        ("other", ["--method", other]),
        ("codes", ["--method", folder / "small.safetensors", "--output", "W+"]),
    ):
        out = tmp_path / name
        photo = folder / "photos" / "0.png"
        assert invert([str(photo), *map(str, arguments), "--out", str(out)]) == 0
        (out / "0.safetensors").rename(given / f"{name}.safetensors")
    capsys.readouterr()
    assert edit(folder, given, "--edit", "a=1", "--out", tmp_path / "out") == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "1 done, 4 skipped:" and len(lines) == 5
    for name, words in (
        ("short", "not a readable safetensors file"),
        ("method", "none that scripts/invert.py wrote"),
        ("other", "inverted by another method, the CLCAE of other.safetensors"),
        ("codes", "give --output W+"),
    ):
        path = f"{given / name}.safetensors: "
        assert [words in line for line in lines if path in line] == [True]
    assert edit(folder, given, "--edit", "a=1", "--mask", "0,0,4,4", "--out", tmp_path / "m") == 1
    assert "need the picture itself" in capsys.readouterr().err


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    """A photograph of another size and aspect than the method reads."""
    image = PortraitImages(split="test", size=48).batch([5]).images[0]
    square = Image.fromarray(to_uint8(image).permute(1, 2, 0).numpy())
    wide = Image.new("RGB", (60, 48), (40, 90, 200))
    wide.paste(square, (6, 0))
    wide.save(tmp_path / "wide.jpg", quality=90)
    return tmp_path / "wide.jpg"


@pytest.mark.parametrize("paste", ["crop", "change"])
def test_outside_a_box_nothing_changes(
    folder: Path, photo: Path, tmp_path: Path, paste: str
) -> None:
    arguments = ("--edit", "a=2", "--mask", "10,20,40,44", "--feather", 3, "--paste", paste)
    assert edit(folder, photo, *arguments, "--out", tmp_path / "out") == 0
    before, after = pixels(photo), pixels(tmp_path / "out" / "wide.png")
    changed = (before != after).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert changed.sum() > 300
    assert rows.min() >= 20 and rows.max() < 44 and columns.min() >= 10 and columns.max() < 40
    edge, middle = changed_by(before, after)[20, 10:40], changed_by(before, after)[26:38, 16:34]
    assert edge.mean() < middle.mean()


def changed_by(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    return np.abs(before - after).sum(axis=2)


def test_outside_a_painted_mask_nothing_changes(folder: Path, photo: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    painted = (rng.random((48, 60)) < 0.5) * np.uint8(255)
    Image.fromarray(painted).save(tmp_path / "mask.png")
    arguments = ("--edit", "a=2", "--mask", tmp_path / "mask.png", "--feather", 0)
    assert edit(folder, photo, *arguments, "--out", tmp_path / "out") == 0
    before, after = pixels(photo), pixels(tmp_path / "out" / "wide.png")
    changed = (before != after).any(axis=2)
    assert not changed[painted == 0].any()
    inner = np.zeros_like(changed)
    inner[:, 6:54] = True  # what the method reads
    assert changed[(painted == 255) & inner].mean() > 0.8
    assert not changed[~inner].any()
    whole = ("--edit", "a=2", "--mask", "0,0,60,48", "--feather", 0)
    assert edit(folder, photo, *whole, "--out", tmp_path / "whole") == 0
    assert edit(folder, photo, "--edit", "a=2", "--out", tmp_path / "plain") == 0
    plain = Image.open(tmp_path / "plain" / "wide.png")
    assert plain.size == (SIDE, SIDE)
    resized = np.array(plain.resize((48, 48), Image.Resampling.BICUBIC)).astype(int)
    inside = pixels(tmp_path / "whole" / "wide.png")[:, 6:54]
    assert np.abs(resized - inside).mean() < 1.5  # Pillow rounds and overshoots elsewhere


def test_no_change_leaves_the_photograph(folder: Path, photo: Path, tmp_path: Path) -> None:
    arguments = ("--edit", "a=0", "--mask", "0,0,60,48", "--paste", "change")
    assert edit(folder, photo, *arguments, "--out", tmp_path / "out") == 0
    assert np.array_equal(pixels(photo), pixels(tmp_path / "out" / "wide.png"))


def test_a_mask_that_does_not_fit(
    folder: Path, photo: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("L", (60, 40), 255).save(tmp_path / "small.png")
    for mask, words in (
        (tmp_path / "small.png", "the mask has 60 x 40 pixels, the picture 60 x 48"),
        ("100,100,120,120", "lies outside the picture of 60 x 48 pixels"),
        ("9,9,9,12", "an empty box"),
        (tmp_path / "none.png", "no such file, and no box"),
    ):
        out = tmp_path / "out"
        assert edit(folder, photo, "--edit", "a", "--mask", mask, "--out", out) == 1
        assert words in capsys.readouterr().err
        assert not list(out.glob("*.png"))
        (out / ".edit.json").unlink(missing_ok=True)


def test_strip(folder: Path, tmp_path: Path) -> None:
    source = folder / "photos" / "0.png"
    arguments = ("--edit", "a=1", "--edit", "b=1", "--strip", "--strengths", "-2,...,1")
    assert edit(folder, source, *arguments, "--out", tmp_path / "sweep") == 0
    sheet = pixels(tmp_path / "sweep" / "0-strip.png")
    height, width = sheet.shape[:2]
    assert height > 2 * 128 and width >= 6 * 128  # two rows of six cells, enlarged
    shown = pixels(source).repeat(4, 0).repeat(4, 1)
    places = [
        (top, left)
        for top in range(height - 127)
        for left in range(min(width - 127, 60))
        if np.array_equal(sheet[top, left : left + 128], shown[0])
        and np.array_equal(sheet[top : top + 128, left : left + 128], shown)
    ]
    assert len(places) == 2  # the input, in each row
    step = 128 + 4
    for (top, left), name in zip(places, "ab", strict=True):
        for column, strength in enumerate([-2, -1, 0, 1], start=2):
            out = tmp_path / f"{name}{strength}"
            assert edit(folder, source, "--edit", f"{name}={strength}", "--out", out) == 0
            expected = pixels(out / "0.png").repeat(4, 0).repeat(4, 1)
            found = sheet[top : top + 128, left + column * step : left + column * step + 128]
            assert np.abs(expected - found).max() <= 1


def test_the_directions_own_range(folder: Path, tmp_path: Path) -> None:
    source = folder / "inverted" / "0.safetensors"
    assert edit(folder, source, "--edit", "a", "--strip", "--out", tmp_path) == 0
    assert Image.open(tmp_path / "0-strip.png").width >= 8 * 128  # inversion and seven strengths


def test_faces_are_pasted_back(folder: Path, tmp_path: Path) -> None:
    from skimage.data import astronaut

    Image.fromarray(astronaut()).save(tmp_path / "astronaut.png")
    arguments = (tmp_path / "astronaut.png", "--edit", "a=1", "--align", "--out")
    assert edit(folder, *arguments, tmp_path / "a") == 0
    before, after = astronaut().astype(int), pixels(tmp_path / "a" / "astronaut.png")
    changed = (before != after).any(axis=2)
    rows, columns = np.nonzero(changed)
    assert changed[110:150, 200:240].all()  # the face
    assert rows.max() < 220 and columns.min() > 120 and columns.max() < 330
    assert Image.open(tmp_path / "a" / "astronaut-crop.png").size == (SIDE, SIDE)
    assert edit(folder, *arguments, tmp_path / "b", "--mask", "0,0,230,512") == 0
    masked = pixels(tmp_path / "b" / "astronaut.png")
    assert np.array_equal(masked[:, 230:], before[:, 230:])
    assert np.array_equal(masked[:, :200], after[:, :200])
    assert not np.array_equal(masked[:, 200:230], before[:, 200:230])


def test_another_edit_is_not_mixed_in(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (folder / "inverted", "--out", tmp_path / "out")
    assert edit(folder, *arguments, "--edit", "a=1") == 0
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*.png")}
    assert edit(folder, *arguments, "--edit", "a=1") == 0
    assert "0 done, 3 finished before" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert edit(folder, *arguments, "--edit", "a=2") == 1
    assert "other settings (edits)" in capsys.readouterr().err
    assert edit(folder, *arguments, "--edit", "a=2", "--overwrite") == 0


def test_mistakes_get_a_line(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = folder / "photos", tmp_path / "out"
    e4e = write_method(small_e4e(), tmp_path / "e4e.safetensors")
    small = folder / "small.safetensors"
    directions = folder / "directions.safetensors"
    for arguments, words in (
        (["--method", small, "--edit", "a=1"], "give --directions FILE"),
        (
            ["--method", small, "--directions", directions, "--edit", "smile=1"],
            "there is no direction 'smile'; there are: a, b, ab",
        ),
        (["--method", small, "--directions", directions, "--edit", "a=much"], "NAME=STRENGTH"),
        (["--method", small, "--directions", small, "--edit", "a=1"], "small.safetensors"),
        (
            ["--method", small, "--directions", directions, directions, "--edit", "a=1"],
            "directions of an earlier file again: a, ab, b",
        ),
        (
            ["--method", e4e, "--directions", directions, "--edit", "a=1", "--rule", "refined"],
            "--rule is for CLCAE; E4E has one way to edit",
        ),
        (["--method", tmp_path / "no.pt", "--edit", "a=1"], "there is no file"),
    ):
        assert main([str(photos), *map(str, arguments), "--out", str(out)]) == 1
        printed = capsys.readouterr()
        assert printed.out == ""
        assert printed.err.startswith("edit.py: ") and printed.err.count("\n") == 1
        assert words in printed.err
        assert not out.exists()
    for usage in (
        [],
        ["--edit", "a", "--strengths", "1,2"],
        ["--edit", "a", "--strip", "--strengths", "1,x"],
        ["--edit", "a", "--feather", "2"],
        ["--edit", "a", "--paste", "crop"],
    ):
        with pytest.raises(SystemExit, match="2"):
            edit(folder, photos, "--out", out, *usage)


def test_a_method_of_one_output(folder: Path, tmp_path: Path) -> None:
    e4e = write_method(small_e4e(), tmp_path / "e4e.safetensors")
    arguments = [folder / "photos", "--method", e4e]
    assert invert([*map(str, arguments), "--out", str(tmp_path / "inverted")]) == 0
    inversion, origin = load_inversion(tmp_path / "inverted" / "0.safetensors")
    assert inversion.feature is None and origin.maker.output == "W+"
    arguments = [tmp_path / "inverted", "--method", e4e, "--out", tmp_path / "out"]
    arguments += ["--directions", folder / "directions.safetensors", "--edit", "a=1"]
    assert main([*map(str, arguments)]) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 3


def test_help_teaches(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert capsys.readouterr().out.count("python scripts/edit.py") >= 5
