"""A folder of crops, each with a JSON record with which it can be pasted back.

The crop of `anna.jpg` is `anna.png` with `anna.json`; several are `anna-0`, `anna-1`, ... A record
is written last: a crop with a record is finished. Coordinates are those of the upright picture, its
EXIF orientation applied.
"""

import errno
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from clcae.faces.alignment import Crop, Which
from clcae.files import write_text
from clcae.images import write_png
from clcae.quoting import one_line, parse_json, shown

LARGEST_RECORD = 1 << 16  # bytes
LARGEST_NUMBER = 1 << 24


@dataclass(frozen=True)
class Record:
    """Describes where a crop comes from.

    Args:
        source: path of the photograph or the video.
        frame: name of the frame in a video; None in a photograph.
        sha256: digest of that file; None in records that were written without it.
        height: of the photograph, in pixels.
        width: of the photograph, in pixels.
        size: pixels of the crop's side.
        faces: the faces that were asked for: "largest", "all" or an index.
        number: index of the face in the photograph, from 0 at the left.
        num_crops: number of crops of the photograph.
        was_aligned: whether the photograph was such a crop already.
        quad: corners of the crop [4, 2]: top left, bottom left, bottom right, top right.
        landmarks: [5, 2] pixels of the photograph.
    """

    source: str
    frame: str | None
    sha256: str | None
    height: int
    width: int
    size: int
    faces: str
    number: int
    num_crops: int
    was_aligned: bool
    quad: Tensor
    landmarks: Tensor


_KINDS = {
    **dict.fromkeys(("source", "faces"), str),
    **dict.fromkeys(("height", "width", "size", "number", "num_crops"), int),
    "was_aligned": bool,
}


def write_record(record: Record, path: str | Path) -> None:
    """Writes a record as JSON."""
    fields = {
        key: value.tolist() if isinstance(value, Tensor) else value
        for key, value in vars(record).items()
    }
    write_text(path, json.dumps(fields, indent=1) + "\n")


