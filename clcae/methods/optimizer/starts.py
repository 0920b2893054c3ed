"""Where a search of codes and of a feature begins: the mean, a random code, or an encoder's."""

from typing import Literal

import torch
from torch import Tensor

from clcae.data.transforms import at_input_size
from clcae.methods.interface import Inversion, InversionMethod
from clcae.stylegan2 import Generator, LatentSpace, Layer, normalize_z

Start = Literal["mean", "random", "encoder"]
START_SEED = 1  # of random codes; the default of the authors of F/Z+


def own_start(generator: Generator, space: LatentSpace, start: Start, *, count: int) -> Tensor:
    """Returns the same code for all pictures, [N, 1 or L, D].

    "mean" is the average of W. Z has none, so that its codes are random: Gaussian numbers on the
    sphere, of W and W+ mapped.
    """
    rows = generator.num_codes if space.has_rows else 1
    if space.is_mapped and start == "mean":
        return generator.w_average.expand(count, rows, -1)
    rng = torch.Generator().manual_seed(START_SEED)
    z = torch.randn(1, rows, generator.z_dim, generator=rng).to(generator.w_average)
    codes = generator.map(z) if space.is_mapped else normalize_z(z)
    return codes.expand(count, -1, -1)


def encoded(
    encoder: InversionMethod,
    images: Tensor,  # [N, 3, R, R], in [-1, 1], as the generator makes them
) -> Inversion:
    """Inverts pictures at the size that an encoder reads."""
    return encoder.invert(at_input_size(images, encoder.image_shape))


def codes_of(encoder: InversionMethod, inversion: Inversion, space: LatentSpace) -> Tensor:
    """Returns an encoder's codes in another space, [N, 1 or L, D]; one row is the mean of all.

    Raises:
        ValueError: if they are of W and asked for in Z: the mapping has no inverse.
    """
    if space.is_mapped:
        codes = encoder.mapped(inversion).codes
    elif inversion.space.is_mapped:
        raise ValueError(f"encoder gives codes of {inversion.space}, expected those of {space}")
    else:
        codes = normalize_z(inversion.codes)
    return codes if space.has_rows else codes.mean(dim=1, keepdim=True)


def own_feature(
    generator: Generator,
    layer: Layer,
    inversion: Inversion | None,  # an encoder's
    encoder: InversionMethod | None,
    *,
    count: int,
) -> Tensor:
    """Computes the generator's own feature [N, C, r, r] of an encoder's codes, or of the mean."""
    if inversion is None or encoder is None:
        return generator.features(generator.w_average[None], layer).repeat(count, 1, 1, 1)
    return generator.features(encoder.mapped(inversion).codes, layer)
