"""Folders and archives of pictures: what is listed, how it is cropped, what is refused."""

import json
import os
import pickle
import resource
import zipfile
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from clcae.data.folder import ImageFolder
from clcae.data.sources import FileSource, ImageSource
from clcae.images import to_uint8, write_png


def picture(height: int = 8, width: int = 8, value: int = 100) -> Image.Image:
    return Image.fromarray(np.full((height, width, 3), value, dtype=np.uint8))


def encoded(image: Image.Image) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    root = tmp_path / "images"
    names = ["b.png", "a.JPG", "00/2.bmp", "00/10.webp", ".hidden.png", ".cache/x.png", "c.txt"]
    for index, name in enumerate(names):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("txt"):
            (root / name).write_text("no picture")
        else:
            picture(value=40 * index).save(root / name)
    return root


def archive(path: Path, entries: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        for name, data in entries.items():
            file.writestr(name, data)
    return path


def test_listing_is_recursive_sorted_and_skips_hidden_files(folder: Path) -> None:
    source = ImageFolder(root=folder, size=4)
    assert isinstance(source, ImageSource)
    names = [source.name(index) for index in range(len(source))]
    assert names == ["00/10.webp", "00/2.bmp", "a.JPG", "b.png"]
    images = source.images([3, 1])
    assert images.shape == (2, 3, 4, 4)
    assert images.dtype == torch.float32
    assert to_uint8(images)[:, 0, 0, 0].tolist() == [0, 80]
    assert source.images([]).shape == (0, 3, 4, 4)


def test_chosen_extensions(folder: Path) -> None:
    assert len(ImageFolder(root=folder, size=4, extensions=(".png",))) == 1


def test_zip_is_read_like_a_folder(tmp_path: Path, folder: Path) -> None:
    entries = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*p*")}
    entries["dataset.json"] = json.dumps({"labels": None}).encode()
    entries["__MACOSX/b.png"] = b"junk"
    path = archive(tmp_path / "a.zip", entries)
    zipped, plain = ImageFolder(root=path, size=4), ImageFolder(root=folder, size=4)
    everything = range(len(plain) - 1)  # without a.JPG, which the pattern above does not match
    names = [zipped.name(index) for index in everything]
    assert names == ["00/10.webp", "00/2.bmp", "b.png"]
    assert torch.equal(zipped.images(everything), plain.images([0, 1, 3]))
    before = sorted(tmp_path.iterdir())
    zipped.images([0])
    assert sorted(tmp_path.iterdir()) == before, "nothing is extracted"


def test_zip_survives_pickling_and_another_process(tmp_path: Path) -> None:
    source = ImageFolder(root=archive(tmp_path / "a.zip", {"a.png": encoded(picture())}), size=4)
    copy = pickle.loads(pickle.dumps(source))
    assert torch.equal(copy.images([0]), source.images([0]))
    source._files._process = os.getpid() + 1  # type: ignore[attr-defined]
    handle = source._files._archive  # type: ignore[attr-defined]
    source.images([0])
    assert source._files._archive is not handle  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", ["../evil.png", "a/../../evil.png", "/evil.png"])
def test_zip_entry_that_leads_out_is_refused(tmp_path: Path, name: str) -> None:
    path = archive(tmp_path / "a.zip", {name: encoded(picture()), "good.png": encoded(picture())})
    with pytest.raises(ValueError, match="leads out of the archive"):
        ImageFolder(root=path, size=4)
    assert [p.name for p in tmp_path.iterdir()] == ["a.zip"]


def test_a_zip_of_windows_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as file:
        for name in ("photos\\a.png", "photos\\b\\c.png"):
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            file.writestr(entry, encoded(picture()))
    source = ImageFolder(root=path, size=4)
    assert [source.name(i) for i in range(2)] == ["photos/a.png", "photos/b/c.png"]
    assert source.images([0, 1]).shape == (2, 3, 4, 4)
    for name in ("..\\evil.png", "C:\\evil.png", "\\evil.png"):
        with zipfile.ZipFile(path, "w") as file:
            entry = zipfile.ZipInfo("x")
            entry.filename = name
            file.writestr(entry, encoded(picture()))
        with pytest.raises(ValueError, match="leads out of the archive"):
            ImageFolder(root=path, size=4)


def test_every_type_is_read_or_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.png", "b.tif", "c.gif", "d.tga", "e.txt"):
        picture().save(tmp_path / name, format="PNG" if name.endswith("txt") else None)
    (tmp_path / "Thumbs.db").write_text("x")
    (tmp_path / os.fsdecode(b"n\xff.png")).write_bytes(encoded(picture()))
    for _ in range(2):
        source = ImageFolder(root=tmp_path, size=4)
    names = [source.name(index) for index in range(len(source))]
    assert names == ["a.png", "b.tif", "c.gif", "n\\xff.png"]
    assert source.images(range(4)).shape == (4, 3, 4, 4)
    assert caplog.text.count("left out are 1 .tga") == 1


def test_faulty_files_are_found_without_training(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    for name in ("a.png", "b.jpg", "c.png", "d.webp"):
        Image.fromarray(noise).save(tmp_path / name)
    (tmp_path / "b.jpg").write_bytes((tmp_path / "b.jpg").read_bytes()[:900])
    (tmp_path / "c.png").write_text("text")
    with (tmp_path / "a.png").open("ab") as file:
        file.write(bytes(1000))  # behind the end, which readers do not mind
    source = ImageFolder(root=tmp_path, size=4)
    assert isinstance(source, FileSource)
    assert [name for name, _ in source.faults()] == ["b.jpg", "c.png"]


def test_an_oversized_entry_is_refused_by_its_header(tmp_path: Path) -> None:
    data = b"BM" + bytes(8) + bytes.fromhex("36000000 28000000 e02e0000 28230000 01001800")
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("a.bmp", data.ljust(400 << 20, b"\0"))
    source = ImageFolder(root=path, size=4)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"a\.bmp: 12000 x 9000 pixels"):
        source.images([0])
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10


def test_damaged_zip_entry_is_named(tmp_path: Path) -> None:
    path = archive(tmp_path / "a.zip", {"a.png": encoded(picture()), "b.png": b"\x89PNG"})
    path.write_bytes(path.read_bytes().replace(b"IDAT", b"IDAX", 1))
    source = ImageFolder(root=path, size=4)
    with pytest.raises(ValueError, match=r"a\.zip/a\.png: cannot be read \(Bad CRC"):
        source.images([0])
    with pytest.raises(ValueError, match=r"a\.zip/b\.png: cannot be read"):
        source.images([1])


def test_oversized_zip_entry_is_not_inflated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = encoded(picture()) + bytes(2 << 20)
    source = ImageFolder(root=archive(tmp_path / "b.zip", {"a.png": data}), size=4)
    monkeypatch.setenv("CLCAE_MAX_PICTURE_MIB", "1")
    with pytest.raises(ValueError, match=r"a\.png: 3 MiB, larger than .*PICTURE_MIB=3 allows"):
        source.images([0])


def test_file_that_is_no_zip(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_text("not an archive")
    with pytest.raises(ValueError, match=r"not a readable zip archive.*expected a folder"):
        ImageFolder(root=tmp_path / "a.zip", size=4)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no such folder; expected a folder of pictures"):
        ImageFolder(root=tmp_path / "none", size=4)
    with pytest.raises(FileNotFoundError, match=r"no picture found; .* ending in \.png"):
        ImageFolder(root=tmp_path, size=4)


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_truncated_file_is_named_when_asked_for(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[:700])
    picture().save(tmp_path / "b.png")
    source = ImageFolder(root=tmp_path, size=4)
    with pytest.raises(ValueError, match=rf"a\.{suffix}: cannot be read .*expected") as error:
        source.images([0, 1])
    assert "\n" not in str(error.value)
    assert source.images([1]).shape == (1, 3, 4, 4)


def test_crop_in_pixels_of_the_file(tmp_path: Path) -> None:
    pixels = np.zeros((8, 12, 3), dtype=np.uint8)
    pixels[2:6, 4:8] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert (ImageFolder(root=tmp_path, size=4, crop=4).images([0]) == 1).all()
    with pytest.raises(ValueError, match=r"a\.png: image is 8 x 12, smaller than the crop of 9"):
        ImageFolder(root=tmp_path, size=4, crop=(9, 4)).images([0])


@pytest.mark.parametrize(
    ("shape", "size"), [((8, 12), (4, 4)), ((12, 8), (4, 4)), ((256, 256), (12, 16))]
)
def test_aspect_crop_keeps_proportions(
    tmp_path: Path, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """A horizontal ramp keeps its slope: nothing is squashed."""
    ramp = np.linspace(0, 255, shape[1]).round().astype(np.uint8)
    pixels = np.broadcast_to(ramp[None, :, None], (*shape, 3))
    Image.fromarray(np.ascontiguousarray(pixels)).save(tmp_path / "a.png")
    image = ImageFolder(root=tmp_path, size=size, filter_name="bilinear").images([0])[0, 0, 0]
    assert image.shape == (size[1],)
    used = min(shape[1], shape[0] * size[1] / size[0])
    slope = float(image[2] - image[1]) * size[1] / used
    assert slope == pytest.approx(2 / (shape[1] - 1), rel=0.1)


def test_without_crop_the_file_is_squashed(tmp_path: Path) -> None:
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, 8:] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = ImageFolder(root=tmp_path, size=(8, 8), crop=None).images([0])
    assert image[0, 0, 0, 0] == -1
    assert image[0, 0, 0, -1] == 1


@pytest.mark.parametrize(
    "settings", [{"size": 0}, {"size": (4, -1)}, {"crop": 0}, {"filter_name": "nearest"}]
)
def test_settings_out_of_range(folder: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="expected"):
        ImageFolder(**{"root": folder, "size": 4, **settings})


@pytest.mark.parametrize("index", [-1, 4])
def test_index_outside(folder: Path, index: int) -> None:
    with pytest.raises(IndexError, match=f"index {index} of 4 images"):
        ImageFolder(root=folder, size=4).images([index])


def test_a_split_file_names_the_images_and_their_order(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c.png"):
        write_png(torch.zeros(3, 8, 8), tmp_path / "pictures" / name)
    split = tmp_path / "test.txt"
    split.write_text("c.png\n\na.png\n")
    folder = ImageFolder(root=tmp_path / "pictures", size=8, split=split)
    assert [folder.name(index) for index in range(len(folder))] == ["c.png", "a.png"]
    split.write_text("d.png\na.png\n")
    with pytest.raises(FileNotFoundError, match=r"1 of 2 pictures .*d\.png"):
        ImageFolder(root=tmp_path / "pictures", size=8, split=split)
    with pytest.raises(FileNotFoundError, match="no such split"):
        ImageFolder(root=tmp_path / "pictures", size=8, split=tmp_path / "other.txt")
