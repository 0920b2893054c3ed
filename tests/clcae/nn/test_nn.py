"""Attention, heads and normalisation against torch's own modules."""

import pytest
import torch
from torch import nn

from clcae.nn.attention import CrossAttention, OneTokenAttention, sinusoidal_positions
from clcae.nn.batch_norm import BatchNorm1d, BatchNorm2d
from clcae.nn.equalized import EqualizedLinear
from clcae.nn.style_head import StyleHead
from clcae.nn.trunk import ResidualUnit, Trunk


def torch_attention(dim: int) -> nn.MultiheadAttention:
    torch.manual_seed(0)
    attention = nn.MultiheadAttention(dim, 4, batch_first=True)
    nn.init.normal_(attention.in_proj_bias, std=0.1)
    nn.init.normal_(attention.out_proj.bias, std=0.1)
    return attention.eval()


def test_cross_attention_equals_torch() -> None:
    reference = torch_attention(16)
    ours = CrossAttention(query_dim=16, token_dim=16, width=16, out_dim=16)
    for index, projection in enumerate((ours.query, ours.key, ours.value)):
        projection.weight.data = reference.in_proj_weight[16 * index : 16 * (index + 1)]
        projection.bias.data = reference.in_proj_bias[16 * index : 16 * (index + 1)]
    ours.out.load_state_dict(reference.out_proj.state_dict())
    queries, tokens = torch.randn(2, 5, 16), torch.randn(2, 9, 16)
    expected = reference(queries, tokens, tokens)[0]
    torch.testing.assert_close(ours(queries, tokens), expected, rtol=1e-5, atol=1e-6)


def test_one_token_attention_is_what_attention_collapses_to() -> None:
    reference = torch_attention(16)
    ours = OneTokenAttention(token_dim=16, out_dim=16)
    ours.value.weight.data = reference.in_proj_weight[32:]
    ours.value.bias.data = reference.in_proj_bias[32:]
    ours.out.load_state_dict(reference.out_proj.state_dict())
    token = torch.randn(3, 16)
    for _ in range(2):  # whatever the query
        expected = reference(torch.randn(3, 1, 16), token[:, None], token[:, None])[0][:, 0]
        torch.testing.assert_close(ours(token), expected, rtol=1e-5, atol=1e-6)


def test_positions_tell_places_apart() -> None:
    positions = sinusoidal_positions(8, 8, 16)
    assert positions.shape == (64, 16)
    distances = torch.cdist(positions, positions) + torch.eye(64) * 10
    assert distances.min() > 0.1
    with pytest.raises(ValueError, match="18"):
        sinusoidal_positions(4, 4, 18)


def test_equalized_linear_has_unit_gain() -> None:
    torch.manual_seed(0)
    for multiplier in (1.0, 0.01):
        layer = EqualizedLinear(in_features=400, out_features=300, lr_multiplier=multiplier)
        deviation = float(layer(torch.randn(500, 400)).detach().std())
        assert deviation == pytest.approx(1.0, rel=0.05)


@pytest.mark.parametrize("side", [2, 4, 16])
def test_style_head_reaches_one_vector(side: int) -> None:
    head = StyleHead(in_channels=6, out_dim=10, side=side)
    assert head(torch.randn(2, 6, side, side)).shape == (2, 10)
    with pytest.raises(ValueError, match="12"):
        StyleHead(in_channels=6, out_dim=10, side=12)


def test_trunk_halves_at_every_stage() -> None:
    trunk = Trunk(stem_channels=4, stages=[(6, 1), (8, 2)], stem_stride=2)
    shapes = [tuple(output.shape[1:]) for output in trunk(torch.randn(2, 3, 32, 32))]
    assert shapes == [(4, 16, 16), (6, 8, 8), (8, 4, 4)]


def test_residual_unit_without_change_of_width_adds_its_input() -> None:
    unit = ResidualUnit(in_channels=3, out_channels=3, stride=2, excitation=True).eval()
    nn.init.zeros_(unit.norm1.weight)
    x = torch.randn(1, 3, 8, 8)
    torch.testing.assert_close(unit(x), nn.functional.max_pool2d(x, 1, 2))  # the official shortcut


@pytest.mark.parametrize(
    ("ours", "torchs"), [(BatchNorm2d, nn.BatchNorm2d), (BatchNorm1d, nn.BatchNorm1d)]
)
def test_batch_norm_in_one_process_is_torchs(
    ours: type[nn.Module], torchs: type[nn.Module]
) -> None:
    x = torch.randn(6, 4, 3, 3) if torchs is nn.BatchNorm2d else torch.randn(6, 4)
    first, second = ours(4), torchs(4)
    assert torch.equal(first(x), second(x))
    assert torch.equal(first.running_var, second.running_var)  # type: ignore[arg-type]
    assert torch.equal(first.eval()(x), second.eval()(x))
