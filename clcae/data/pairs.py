"""Pairs of codes w and the images generated from them, the training data of the aligner."""

import bisect
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clcae.data.sources import checked_indices
from clcae.files import replacing
from clcae.images import from_uint8, to_uint8
from clcae.stylegan2 import Generator

_DIGEST = "made_with"


@torch.no_grad()
def generated_pairs(
    generator: Generator,
    *,
    count: int,
    rng: torch.Generator,
    truncation: float = 1.0,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Samples codes and synthesizes their images with random noise maps.

    All draws, those of noise maps included, follow from the state of `rng`; the global random state
    is left as it was.

    Args:
        generator: generator on `device`.
        count: number N of pairs, made as one batch.
        rng: random generator on the CPU.
        truncation: factor psi by which w is drawn towards the average w; 1 leaves it.
        device: device of the generator and of the pairs.

    Returns:
        Images [N, 3, H, W] clamped to [-1, 1] as a file would hold them, and w [N, w_dim].
    """
    z = torch.randn(count, generator.z_dim, generator=rng).to(device)
    noise_seed = int(torch.randint(2**62, (), generator=rng))
    w = generator.map(z, truncation=truncation)
    # Noise maps come from the device's global random state, which is seeded, then restored.
    with torch.random.fork_rng(devices=[w.device] if w.is_cuda else []):
        if w.is_cuda:
            with torch.cuda.device(w.device):
                torch.cuda.manual_seed(noise_seed)
        else:
            torch.default_generator.manual_seed(noise_seed)
        images = generator.synthesize(w, noise="random")
    return images.clamp(-1, 1), w


def render_shard(
    path: Path,
    draw: Callable[[int], tuple[Tensor, Tensor]],  # count -> images [N, 3, H, W] and w [N, D]
    *,
    count: int,
    at_once: int,
    digest: str,
) -> None:
    """Writes `count` pairs to one `.safetensors` file, atomically: images in uint8, w in float32.

    `at_once` is the largest number of pairs that one call of `draw` makes; `digest`, of generator
    and settings, is kept in the file for `shard_digest`.
    """
    images, codes = [], []
    for start in range(0, count, at_once):
        drawn, w = draw(min(at_once, count - start))
        images.append(to_uint8(drawn).cpu().contiguous())
        codes.append(w.float().cpu())
    with replacing(path) as unfinished:
        save_file(
            {"images": torch.cat(images), "w": torch.cat(codes)}, unfinished, {_DIGEST: digest}
        )


def shard_digest(path: Path) -> str | None:
    """Reads the digest that a shard was written with; None in other and in damaged files."""
    try:
        with safe_open(path, framework="pt") as file:
            return (file.metadata() or {}).get(_DIGEST)
    except (SafetensorError, OSError):
        return None


class RenderedPairs:
    """Reads the pairs of the shards in a folder, in the order of file names.

    Args:
        root: folder that scripts/render_pairs.py wrote.

    Raises:
        FileNotFoundError: if there is no such folder, or no shard in it.
        ValueError: if a file is damaged or is no shard, or shards differ in shape.
    """

    def __init__(self, *, root: str | Path) -> None:
        self.root = Path(root)
        self.shards = sorted(self.root.glob("*.safetensors"))
        if not self.shards:
            raise FileNotFoundError(
                f"{root}: no shard (*.safetensors) found; write some with scripts/render_pairs.py"
            )
        shapes = [_shapes(path) for path in self.shards]
        for path, (images, w) in zip(self.shards, shapes, strict=True):
            if (images[1:], w[1:]) != (shapes[0][0][1:], shapes[0][1][1:]) or images[0] != w[0]:
                raise ValueError(f"{path}: images {images} and w {w} do not go with the others")
        self._ends = list(itertools.accumulate(images[0] for images, _ in shapes))

    def __len__(self) -> int:
        return self._ends[-1]

    def pairs(self, indices: Sequence[int] | Tensor) -> tuple[Tensor, Tensor]:
        """Returns images [N, 3, H, W] in [-1, 1] and w [N, D] by index. Raises IndexError."""
        images, codes = [], []
        for index in checked_indices(indices, len(self)).tolist():
            shard = bisect.bisect_right(self._ends, index)
            row = index - (self._ends[shard - 1] if shard else 0)
            with safe_open(self.shards[shard], framework="pt") as file:
                images.append(file.get_slice("images")[row])
                codes.append(file.get_slice("w")[row])
        return from_uint8(torch.stack(images)), torch.stack(codes)


def _shapes(path: Path) -> tuple[list[int], list[int]]:
    try:
        with safe_open(path, framework="pt") as file:
            images, w = (file.get_slice(key) for key in ("images", "w"))
            if (images.get_dtype(), w.get_dtype()) != ("U8", "F32"):
                raise ValueError(f"{path}: expected images in uint8 and w in float32")
            return images.get_shape(), w.get_shape()
    except SafetensorError as error:
        raise ValueError(f"{path} is no shard of pairs: {error}") from error
