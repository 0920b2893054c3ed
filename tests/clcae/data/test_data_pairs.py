"""Pairs follow from their source of draws alone."""

import torch
from torch import Tensor

from clcae.data.pairs import generated_pairs


class TinyGenerator:
    z_dim = 6

    def map(self, z: Tensor, *, truncation: float = 1.0) -> Tensor:
        return truncation * z[:, :4]

    def synthesize(self, codes: Tensor, *, noise: str) -> Tensor:
        assert noise == "random"
        return codes.mean(dim=1)[:, None, None, None] + torch.randn(len(codes), 3, 8, 8)


def test_pairs_are_reproducible_noise_included() -> None:
    rng = torch.Generator().manual_seed(1)
    images, w = generated_pairs(TinyGenerator(), count=5, rng=rng)
    assert images.shape == (5, 3, 8, 8)
    assert w.shape == (5, 4)
    assert images.abs().max() <= 1
    torch.randn(7)  # what else draws does not matter
    again = generated_pairs(TinyGenerator(), count=5, rng=torch.Generator().manual_seed(1))
    assert torch.equal(images, again[0])
    assert torch.equal(w, again[1])
    following, _ = generated_pairs(TinyGenerator(), count=5, rng=rng)
    assert not torch.equal(images, following)


def test_global_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    generated_pairs(TinyGenerator(), count=2, rng=torch.Generator())
    assert torch.equal(torch.get_rng_state(), state)


def test_truncation_reaches_the_generator() -> None:
    _, w = generated_pairs(TinyGenerator(), count=2, rng=torch.Generator())
    _, truncated = generated_pairs(TinyGenerator(), count=2, rng=torch.Generator(), truncation=0.5)
    assert torch.equal(truncated, w / 2)
