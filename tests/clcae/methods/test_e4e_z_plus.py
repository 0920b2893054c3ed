"""e4e with rows of Z: the sphere, the mapping, stages; and the warm start on samples."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_methods import SIDE, small_e4e_z_plus

from clcae.methods.e4e_z_plus import E4EZPlus
from clcae.stylegan2 import LatentSpace

IMAGES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_rows_are_z_and_its_offsets_on_the_sphere() -> None:
    method = small_e4e_z_plus()
    inversion = method.invert(IMAGES)
    assert inversion.space is LatentSpace.Z_PLUS and inversion.codes.shape == (3, 8, 12)
    heads = method.encoder.rows(method.encoder.trunk_outputs(IMAGES))  # z, then offsets
    for row in range(8):
        z = heads[:, 0] + (heads[:, row] if row else 0)
        expected = F.normalize(z, dim=1) * 12**0.5
        torch.testing.assert_close(inversion.codes[:, row], expected, rtol=1e-4, atol=1e-5)
        w = method.generator.map(expected)
        torch.testing.assert_close(method.encode(IMAGES)[:, row], w, rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_stage_0_and_an_encoder_of_z_have_one_row_for_all() -> None:
    method, of_z = small_e4e_z_plus(), small_e4e_z_plus(num_offsets=0)
    method.encoder.stage = 0
    codes = method.invert(IMAGES).codes
    assert torch.equal(codes, codes[:, :1].expand_as(codes))
    inversion = of_z.invert(IMAGES)
    assert inversion.space is LatentSpace.Z and of_z.outputs == ("Z",)
    assert len(of_z.encoder.heads) == 1 and of_z.label == "Z encoder"
    assert torch.equal(inversion.codes, inversion.codes[:, :1].expand_as(codes))


def test_gradients_go_through_the_frozen_mapping() -> None:
    method = small_e4e_z_plus()
    method.encoder.requires_grad_(True)
    method.generator.synthesize(method.encode(IMAGES)).square().mean().backward()
    assert all(parameter.grad is not None for parameter in method.encoder.parameters())
    assert all(parameter.grad is None for parameter in method.generator.parameters())


@pytest.mark.parametrize("count", [-1, 8])
def test_offsets_out_of_range_are_refused(count: int) -> None:
    settings: dict[str, Any] = {"num_offsets": count, "image_size": SIDE}
    with pytest.raises(ValueError, match=f"num_offsets is {count}, expected 0 to 7"):
        E4EZPlus(generator=small_e4e_z_plus().generator, **settings)
