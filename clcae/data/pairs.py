"""Pairs of a generator's own images and the codes that made them, from which the aligner learns."""

import bisect
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from clcae.data.sources import check_indices
from clcae.files import replacing
from clcae.images import from_uint8, to_uint8


class PairGenerator(Protocol):
    """What a generator has to offer to make pairs."""

    z_dim: int

    def map(
        self,
        z: Tensor,  # [N, z_dim]
        *,
        truncation: float = 1.0,
    ) -> Tensor:
        """Codes w [N, w_dim]."""
        ...

    def synthesize(
        self,
        codes: Tensor,  # [N, w_dim]
        *,
        noise: Literal["random"],
    ) -> Tensor:
        """Images [N, 3, H, W], nominally in [-1, 1]."""
        ...


@torch.no_grad()
def generated_pairs(
    generator: PairGenerator,
    *,
    count: int,
    rng: torch.Generator,
    truncation: float = 1.0,
    device: torch.device | str = "cpu",
) -> tuple[Tensor, Tensor]:
    """Draw codes and the images the generator makes of them, with random noise maps.

    Everything drawn follows from the state of `rng`, the noise maps included; the global random
    state is left as it was.

    Args:
        generator: The generator, on `device`.
        count: Number N of pairs, drawn as one batch.
        rng: Source of all draws, on the CPU.
        truncation: Factor by which w is drawn towards the mean code; 1 leaves it.
        device: Where the generator is.

    Returns:
        Images [N, 3, H, W] clamped to [-1, 1] as a file would hold them, and w [N, w_dim], both on
        `device`.
    """
    z = torch.randn(count, generator.z_dim, generator=rng).to(device)
    noise_seed = int(torch.randint(2**62, (), generator=rng))
    w = generator.map(z, truncation=truncation)
    # Noise maps come from the global state of the device, which is borrowed for the synthesis.
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
) -> None:
    """Writes so many pairs as one file, complete or not at all: images in uint8, w in float32.

    Args:
        path: the file, `.safetensors`.
        draw: makes the next pairs.
        count: how many pairs the file gets.
        at_once: how many are drawn together.
    """
    images, codes = [], []
    for start in range(0, count, at_once):
        drawn, w = draw(min(at_once, count - start))
        images.append(to_uint8(drawn).cpu().contiguous())
        codes.append(w.float().cpu())
    with replacing(path) as unfinished:
        save_file({"images": torch.cat(images), "w": torch.cat(codes)}, unfinished)


class RenderedPairs:
    """Pairs of the shards in a folder, in the order of their names; read as they are asked for.

    Args:
        root: the folder that scripts/render_pairs.py wrote.

    Raises:
        FileNotFoundError: there is no such folder, or no shard in it.
        ValueError: a file is damaged or is no shard, or shards differ in shape.
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
        """Images [N, 3, H, W] in [-1, 1] and w [N, D] of N indices.

        Raises:
            IndexError: an index outside the range.
        """
        wanted = torch.as_tensor(indices, dtype=torch.int64)
        check_indices(wanted, len(self))
        images, codes = [], []
        for index in wanted.tolist():
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
