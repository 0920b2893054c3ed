"""Aligned crops of many photographs, and of one face through the frames of a video."""

import hashlib
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from clcae import faces
from clcae.data.pictures import Item
from clcae.data.threads import in_order
from clcae.faces import CropFolder, Detector
from clcae.files import sha256
from clcae.images import read_image
from clcae.photographs.account import ANOTHER_PICTURE, NO_RECORD, Account
from clcae.photographs.frames import open_frames
from clcae.photographs.passes import FAULTS, check_disk, check_memory, read_ahead, unfinished
from clcae.photographs.reader import with_digest

AHEAD = 2  # photographs in memory beside the one at hand; one can take 1 GiB


class FaceAligner:
    """Finds faces in files, writes their crops into a folder and accounts for every file.

    Raises:
        ValueError: if no detector is installed.
    """

    def __init__(self, folder: CropFolder, *, device: torch.device, account: Account) -> None:
        self.folder, self.device, self.account = folder, device, account
        self.detector: Detector = faces.mtcnn_detector(device=device)

    def align_photographs(self, items: list[Item]) -> None:
        """Crops the faces of every photograph that an earlier run has not finished."""
        folder, account = self.folder, self.account

        def finished(item: Item) -> bool:
            return folder.finished(item.name, item.path, lambda: sha256(item.path))

        waiting = unfinished(items, finished, account)
        self._announce()
        bar = tqdm(waiting, unit="photograph", disable=None)
        for item, (image, digest) in read_ahead(bar, _read, account, ahead=AHEAD):
            try:
                crops, refused = faces.crop_faces(
                    image.to(self.device), folder.which, size=folder.size, detector=self.detector
                )
                for reason in refused:
                    account.skip(item.path, reason)
                if crops:
                    folder.write(item.name, item.path, image, crops, digest=digest)
                    account.done.append(item.name)
            except FAULTS as error:
                check_memory(error)
                check_disk(error)
                account.skip(item.path, error)

    def _announce(self) -> None:
        for name, digest in sorted(self.folder.outdated.items()):
            self.account.do_anew(name, NO_RECORD if digest is None else ANOTHER_PICTURE)
        self.folder.outdated.clear()
        self.account.announce()

    def align_video(self, name: str, path: Path) -> None:
        """Crops one face of every frame into the folder `name`, with landmarks smoothed over time.

        Raises:
            ValueError: if the frames cannot be read, differ in size or show no face, or the crops
                would lie among the frames.
        """
        folder, account = self.folder, self.account
        if (folder.root / name).resolve() == path.resolve():
            raise ValueError(f"{path}: its crops would lie among the frames; give another --out")
        with open_frames(path) as frames:
            origins = {
                item: (path, item.name) if path.is_file() else (item.path, None) for item in frames
            }
            digest = sha256(path) if path.is_file() else _digest_of_all(frames)

            def finished(item: Item) -> bool:
                source, frame = origins[item]
                return folder.finished(f"{name}/{item.name}", source, lambda: digest, frame=frame)

            waiting = unfinished(frames, finished, account)
            self._announce()
            if not waiting:
                return
            found, size = self._follow(path, frames)
            quads = [faces.ffhq_quad(landmarks) for landmarks in found.values()]
            aligned = all(faces.is_aligned(quad, *size) for quad in quads)
            take = faces.take_whole if aligned else faces.take_crop
            bar = tqdm([i for i in waiting if i in found], unit="frame", desc="crops", disable=None)
            for item, image in read_ahead(bar, read_image, account, ahead=AHEAD):
                crop = take(image.to(self.device), found[item], size=folder.size)
                source, frame = origins[item]
                folder.write(
                    f"{name}/{item.name}",
                    source,
                    image,
                    [(0, crop)],
                    digest=digest,
                    frame=frame,
                )
                account.done.append(f"{name}/{item.name}")

    def _follow(self, path: Path, frames: list[Item]) -> tuple[dict[Item, Tensor], tuple[int, int]]:
        """Smooths the landmarks [5, 2] of one face in all readable frames; returns their size."""
        seen, sizes = {}, set()
        bar = tqdm(frames, unit="frame", desc="faces", disable=None)
        for item, image in read_ahead(bar, read_image, self.account, ahead=AHEAD):
            seen[item] = self.detector.detect(image.to(self.device))
            sizes.add((image.shape[-2], image.shape[-1]))
        if not seen:
            raise ValueError(f"{path}: no frame that can be read")
        if len(sizes) > 1:
            raise ValueError(
                f"{path}: frames of {len(sizes)} sizes, expected one (or drop --video)"
            )
        try:
            landmarks = faces.follow(list(seen.values()), self.folder.which)
            smooth = faces.smooth_landmarks(landmarks)
            quads = [faces.ffhq_quad(points) for points in smooth]
            faces.check_size(max(quads, key=faces.quad_side))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        missing = int(landmarks[:, 0, 0].isnan().sum())
        if missing:
            print(f"{path}: {missing} of {len(seen)} frames do not show the face: interpolated")
        return dict(zip(seen, smooth, strict=True)), sizes.pop()


def _read(path: Path) -> tuple[Tensor, str]:
    return with_digest(path, lambda path, digest: (read_image(path), digest()))


def _digest_of_all(frames: list[Item]) -> str:
    """Computes a digest of all frames, since each crop depends on its neighbours' landmarks."""
    digests = [future.result() for _, future in in_order(frames, _digest, threads=4, ahead=64)]
    return hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _digest(item: Item) -> str:
    try:
        return sha256(item.path)
    except OSError:
        return "unreadable"
