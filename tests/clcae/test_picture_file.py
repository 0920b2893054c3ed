"""Opening picture files: which formats, which bounds, and what is no file."""

import os
import re
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clcae.files import check_regular, sha256
from clcae.images import read_image
from clcae.picture_file import EXTENSIONS, OversizedError, look, opened, room_for, seems_cut

ROOT = Path(__file__).resolve().parents[2]


def bitmap(width: int, height: int) -> bytes:
    """The header of a BMP file."""
    size = width * height * 3
    head = b"BM" + (54 + size).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little")
    sides = (40).to_bytes(4, "little") + width.to_bytes(4, "little") + height.to_bytes(4, "little")
    return head + sides + b"\1\0\x18\0" + bytes(24)


@pytest.mark.parametrize("suffix", [s for s in EXTENSIONS if s not in (".heic", ".heif")])
def test_every_listed_type_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    mode = {".pgm": "L", ".pbm": "1"}.get(suffix, "RGB")
    kind = "JPEG" if suffix in (".jpe", ".jfif") else None
    Image.new("RGB", (6, 4), "white").convert(mode).save(path, format=kind)
    assert read_image(path).shape == (3, 4, 6) and read_image(path).min() > 0.9
    assert look(path, name=path).size == (4, 6)


def test_postscript_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ghostscript = tmp_path / "bin" / "gs"
    ghostscript.parent.mkdir()
    ghostscript.write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    ghostscript.chmod(0o755)
    monkeypatch.setenv("PATH", f"{ghostscript.parent}:{os.environ['PATH']}")
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    for source in (path, BytesIO(path.read_bytes())):
        with (
            pytest.raises(ValueError, match=r"a\.png: cannot be read \(not a picture\)"),
            opened(source, name=path),
        ):
            pass
    assert not (tmp_path / "executed").exists()


def test_formats_outside_the_list_stay_closed(tmp_path: Path) -> None:
    for kind in ("TGA", "ICO", "PCX", "JPEG2000", "SGI"):
        Image.new("RGB", (16, 16)).save(tmp_path / "a.png", format=kind)
        with pytest.raises(ValueError, match="not a picture"):
            read_image(tmp_path / "a.png")


def test_no_source_opens_pictures_of_any_format() -> None:
    sources = [
        path
        for folder in ("clcae", "editing", "training", "scripts", "benchmarks")
        for path in (ROOT / folder).rglob("*.py")
    ]
    calls = [
        call for path in sources for call in re.findall(r"Image\.open\([^\n]*", path.read_text())
    ]
    assert len(sources) > 100 and all("formats=" in call for call in calls)


def test_what_never_ends_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "zero.png").symlink_to("/dev/zero")
    (tmp_path / "self.png").symlink_to("self.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    (tmp_path / "folder.png").mkdir()
    reasons = {
        "pipe": "a pipe, not a file",
        "zero": "a device, not a file",
        "self": "cannot be read",
        "gone": "cannot be read",
        "folder": "a folder, not a file",
    }
    for name, reason in reasons.items():
        with pytest.raises(ValueError, match=rf"{name}\.png: {reason}"):
            read_image(tmp_path / f"{name}.png")
    for check in (check_regular, sha256):
        with pytest.raises(ValueError, match="a pipe"):
            check(tmp_path / "pipe.png")


def test_bounds_are_checked_by_the_header_and_raised_by_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.bmp"
    path.write_bytes(bitmap(12000, 9000))
    with pytest.raises(OversizedError, match=r"12000 x 9000 pixels.*CLCAE_MAX_MEGAPIXELS=109"):
        read_image(path)
    with pytest.raises(OversizedError), opened(BytesIO(bitmap(12000, 9000)), name="x"):
        pass
    monkeypatch.setenv("CLCAE_MAX_MEGAPIXELS", "109")
    assert look(path, name=path).pixels == 108_000_000
    path.write_bytes(bitmap(40000, 10))
    with pytest.raises(OversizedError) as refused:
        look(path, name=path)
    needed = re.search(r"CLCAE_MAX_MEGAPIXELS=(\d+)", str(refused.value))
    assert needed
    monkeypatch.setenv("CLCAE_MAX_MEGAPIXELS", needed[1])
    assert look(path, name=path).size == (10, 40000)
    monkeypatch.setenv("CLCAE_MAX_MEGAPIXELS", "many")
    with pytest.raises(ValueError, match="CLCAE_MAX_MEGAPIXELS is 'many'"):
        look(path, name=path)


def test_bytes_are_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.png"
    Image.new("RGB", (4, 4)).save(path)
    with path.open("ab") as file:
        file.truncate(3 << 20)
    assert read_image(path).shape == (3, 4, 4)
    monkeypatch.setenv("CLCAE_MAX_PICTURE_MIB", "2")
    with pytest.raises(OversizedError, match=r"3 MiB, larger than 2 MiB.*PICTURE_MIB=3"):
        read_image(path)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif"])
def test_sizes_are_those_of_the_upright_picture(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (10, 6)).save(path, exif=exif)
    assert look(path, name=path).size == (10, 6) == tuple(read_image(path).shape[1:])


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp"])
def test_the_end_tells_what_was_cut(tmp_path: Path, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    path = tmp_path / f"a.{suffix}"
    Image.fromarray(noise).save(path)
    assert not seems_cut(path)
    path.write_bytes(path.read_bytes()[:-40])
    assert seems_cut(path)


def test_threads_share_the_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLCAE_MAX_MEGAPIXELS", "1")
    held, most, lock = 0, 0, threading.Lock()

    def work(pixels: int) -> None:
        nonlocal held, most
        for _ in range(200):
            with room_for(pixels):
                with lock:
                    held += 1
                    most = max(most, held)
                with lock:
                    held -= 1

    for pixels, expected in ((600_000, 1), (5_000_000, 1), (300_000, 3)):
        most = 0
        threads = [threading.Thread(target=work, args=(pixels,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
        assert not any(thread.is_alive() for thread in threads) and 1 <= most <= expected
