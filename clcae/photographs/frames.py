"""Videos: folders of frames, and video files that ffmpeg takes apart."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from clcae.data.pictures import Item, find_items, matching_paths
from clcae.files import check_regular


def find_videos(given: Sequence[str]) -> dict[str, Path]:
    """Lists folders of frames and video files by the names of their results.

    Raises:
        FileNotFoundError: if there is none of a name or pattern.
        ValueError: if two have the same name.
    """
    videos: dict[str, Path] = {}
    for text in given:
        for path in matching_paths(text):
            name = path.resolve().stem if path.is_file() else path.resolve().name
            if videos.setdefault(name, path) is not path:
                raise ValueError(
                    f"{path}: its results are called {name} as those of {videos[name]}"
                )
    return videos


@contextmanager
def open_frames(path: Path) -> Iterator[list[Item]]:
    """Yields the frames of a folder, or of a video file while the block runs, in their order.

    Raises:
        ValueError: if ffmpeg is missing or cannot read the file.
    """
    if path.is_dir():
        yield _in_order(find_items([path]))
        return
    check_regular(path)
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        raise ValueError(
            f"{path}: a video file is read by ffmpeg, which is not installed; install it, or give "
            "a folder of frames"
        )
    with tempfile.TemporaryDirectory(prefix="align-") as frames:
        command = [ffmpeg, "-nostdin", "-v", "error", "-i", str(path.resolve()), "%06d.png"]
        done = subprocess.run(command, cwd=frames, capture_output=True, text=True, errors="replace")
        if done.returncode or not any(Path(frames).iterdir()):
            said = done.stderr.strip().splitlines() or ["no frame in it"]
            raise ValueError(f"{path}: ffmpeg cannot read it ({said[-1].strip()})")
        yield _in_order(find_items([frames]))


def _in_order(items: list[Item]) -> list[Item]:
    """Sorts by name, numbers by their value: frame10 comes after frame9."""

    def key(item: Item) -> list[tuple[int, int | str]]:
        parts = re.findall(r"\d+|\D+", item.name, flags=re.ASCII)
        return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]

    return sorted(items, key=key)
