"""Damaged pictures: each is read, or refused in one line; none hangs or fills memory."""

import io
import random
import re
import struct
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from clcae.data.folder import ImageFolder
from clcae.images import read_image
from clcae.picture_file import look

SECONDS = 20.0  # of all forms together
SLOWEST = 10.0  # of one file
MEMORY = 1536 << 10  # kibibytes by which the process may grow meanwhile
FORMS = ("png", "jpg", "webp", "bmp", "tif", "gif", "ppm", "avif", "zip")
LARGE = [struct.pack(order, value) for order in ["<I", ">I", "<H", ">H"] for value in (65535, 9000)]


def encoded(form: str) -> bytes:
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 4), dtype=np.uint8)
    buffer = io.BytesIO()
    if form == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.png", encoded("png"))
        return buffer.getvalue()
    mode = {"png": "RGBA", "tif": "CMYK", "gif": "P"}.get(form, "RGB")
    options: dict[str, object] = {}
    if form in ("png", "jpg", "webp", "avif"):
        exif = Image.Exif()
        exif[0x0112] = 6
        profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
        options = {"exif": exif, "icc_profile": profile}
    kind = Image.registered_extensions()[f".{form}"]
    Image.fromarray(noise).convert("RGB").convert(mode).save(buffer, format=kind, **options)
    return buffer.getvalue()


def damaged(data: bytes, rng: random.Random) -> bytes:
    """Changes bits, bytes and runs, cuts and doubles; half of the time near the header."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5))):
        if not changed:
            break
        place = rng.randrange(min(len(changed), 64) if rng.random() < 0.5 else len(changed))
        kind = rng.randrange(7)
        if kind < 2:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            changed[place] = rng.randrange(256)
        elif kind == 3:
            value = rng.choice(LARGE)
            changed[place : place + len(value)] = value
        elif kind == 4:
            del changed[place : place + rng.randrange(1, 64)]
        elif kind == 5:
            changed[place:place] = changed[place : place + rng.randrange(1, 64)]
        else:
            del changed[max(place, 16) :]
    return bytes(changed)


def memory(field: str) -> int:
    """Returns VmRSS or VmHWM of this process in kibibytes; 0 where the system does not tell."""
    status = Path("/proc/self/status")
    found = re.search(rf"{field}:\s+(\d+)", status.read_text()) if status.exists() else None
    return int(found[1]) if found else 0


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", FORMS)
def test_damaged_pictures(tmp_path: Path, form: str) -> None:
    data, rng = encoded(form), random.Random(form)
    path = tmp_path / ("a.zip" if form == "zip" else "a.png")
    path.write_bytes(data)
    assert (ImageFolder(root=path, size=8).images([0]) if form == "zip" else read_image(path)).ndim
    if Path("/proc/self/clear_refs").exists():
        Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = memory("VmRSS")
    refused = done = 0
    end = time.monotonic() + SECONDS / len(FORMS)
    while time.monotonic() < end:
        path.write_bytes(damaged(data, rng))
        start = time.monotonic()
        try:
            if form == "zip":
                source = ImageFolder(root=path, size=8)
                source.header(0)
                assert source.images([0]).shape == (1, 3, 8, 8)
            else:
                pixels = look(path, name=path).pixels
                assert pixels and read_image(path).shape[0] == 3
        except (ValueError, FileNotFoundError) as error:
            line = str(error)
            assert path.name in line and "\n" not in line and len(line) < 600, line
            refused += 1
        assert time.monotonic() - start < SLOWEST
        done += 1
    assert done > 20 and refused > done / 20
    assert memory("VmHWM") - before < MEMORY
