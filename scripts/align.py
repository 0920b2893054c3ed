"""Photographs into the aligned crops that encoders read; see --help."""

import argparse
import glob
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from clcae import faces
from clcae.data.pictures import Item, find_items, read_photograph
from clcae.device import pick_device
from clcae.faces import Crop, CropFolder, Detector, Which
from clcae.ops.memory import keep_freed_memory
from clcae.photographs.account import Account, read_ahead
from clcae.photographs.arguments import which_faces
from clcae.photographs.passes import reported

NAME = "align.py"
EXAMPLES = """
examples:
  python scripts/align.py photo.jpg --out crops
      crops/photo.png, the largest face, and crops/photo.json, with which it is pasted back
  python scripts/align.py holiday 'more/*.png' --out crops --size 1024 --faces all
      folders with all below them, patterns; several faces become anna-0.png, anna-1.png, ...
      from left to right
  python scripts/align.py photo.jpg --out crops --faces 1
      the second face from the left
  python scripts/align.py frames --out crops --video
      a folder of frames in the order of their names: one face is followed, and its landmarks are
      smoothed over time; crops/frames/0001.png, ... A video file does where ffmpeg is installed

The crop is that of FFHQ, by the eyes and the mouth. A square picture that is such a crop already
(within 10 %) is only resized. Faces in profile, and faces whose crop would take fewer than 48
pixels of the photograph, are skipped. The same command again goes on where it stopped. The exit
status is 1 where anything was skipped.
"""
_AHEAD = 2  # photographs in memory beside the one at hand; one can take 1 GiB


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; 0, or 1 where something was skipped or failed. SystemExit 2: usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.video and options.faces == "all":
        parser.error("--video follows one face: --faces largest or a number")
    return reported(NAME, lambda: _align(options))


def _align(options: argparse.Namespace) -> Account:
    folder = CropFolder(
        root=options.out, size=options.size, which=options.faces, overwrite=options.overwrite
    )
    account = Account()
    device = pick_device(options.device)
    detector = faces.mtcnn_detector(device=device)
    if options.video:
        for name, path in _videos(options.photos).items():
            try:
                _align_video(name, path, folder, detector, device, account)
            except ValueError as error:
                account.skip(path, error)
    else:
        items = find_items(options.photos, without=options.out)
        _align_photographs(items, folder, detector, device, account)
    return account


def _align_photographs(
    items: list[Item],
    folder: CropFolder,
    detector: Detector,
    device: torch.device,
    account: Account,
) -> None:
    waiting = []
    for item in items:
        try:
            if folder.finished(item.name, item.path):
                account.kept.append(item.name)
            else:
                waiting.append(item)
        except ValueError as error:
            account.skip(item.path, error)
    bar = tqdm(waiting, unit="photograph", disable=None)
    for item, image in read_ahead(bar, read_photograph, account, ahead=_AHEAD):
        image = image.to(device)
        try:
            crops = _crops(image, item, folder, detector, account)
            if crops:
                folder.write(item.name, item.path, image, crops)
                account.done.append(item.name)
        except ValueError as error:
            account.skip(item.path, error)


def _crops(
    image: Tensor,  # [3, H, W]
    item: Item,
    folder: CropFolder,
    detector: Detector,
    account: Account,
) -> list[tuple[int, Crop]]:
    """The crops of a photograph with the numbers of their faces; of all, those that will do."""
    found = faces.choose(detector.detect(image), "all")
    chosen = faces.choose(found, folder.which)
    crops = []
    for face in chosen:
        number = next(index for index, other in enumerate(found) if other is face)
        try:
            better = faces.look_again(image, face, detector=detector)
            crops.append((number, faces.align_face(image, better, size=folder.size)))
        except ValueError as error:
            which = f" (face {number} of {len(found)} from 0 at the left)" if len(found) > 1 else ""
            account.skip(item.path, f"{error}{which}")
    return crops


