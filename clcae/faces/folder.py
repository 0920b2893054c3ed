"""A folder of crops: what they are called, which are finished, and what must not be replaced."""

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor

from clcae.faces.alignment import Crop
from clcae.faces.face import Which
from clcae.faces.record import Record, read_record, write_record
from clcae.images import write_png


class CropFolder:
    """A folder into which crops of many photographs are written, each with its record.

    The crop of `anna.jpg` is `anna.png` with `anna.json`; several are `anna-0`, `anna-1`, ... A
    record is written last, so that a crop with a record is finished.

    Args:
        root: The folder.
        size: Pixels of a crop, on each side.
        which: The faces that are asked for.
        overwrite: Replace what an earlier run has left.
    """

    def __init__(self, *, root: Path, size: int, which: Which, overwrite: bool) -> None:
        self.root = root
        self.size = size
        self.which = which
        self.overwrite = overwrite
        self._written: set[str] = set()

    def finished(self, name: str, source: Path, *, frame: str | None = None) -> bool:
        """Whether an earlier run has made all crops of a photograph.

        Args:
            name: What the crops are called.
            source: The photograph, or the video.
            frame: Of the video.

        Raises:
            ValueError: It made them with other settings, or a record is damaged.
        """
        if self.overwrite:
            return False
        for first in (name, f"{name}-0"):
            record = self._record(first)
            if record is None or not _same(record, source, frame):
                continue
            self._check(first, record, source, frame)
            stems = _stems(name, record.num_crops)
            return all(self._record(s) and self._path(s, "png").is_file() for s in stems)
        return False

    def write(
        self,
        name: str,
        source: Path,
        photograph: Tensor,  # [3, H, W]
        crops: Sequence[tuple[int, Crop]],
        *,
        frame: str | None = None,
    ) -> None:
        """Writes the crops of a photograph, and removes what an earlier run left of others.

        Args:
            name: What they are called.
            source: The photograph, or the video.
            photograph: Its pixels.
            crops: The crops, each with the number of its face.
            frame: Of the video.

        Raises:
            ValueError: A name belongs to another photograph, to crops of other settings, or to the
                photograph itself.
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
            write_png(crop.image, self._path(stem, "png"))
            record = Record(
                source=str(source.resolve()),
                frame=frame,
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
        if not path.exists():
            return None
        try:
            return read_record(path)
        except ValueError:
            if self.overwrite:
                return None
            raise

    def _earlier(self, name: str, source: Path, frame: str | None) -> list[str]:
        """Names of the crops that an earlier run has left of a photograph."""
        stems = [name]
        while self._path(following := f"{name}-{len(stems) - 1}", "json").exists():
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


def _same(record: Record, source: Path, frame: str | None) -> bool:
    return (record.source, record.frame) == (str(source.resolve()), frame)


def _stems(name: str, count: int) -> list[str]:
    return [name] if count == 1 else [f"{name}-{index}" for index in range(count)]
