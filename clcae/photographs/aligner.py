"""Aligned crops of many photographs, and of one face through the frames of a video."""

from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from clcae import faces
from clcae.data.pictures import Item, read_photograph
from clcae.faces import CropFolder, Detector
from clcae.photographs.frames import open_frames
from clcae.photographs.passes import Account, read_ahead

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
        waiting = []
        for item in items:
            try:
                if self.folder.finished(item.name, item.path):
                    self.account.kept.append(item.name)
                else:
                    waiting.append(item)
            except ValueError as error:
                self.account.skip(item.path, error)
        bar = tqdm(waiting, unit="photograph", disable=None)
        for item, image in read_ahead(bar, read_photograph, self.account, ahead=AHEAD):
            image = image.to(self.device)
            try:
                crops, refused = faces.crop_faces(
                    image, self.folder.which, size=self.folder.size, detector=self.detector
                )
                for reason in refused:
                    self.account.skip(item.path, reason)
                if crops:
                    self.folder.write(item.name, item.path, image, crops)
                    self.account.done.append(item.name)
            except ValueError as error:
                self.account.skip(item.path, error)

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
            waiting, origins = [], {}
            for item in frames:
                origins[item] = (path, item.name) if path.is_file() else (item.path, None)
                source, frame = origins[item]
                if folder.finished(f"{name}/{item.name}", source, frame=frame):
                    account.kept.append(f"{name}/{item.name}")
                else:
                    waiting.append(item)
            if not waiting:
                return
            found, size = self._follow(path, frames)
            quads = [faces.ffhq_quad(landmarks) for landmarks in found.values()]
            aligned = all(faces.is_aligned(quad, *size) for quad in quads)
            take = faces.take_whole if aligned else faces.take_crop
            bar = tqdm([i for i in waiting if i in found], unit="frame", desc="crops", disable=None)
            for item, image in read_ahead(bar, read_photograph, account, ahead=AHEAD):
                crop = take(image.to(self.device), found[item], size=folder.size)
                source, frame = origins[item]
                folder.write(f"{name}/{item.name}", source, image, [(0, crop)], frame=frame)
                account.done.append(f"{name}/{item.name}")

    def _follow(self, path: Path, frames: list[Item]) -> tuple[dict[Item, Tensor], tuple[int, int]]:
        """Smooths the landmarks [5, 2] of one face in all readable frames; returns their size."""
        seen, sizes = {}, set()
        bar = tqdm(frames, unit="frame", desc="faces", disable=None)
        for item, image in read_ahead(bar, read_photograph, self.account, ahead=AHEAD):
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
