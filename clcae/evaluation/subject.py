"""The subject of an evaluation: a method on a source of pictures, or two folders of pictures."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clcae.data.folder import ImageFolder
from clcae.data.generated import GeneratedCodes
from clcae.data.pictures import find_items, is_picture
from clcae.data.sources import ImageSource
from clcae.evaluation.preparation import Size, size_text
from clcae.evaluation.protocol import Protocol
from clcae.evaluation.tally import RECONSTRUCTION, Observations
from clcae.evaluation.true_edits import TrueEditGroups
from clcae.images import read_image
from clcae.methods.interface import InversionMethod
from clcae.picture_file import MEGAPIXELS, largest_pixels, look, room_for
from clcae.portraits import TrueEditImages

LARGEST_BATCH = 64
BATCH_OF_FILES = 16
BATCH_OF_TRUE_EDITS = 16
COMPARED = 5  # times the memory of reading that measuring a picture at its full size takes


@dataclass(frozen=True)
class Subject:
    """What is evaluated on which pictures.

    Args:
        spaces: a row each.
        size: height and width at which pictures are compared, before any preparation.
        files: those of the smallest file.
        method: None where files are compared.
        shape: height and width at which the method is given pictures.
    """

    name: str
    source: ImageSource
    spaces: tuple[str, ...]
    size: Size
    files: Size
    batch_size: int
    method: InversionMethod | None = None
    shape: Size = (0, 0)

    def digest(self) -> str:
        """Computes sha256 over the names of the pictures, and the sizes of their files."""
        digest = hashlib.sha256()
        for index in range(len(self.source)):
            digest.update(f"{self.source.name(index)}\n".encode())
        for path in _files(self.source):
            digest.update(f"{path.stat().st_size if path.is_file() else 0}\n".encode())
        return digest.hexdigest()


def method_subject(
    method: InversionMethod,
    *,
    name: str,
    pictures: Callable[[Size], ImageSource],
    shape: Size,
    outputs: str | Sequence[str] | None,
    batch_size: int | None,
    protocol: Protocol,
    enlarge: bool,
) -> Subject:
    """Makes a method the subject.

    Args:
        method: as it is to be run.
        name: in rows.
        pictures: opens the source; the files of a folder at this height and width.
        shape: height and width at which the method is given the files of a folder.
        outputs: those that are measured; None is all.
        batch_size: pictures at once; None is by the generator.
        protocol: says how large pictures of a folder are compared.
        enlarge: whether files may be enlarged for that.

    Raises:
        ValueError: if the method lacks an output, no file can be read, or files are too small.
    """
    spaces = _asked(method, outputs)
    source = pictures(shape)
    files = smallest_size(source)
    if isinstance(source, ImageFolder):
        size = _canvas(protocol, shape, method.generator.resolution, files, enlarge=enlarge)
        source = pictures(size)
    else:
        shape = size = files
    if not enlarge:
        check_sizes(protocol, size, files)
    return Subject(
        name=name,
        source=source,
        spaces=spaces,
        size=size,
        files=files,
        batch_size=batch_size or min(LARGEST_BATCH, method.generator.at_once),
        method=method,
        shape=shape,
    )


def generated_subject(
    method: InversionMethod,
    codes: Callable[..., GeneratedCodes],
    *,
    name: str,
    outputs: str | Sequence[str] | None,
    batch_size: int | None,
) -> Subject:
    """Makes a method the subject, on pictures of its own generator.

    Arguments are those of `method_subject`; `codes` makes the source for a dimension of z.

    Raises:
        ValueError: if the method lacks an output.
    """
    return Subject(
        name=name,
        source=codes(dimension=method.generator.z_dim),
        spaces=_asked(method, outputs),
        size=method.image_shape,
        files=method.image_shape,
        batch_size=batch_size or min(LARGEST_BATCH, method.generator.at_once),
        method=method,
        shape=method.image_shape,
    )


def true_edits_subject(
    method: InversionMethod,
    images: TrueEditImages,
    *,
    name: str,
    outputs: str | Sequence[str] | None,
    batch_size: int | None,
    protocol: Protocol,
) -> Subject:
    """Makes a method the subject, on portraits with the true edits that a protocol names.

    Arguments are those of `method_subject`; a batch of pictures has as many of every edit.

    Raises:
        ValueError: if the method lacks an output, the pictures lack an edit, or it moves another
            attribute.
    """
    edits = {name: edit for name, edit in protocol.edits.items() if edit.amount is not None}
    if not edits:
        raise ValueError("the protocol has no true edits: protocol=true_edits")
    for key, edit in edits.items():
        if key in images.edits and edit.attribute != (own := images.edits[key].attribute):
            raise ValueError(
                f"protocol.edits.{key}.attribute is {edit.attribute!r}: this true edit moves {own}"
            )
    size = (images.size, images.size)
    return Subject(
        name=name,
        source=TrueEditGroups(images, {name: edit.amount or 0.0 for name, edit in edits.items()}),
        spaces=_asked(method, outputs),
        size=size,
        files=size,
        batch_size=batch_size or min(BATCH_OF_TRUE_EDITS, method.generator.at_once),
        method=method,
        shape=size,
    )


def _asked(method: InversionMethod, outputs: str | Sequence[str] | None) -> tuple[str, ...]:
    """Returns the outputs that are measured, in the method's order. Raises ValueError."""
    asked = [outputs] if isinstance(outputs, str) else outputs
    if unknown := [output for output in asked or () if output not in method.outputs]:
        known = ", ".join(method.outputs)
        raise ValueError(f"output is {unknown[0]!r}, {type(method).__name__} has {known}")
    if asked is not None and not asked:
        raise ValueError(f"outputs is empty: expected some of {', '.join(method.outputs)}")
    return tuple(output for output in method.outputs if asked is None or output in asked)