def read_record(path: str | Path) -> Record:
    """Reads and checks a record.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it is no record, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; expected the record beside a crop")
    try:
        with path.open(encoding="utf-8") as file:
            fields = parse_json(file.read(LARGEST_RECORD))
        for key, kind in _KINDS.items():
            if type(fields[key]) is not kind:
                raise TypeError(f"{key} is {shown(fields[key])}")
        numbers = {key: fields[key] for key, kind in _KINDS.items() if kind is int}
        for key, number in numbers.items():
            if number < (key != "number") or number > LARGEST_NUMBER:
                raise ValueError(f"{key} is {shown(number)}")
        frame, digest = fields["frame"], fields.get("sha256")
        for value in (frame, digest):
            if not isinstance(value, str | None):
                raise TypeError(f"frame or digest is {shown(value)}")
        quad, landmarks = _points(fields["quad"], 4), _points(fields["landmarks"], 5)
        values = {key: fields[key] for key in _KINDS}
        return Record(**values, frame=frame, sha256=digest, quad=quad, landmarks=landmarks)
    except (ValueError, KeyError, TypeError, RuntimeError) as error:
        reason = one_line(f"{type(error).__name__}: {error}", 80)
        raise ValueError(f"{path}: no record of a crop, or damaged ({reason})") from error


def _points(values: object, count: int) -> Tensor:
    points = torch.tensor(values, dtype=torch.float64)
    if points.shape != (count, 2) or not torch.isfinite(points).all():
        raise ValueError(f"points of shape {tuple(points.shape)}")
    return points


class CropFolder:
    """Writes the crops of many photographs into a folder, and knows which are finished.

    Args:
        root: the folder.
        size: pixels of a crop's side.
        which: the faces that are asked for.
        overwrite: replace what an earlier run has left.
    """

    def __init__(self, *, root: Path, size: int, which: Which, overwrite: bool) -> None:
        self.root = root
        self.size = size
        self.which = which
        self.overwrite = overwrite
        self.outdated: dict[
            str, str | None
        ] = {}  # names to crop anew, digest of their earlier file
        self._written: set[str] = set()

    def finished(
        self, name: str, source: Path, digest: Callable[[], str], *, frame: str | None = None
    ) -> bool:
        """Tests whether an earlier run has made all crops of a photograph, or of a video's frame.

        Args:
            name: of the crops.
            source: file of the photograph, or of the video.
            digest: computes the sha256 of that file, where there is something to compare it with.
            frame: name of the frame in a video.

        Raises:
            ValueError: if it made them with other settings, or a record is damaged.
        """
        if self.overwrite:
            return False
        for first in (name, f"{name}-0"):
            record = self._record(first)
            if record is None or not _same(record, source, frame):
                continue
            self._check(first, record, source, frame)
            stems = _stems(name, record.num_crops)
            records = [self._record(stem) for stem in stems]
            if not all(self._path(stem, "png").is_file() for stem in stems) or None in records:
                return False
            digests = {each.sha256 for each in records if each is not None}
            if digests == {digest()}:
                return True
            self.outdated[name] = record.sha256
        return False

    def write(
        self,
        name: str,
        source: Path,
        photograph: Tensor,  # [3, H, W]
        crops: Sequence[tuple[int, Crop]],
        *,
        digest: str,
        frame: str | None = None,
    ) -> None:
        """Writes the crops of a photograph, and removes crops of it that an earlier run left.

        Args:
            name: of the crops.
            source: file of the photograph, or of the video.
            photograph: its pixels.
            crops: each with the index of its face.
            digest: sha256 of the source.
            frame: name of the frame in a video.

        Raises:
            ValueError: if a name belongs to another photograph, to crops of other settings, or to
                the photograph itself.
        """
        stems = _stems(name, len(crops))
        for stem in stems:
            record = self._record(stem)
            if record is not None and (stem in self._written or not self.overwrite):
                self._check(stem, record, source, frame)
            if self._path(stem, "png").resolve() == source.resolve():
                raise ValueError("the crop would replace the photograph: give another --out")
        stale = set(self._earlier(name, source, frame)) - set(stems)
        height, width = photograph.shape[-2:]
        for stem, (number, crop) in zip(stems, crops, strict=True):
            # A crop without a record is unfinished, whatever lay there before.
            self._path(stem, "json").unlink(missing_ok=True)
            write_png(crop.image, self._path(stem, "png"))
            record = Record(
                source=str(source.resolve()),
                frame=frame,
                sha256=digest,
                height=height,
                width=width,
                size=self.size,
                faces=str(self.which),
                number=number,
                num_crops=len(crops),
                was_aligned=crop.was_aligned,
                quad=crop.quad,
                landmarks=crop.landmarks,
            )
            write_record(record, self._path(stem, "json"))
            self._written.add(stem)
        for stem in stale:
            self._path(stem, "json").unlink()
            self._path(stem, "png").unlink(missing_ok=True)

    def _path(self, stem: str, suffix: str) -> Path:
        return self.root / f"{stem}.{suffix}"

    def _record(self, stem: str) -> Record | None:
        path = self._path(stem, "json")
        if not is_there(path):
            return None
        try:
            return read_record(path)
        except ValueError:
            if self.overwrite:
                return None
            raise

    def _earlier(self, name: str, source: Path, frame: str | None) -> list[str]:
        """Lists the crops that an earlier run has left of a photograph."""
        stems = [name]
        while is_there(self._path(following := f"{name}-{len(stems) - 1}", "json")):
            stems.append(following)
        records = {stem: self._record(stem) for stem in stems}
        return [stem for stem, r in records.items() if r is not None and _same(r, source, frame)]

    def _check(self, stem: str, record: Record, source: Path, frame: str | None) -> None:
        path = self._path(stem, "json")
        if not _same(record, source, frame):
            raise ValueError(f"{path} belongs to {record.source}: give another --out")
        if (record.size, record.faces) != (self.size, str(self.which)):
            raise ValueError(
                f"{path} was made with --size {record.size} --faces {record.faces}: give these, "
                "another --out, or --overwrite"
            )


def is_there(path: Path) -> bool:
    """Tests for a file; False where its name is too long for any."""
    try:
        return path.exists()
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        return False


def _same(record: Record, source: Path, frame: str | None) -> bool:
    return (record.source, record.frame) == (str(source.resolve()), frame)


def _stems(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}-{index}" for index in range(count)]
