"""Random numbers by row do not depend on how a batch is divided."""

import pytest
import torch
import torch.nn.functional as F

from clcae.nn.rows import Dropout, dropout, normal_like, rows_of_batch
from clcae.stylegan2 import Generator


def shares(count: int) -> list[slice]:
    return [slice(start, start + 8 // count) for start in range(0, 8, 8 // count)]


@pytest.mark.parametrize("count", [1, 2, 4])
def test_noise_and_dropout_of_shares_are_those_of_the_whole(count: int) -> None:
    x = torch.ones(8, 3, 5)
    torch.manual_seed(3)
    whole = torch.randn_like(x), F.dropout(x, 0.3), torch.randn_like(x[::2])
    for rows in shares(count):
        torch.manual_seed(3)
        with rows_of_batch(rows, total=8):
            own = normal_like(x[rows]), dropout(x[rows], 0.3, True), normal_like(x[rows][::2])
        half = slice(rows.start // 2, rows.stop // 2)
        assert torch.equal(own[0], whole[0][rows])
        assert torch.equal(own[1], whole[1][rows])
        assert torch.equal(own[2], whole[2][half])
    torch.manual_seed(3)
    assert torch.equal(normal_like(x), whole[0])  # beyond the block as without it


def test_dropout_is_off_in_evaluation() -> None:
    x = torch.ones(4, 3)
    with rows_of_batch(slice(0, 4), total=8):
        assert torch.equal(Dropout(0.5).eval()(x), x)


@pytest.mark.parametrize("count", [2, 4])
def test_the_noise_of_a_generator(count: int) -> None:
    torch.manual_seed(0)
    generator = Generator(resolution=16, z_dim=8, w_dim=8, channels=[8, 8, 8]).eval()
    for layer in generator.synthesis.layers:
        torch.nn.init.ones_(layer.noise_strength)
    w = torch.randn(8, 8)
    torch.manual_seed(5)
    whole = generator.synthesize(w, noise="random")
    for rows in shares(count):
        torch.manual_seed(5)
        with rows_of_batch(rows, total=8):
            part = generator.synthesize(w[rows], noise="random")
        torch.testing.assert_close(part, whole[rows], rtol=1e-4, atol=1e-4)