def folder_subject(
    reconstructions: str,
    originals: str,
    *,
    name: str | None,
    batch_size: int | None,
    protocol: Protocol,
    enlarge: bool,
) -> Subject:
    """Makes two folders of pictures the subject. Raises as `PairedFolders`, `check_sizes` do."""
    pairs = PairedFolders(reconstructions=reconstructions, originals=originals)
    size = smallest_size(pairs)
    pixels, most = size[0] * size[1], largest_pixels() // COMPARED
    if pixels > most:
        raise ValueError(
            f"{reconstructions}: pictures of {size_text(size)} pixels are compared at full size; "
            f"expected at most {most // 10**6} megapixels: scale them down, or allow it by the "
            f"environment variable {MEGAPIXELS}={COMPARED * pixels // 10**6 + 1}"
        )
    if not enlarge:
        check_sizes(protocol, size, size)
    return Subject(
        name=name or Path(reconstructions).name,
        source=pairs,
        spaces=(pairs.space,),
        size=size,
        files=size,
        batch_size=batch_size or max(min(BATCH_OF_FILES, most // pixels), 1),
    )


class PairedFolders:
    """Reads pairs of reconstruction and original from two folders.

    Pictures belong together where their paths below the folders are the same, endings aside; other
    files are left out, such as the inversion files and settings of invert.py. As an
    image source it gives both pictures on each other, [N, 6, H, W]: `observe` parts them again.

    Raises:
        FileNotFoundError: if a folder is missing or empty.
        ValueError: if a file of either has no partner in the other; all are listed.
    """

    space = "files"

    def __init__(self, *, reconstructions: str, originals: str) -> None:
        made, given = _pictures_in(reconstructions), _pictures_in(originals)
        lonely = [
            f"{len(names)} of {len(files)} in {folder} have no partner ({', '.join(sorted(names))})"
            for folder, files, names in (
                (reconstructions, made, made.keys() - given.keys()),
                (originals, given, given.keys() - made.keys()),
            )
            if names
        ]
        if lonely:
            raise ValueError("; ".join(lonely))
        self.pairs = [(name, made[name], given[name]) for name in sorted(made)]

    def __len__(self) -> int:
        return len(self.pairs)

    def name(self, index: int) -> str:
        """Returns the path below the folders, without ending."""
        return self.pairs[index][0]

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Reads [N, 6, H, W] in [-1, 1]: reconstruction, then original.

        Raises:
            ValueError: if a file cannot be read, or sizes differ.
        """
        stacked = []
        for index in torch.as_tensor(indices).tolist():
            name, made, given = self.pairs[index]
            with room_for(look(made, name=made).pixels + look(given, name=given).pixels):
                pair = read_image(made), read_image(given)
                if pair[0].shape != pair[1].shape:
                    sizes = [f"{p.shape[-2]} x {p.shape[-1]}" for p in pair]
                    raise ValueError(f"{name} is {sizes[0]}, its original {sizes[1]}")
                stacked.append(torch.cat(pair))
        return torch.stack(stacked)

    @staticmethod
    def observe(images: Tensor) -> Observations:
        """Returns the stream of reconstructions, of one space."""
        return {PairedFolders.space: {RECONSTRUCTION: (images[:, :3], images[:, 3:])}}


def smallest_size(source: ImageSource) -> Size:
    """Finds the least height and width of the files of a source, after the source's own crop.

    Files that are no pictures are left out; reading them says what is wrong. What is no folder
    has pictures as large as it gives them.

    Raises:
        ValueError: if no file has a size, or pairs of files differ in size.
    """
    if isinstance(source, PairedFolders):
        sizes = [size for _, *pair in source.pairs for path in pair if (size := _size_of(path))]
        _check_equal(source, sizes)
    elif isinstance(source, ImageFolder):
        sizes = [_cropped(size, source) for size in _sizes_in(source)]
    else:
        height, width = source.images([0]).shape[-2:]
        return height, width
    if not sizes:
        raise ValueError(f"none of {len(source)} files can be read as a picture")
    return min(size[0] for size in sizes), min(size[1] for size in sizes)


def check_sizes(protocol: Protocol, own: Size, source: Size) -> None:
    """Refuses a protocol that asks for more pixels than the files have.

    Raises:
        ValueError: if it does; names the metrics.
    """
    large = {
        spec.name: spec.preparation.shape(own)
        for spec in protocol.measures
        if spec.preparation and spec.preparation.too_large_for(own, source)
    }
    if large:
        height, width = next(iter(large.values()))
        raise ValueError(
            f"{', '.join(large)}: {height} x {width} is asked of pictures of "
            f"{source[0]} x {source[1]}, too small for this protocol; enlarge=true enlarges them, "
            "and rows say so"
        )


def _canvas(
    protocol: Protocol, shape: Size, resolution: int, files: Size, *, enlarge: bool
) -> Size:
    """Returns the size at which pictures of a folder are read and compared.

    That is `shape`, which the method reads, or by protocol that of the generator's pictures where
    files are large enough, or the largest that a metric asks for where they are not.
    """
    if protocol.pictures == "input":
        return shape
    full = _scaled(shape, resolution)
    if enlarge or (files[0] >= full[0] and files[1] >= full[1]):
        return full
    asked = [spec.preparation.size for spec in protocol.measures if spec.preparation is not None]
    if None in asked:
        return full
    return _scaled(shape, max(max(s) if isinstance(s, tuple) else s for s in asked if s))


def _scaled(shape: Size, longer: int) -> Size:
    """Scales a shape to another longer side."""
    factor = longer / max(shape)
    return round(shape[0] * factor), round(shape[1] * factor)


def _check_equal(source: PairedFolders, sizes: list[Size]) -> None:
    if len({*sizes}) < 2:
        return
    for name, *pair in source.pairs:
        made, given = map(_size_of, pair)
        if made and given and made != given:
            said = f"{pair[0]} is {size_text(made)} and {pair[1]} is {size_text(given)}"
            raise ValueError(f"{name}: {said}: expected one size of all pictures")
    found = ", ".join(sorted({size_text(size) for size in sizes}))
    raise ValueError(f"pictures are {found}: expected one size of all pictures")


def _pictures_in(folder: str) -> dict[str, Path]:
    """Lists the pictures of a folder by their names."""
    return {item.name: item.path for item in find_items([folder]) if is_picture(item.path.name)}


def _sizes_in(source: ImageFolder) -> Iterator[Size]:
    for index in range(len(source)):
        try:
            yield source.header(index).size
        except (ValueError, OSError):
            continue  # reading says what is wrong with it


def _size_of(file: Path) -> Size | None:
    """Reads height and width, upright, from a header; None where it is no picture's."""
    try:
        return look(file, name=file).size
    except (ValueError, OSError):
        return None


def _cropped(size: Size, source: ImageFolder) -> Size:
    height, width = size
    if source.crop is None:
        return size
    if source.crop == "aspect":
        rows, columns = source.size
        factor = min(height / rows, width / columns)
        return round(rows * factor), round(columns * factor)
    assert not isinstance(source.crop, str)
    return min(source.crop[0], height), min(source.crop[1], width)


def _files(source: ImageSource) -> list[Path]:
    if isinstance(source, PairedFolders):
        return [path for _, *pair in source.pairs for path in pair]
    if isinstance(source, ImageFolder):
        return source.files()
    return []
