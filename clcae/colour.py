"""Converts between sRGB and the colour profile (ICC) that a picture file carries."""

import logging
from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import Image, ImageCms

from clcae.quoting import one_line

_LARGEST_PROFILE = 16 << 20  # bytes
_SAME = 2  # levels by which a profile may differ from sRGB and still be taken for it
_SPACES = {"RGB": "RGB", "L": "GRAY", "CMYK": "CMYK"}  # mode -> colour space of its profiles
_log = logging.getLogger(__name__)


def to_srgb(
    picture: Image.Image,  # of any mode with 8 bits, without transparency
    profile: bytes | None,
) -> Image.Image:
    """Converts a picture from its profile to sRGB; without one, or with sRGB, returns it as it is.

    A profile that is damaged or of other channels is left aside, with a line.
    """
    if profile is None:
        return picture
    mode = picture.mode if picture.mode in _SPACES else "RGB"
    change = _change(bytes(profile[: _LARGEST_PROFILE + 1]), mode)
    if change is None:
        return picture
    return change.apply(picture if picture.mode == mode else picture.convert(mode))


def from_srgb(picture: Image.Image, profile: bytes) -> Image.Image:
    """Converts an RGB picture from sRGB to a profile; the inverse of `to_srgb` to rounding."""
    if _change(profile, "RGB") is None:
        return picture
    target = ImageCms.ImageCmsProfile(BytesIO(profile))
    return _transform(ImageCms.createProfile("sRGB"), target, "RGB", "RGB").apply(picture)


def fits_rgb(profile: bytes | None) -> bool:
    """Tests whether a profile is one of RGB pixels."""
    if profile is None:
        return False
    try:
        opened = ImageCms.ImageCmsProfile(BytesIO(profile))
    except (OSError, ValueError, TypeError):
        return False
    return str(opened.profile.xcolor_space).strip() == "RGB"


@lru_cache(maxsize=16)  # the pictures of a folder tend to share one
def _change(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Builds the conversion from a profile; None where there is none to make."""
    try:
        if len(profile) > _LARGEST_PROFILE:
            raise ValueError(f"more than {_LARGEST_PROFILE >> 20} MiB")
        source = ImageCms.ImageCmsProfile(BytesIO(profile))
        space = str(source.profile.xcolor_space).strip()
        if space != _SPACES[mode]:
            raise ValueError(f"a profile of {space} in a picture of {_SPACES[mode]}")
        change = _transform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (OSError, ValueError, TypeError, ImageCms.PyCMSError) as error:
        reason = one_line(error, 200)
        _log.warning("a colour profile is left aside, which cannot be used (%s)", reason)
        return None
    return None if mode == "RGB" and _is_same(change) else change


def _transform(
    source: ImageCms.ImageCmsProfile | object, target: object, mode: str, into: str
) -> ImageCms.ImageCmsTransform:
    return ImageCms.buildTransform(source, target, mode, into)  # type: ignore[arg-type]


def _is_same(change: ImageCms.ImageCmsTransform) -> bool:
    """Tests on a grid of colours whether a conversion leaves them as they are."""
    axis = np.linspace(0, 255, 9).round().astype(np.uint8)
    grid = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(27, 27, 3)
    found = np.asarray(change.apply(Image.fromarray(grid))).astype(int)
    return bool(np.abs(found - grid).max() <= _SAME)
