"""Files as a method takes them: the cutouts of a picture, or the inversion of an inversion file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from clcae.data.pictures import Item
from clcae.faces import Which, crop_faces, mtcnn_detector
from clcae.files import sha256
from clcae.images import read_image
from clcae.methods.interface import Inversion, InversionMethod
from clcae.methods.inversion_file import Maker, check_fit, check_origin, load_inversion
from clcae.photographs.codes import is_codes_file, read_codes
from clcae.photographs.cutouts import Cutout, Size, cut_middle
from clcae.photographs.whole import Whole, read_whole
from clcae.stylegan2 import LatentSpace

Part = Cutout | Inversion
Result = TypeVar("Result")


@dataclass(frozen=True)
class Photograph:
    """A picture file and its cutouts.

    Args:
        parts: one cutout, or one of each face from left to right.
        size: height and width, upright.
        sha256: digest of the file.
        whole: the picture that is put out again; None where results are as large as a cutout.
        refused: why other faces of the picture cannot be used.
    """

    parts: list[Cutout]
    size: Size
    sha256: str
    whole: Whole | None
    refused: Sequence[str] = ()


@dataclass(frozen=True)
class Stored:
    """An inversion file, or one of codes, in place of a picture; on the CPU."""

    parts: list[Inversion]
    sha256: str  # of the file
    refused: Sequence[str] = ()


class Reader:
    """Reads pictures, and with a `maker` inversion files and codes of other code too.

    Args:
        method: the method that goes on with what is read.
        faces: faces to crop as FFHQ does; None takes the middle of every picture. A picture that is
            such a crop already is taken whole.
        keep_image: keep the whole photograph, for results of its size.
        maker: description of the method, which inversion files must name; None takes every file for
            a picture.
        space: of codes, where their shape does not tell it.

    Raises:
        ValueError: if faces are asked for and the method reads no squares, or no detector is
            installed.
    """

    def __init__(
        self,
        method: InversionMethod,
        *,
        faces: Which | None,
        keep_image: bool = False,
        maker: Maker | None = None,
        space: LatentSpace | None = None,
    ) -> None:
        self.generator, self.space = method.generator, space
        self.shape = height, width = method.image_shape
        self.faces, self.keep_image, self.maker = faces, keep_image, maker
        device = method.device
        if faces is not None:
            if height != width:
                raise ValueError(
                    f"--align makes squares, this method reads {height} x {width} pixels"
                )
            self.detector = mtcnn_detector(device=device)
        if maker is not None:
            with torch.inference_mode():
                self.expected = method.reduced(method.form())

    def read(self, path: Path) -> Photograph | Stored:
        """Reads a file.

        Raises:
            ValueError: if it is no picture and no inversion file of the method, or shows no face
                that can be used.
        """
        return with_digest(path, self._read)

    def _read(self, path: Path, digest: Callable[[], str]) -> Photograph | Stored:
        if self.maker is not None and is_codes_file(path):
            if self.keep_image:
                raise ValueError("codes without their picture, which --align and --mask need")
            return Stored(read_codes(path, self.generator, space=self.space), digest())
        if self.maker is not None and path.suffix == ".safetensors":
            if self.keep_image:
                raise ValueError("an inversion file: --align and --mask need the picture itself")
            inversion, origin = load_inversion(path)
            check_origin(origin, self.maker)
            check_fit(inversion, self.expected)
            return Stored([inversion], digest())
        image, whole = read_whole(path) if self.keep_image else (read_image(path), None)
        cutouts, refused = [cut_middle(image, self.shape)], list[str]()
        if self.faces is not None:
            cutouts, refused = self._faces(image)
        return Photograph(cutouts, (image.shape[-2], image.shape[-1]), digest(), whole, refused)

    def _faces(self, image: Tensor) -> tuple[list[Cutout], list[str]]:
        """Crops the faces, and says of those that cannot be used why."""
        assert self.faces is not None
        crops, refused = crop_faces(image, self.faces, size=self.shape[0], detector=self.detector)
        if not crops:
            raise ValueError("; ".join(refused))
        return [
            Cutout(crop.image, crop.quad, "centre" if crop.was_aligned else "face")
            for _, crop in crops
        ], refused


def with_digest(path: Path, read: Callable[[Path, Callable[[], str]], Result]) -> Result:
    """Calls `read` with a file and what computes its sha256, which are of the same content.

    The digest takes all bytes of the file: `read` asks for it once nothing is left to refuse.

    Raises:
        ValueError: if the file changed meanwhile.
    """
    before = _state(path)
    result = read(path, partial(sha256, path))
    if _state(path) != before:
        raise ValueError("the file changed while it was read: run the command again")
    return result


def _state(path: Path) -> tuple[int, int, int]:
    """Identifies the content of a file as long as nobody writes to it."""
    state = path.stat()
    return state.st_ino, state.st_size, state.st_mtime_ns


def without_reconstructions(items: list[Item]) -> list[Item]:
    """Keeps inversion files alone where the reconstructions of invert.py lie beside them."""
    inversions = [item.path for item in items if item.path.suffix == ".safetensors"]
    beside = {path.with_suffix(".png") for path in inversions}
    kept = [item for item in items if item.path not in beside]
    names = {item.name for item in kept}
    shorter = [replace(item, name=item.name.removesuffix("_safetensors")) for item in kept]
    return [s if s.name not in names else item for s, item in zip(shorter, kept, strict=True)]