def _align_video(
    name: str,
    path: Path,
    folder: CropFolder,
    detector: Detector,
    device: torch.device,
    account: Account,
) -> None:
    if (folder.root / name).resolve() == path.resolve():
        raise ValueError(f"{path}: its crops would lie among the frames; give another --out")
    with _frames(path) as frames:
        origins = {
            item: (path, item.name) if path.is_file() else (item.path, None) for item in frames
        }

        def finished(item: Item) -> bool:
            source, frame = origins[item]
            return folder.finished(f"{name}/{item.name}", source, frame=frame)

        waiting = [item for item in frames if not finished(item)]
        kept = [f"{name}/{item.name}" for item in frames if item not in set(waiting)]
        account.kept.extend(kept)
        if not waiting:
            return
        found, size = _follow(path, frames, folder.which, detector, device, account)
        bar = tqdm([i for i in waiting if i in found], unit="frame", desc="crops", disable=None)
        quads = [faces.ffhq_quad(landmarks) for landmarks in found.values()]
        aligned = all(faces.is_aligned(quad, *size) for quad in quads)
        take = faces.take_whole if aligned else faces.take_crop
        for item, image in read_ahead(bar, read_photograph, account, ahead=_AHEAD):
            crop = take(image.to(device), found[item], size=folder.size)
            source, frame = origins[item]
            folder.write(f"{name}/{item.name}", source, image, [(0, crop)], frame=frame)
            account.done.append(f"{name}/{item.name}")


def _follow(
    path: Path,
    frames: list[Item],
    which: Which,
    detector: Detector,
    device: torch.device,
    account: Account,
) -> tuple[dict[Item, Tensor], tuple[int, int]]:
    """Smoothed landmarks [5, 2] of one face in every frame that can be read, and their size."""
    seen, sizes = {}, set()
    bar = tqdm(frames, unit="frame", desc="faces", disable=None)
    for item, image in read_ahead(bar, read_photograph, account, ahead=_AHEAD):
        seen[item] = detector.detect(image.to(device))
        sizes.add((image.shape[-2], image.shape[-1]))
    if not seen:
        raise ValueError(f"{path}: no frame that can be read")
    if len(sizes) > 1:
        raise ValueError(f"{path}: frames of {len(sizes)} sizes, expected one (or drop --video)")
    try:
        landmarks = faces.follow(list(seen.values()), which)
        smooth = faces.smooth_landmarks(landmarks)
        sides = [faces.quad_side(faces.ffhq_quad(points)) for points in smooth]
        faces.check_size(faces.ffhq_quad(smooth[sides.index(max(sides))]))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    missing = int(landmarks[:, 0, 0].isnan().sum())
    if missing:
        print(f"{path}: {missing} of {len(seen)} frames do not show the face: interpolated")
    return dict(zip(seen, smooth, strict=True)), sizes.pop()


def _videos(given: Sequence[str]) -> dict[str, Path]:
    """Folders of frames and video files by the names of their results."""
    videos: dict[str, Path] = {}
    for text in given:
        path = Path(text)
        paths = [path] if path.exists() else [Path(p) for p in sorted(glob.glob(text))]  # noqa: PTH207
        if not paths:
            raise FileNotFoundError(f"{text}: no such folder of frames or video file")
        for one in paths:
            name = one.resolve().stem if one.is_file() else one.resolve().name
            if videos.setdefault(name, one) is not one:
                raise ValueError(f"{one}: its results are called {name} as those of {videos[name]}")
    return videos


@contextmanager
def _frames(path: Path) -> Iterator[list[Item]]:
    """The frames of a folder, or of a video file for as long as the block lasts."""
    if path.is_dir():
        yield _in_order(find_items([path]))
        return
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
    """By name, with numbers by their value: frame10 comes after frame9."""

    def key(item: Item) -> list[tuple[int, int | str]]:
        parts = re.findall(r"\d+|\D+", item.name, flags=re.ASCII)
        return [(0, int(part)) if part.isdecimal() else (1, part) for part in parts]

    return sorted(items, key=key)


def _size(text: str) -> int:
    if re.fullmatch(r"\d{1,4}", text, flags=re.ASCII) and 16 <= int(text) <= 4096:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r}, expected pixels from 16 to 4096")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME,
        description="Finds faces in photographs and crops them as FFHQ does. Beside every crop a "
        "record tells where it was cut out.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("photos", nargs="+", metavar="PHOTOS", help="files, folders, patterns")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the crops")
    parser.add_argument("--size", type=_size, default=256, help="of a crop (default: 256)")
    parser.add_argument(
        "--faces",
        type=which_faces,
        default="largest",
        help="largest, all, or a number from 0 at the left (default: largest)",
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="make crops again that are finished"
    )
    parser.add_argument("--video", action="store_true", help="folders of frames, or video files")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1 (default: auto)")
    return parser


if __name__ == "__main__":
    keep_freed_memory()
    sys.exit(main())
