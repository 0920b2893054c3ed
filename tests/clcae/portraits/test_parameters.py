"""The latents: groups, ranges of the decoded parameters, rates of details."""

import pytest
import torch

from clcae.portraits import (
    ATTRIBUTES,
    DETAILS,
    NUM_LATENTS,
    NUM_PLAIN_LATENTS,
    Group,
    decode,
    group_slice,
    scores,
)
from clcae.portraits.parameters import DETAIL_RANGES, IDENTITY_RANGES, SCENE_RANGES


def test_groups_are_contiguous_and_details_last() -> None:
    slices = [group_slice(group) for group in Group]
    assert slices[0].start == 0
    assert [s.stop for s in slices[:-1]] == [s.start for s in slices[1:]]
    assert slices[-1].stop == NUM_LATENTS <= 96
    assert group_slice(Group.DETAIL).start == NUM_PLAIN_LATENTS <= 64


def test_values_lie_in_their_ranges_and_rise_with_their_latents() -> None:
    latents = torch.linspace(-6.0, 6.0, 101)[:, None].expand(-1, NUM_LATENTS)
    values = decode(latents, detail_rate=0.5).values
    ranges = {**IDENTITY_RANGES, **SCENE_RANGES, **DETAIL_RANGES}
    assert values.keys() == ranges.keys()
    for name, (low, high) in ranges.items():
        assert low - 1e-6 <= values[name].min() and values[name].max() <= high + 1e-6, name
        assert (values[name].diff() >= 0.0).all(), name


def test_attributes_lie_in_their_ranges() -> None:
    latents = torch.randn(4000, NUM_LATENTS, generator=torch.Generator().manual_seed(0))
    attributes = decode(latents, detail_rate=0.5).attributes
    labels = dict(zip(ATTRIBUTES, attributes.unbind(1), strict=True))
    for name in ("smile", "yaw", "pitch", "light"):
        assert -1.0 <= labels[name].min() < -0.9 and 0.9 < labels[name].max() <= 1.0, name
    for name in ("age", "beard", "eye_openness"):
        assert 0.0 <= labels[name].min() < 0.1 and 0.9 < labels[name].max() <= 1.0, name
    assert labels["glasses"].unique().tolist() == [0.0, 1.0]
    # Four standard deviations of 4000 draws are 0.03.
    assert labels["glasses"].mean().item() == pytest.approx(0.30, abs=0.03)
    assert (labels["beard"] == 0.0).float().mean().item() == pytest.approx(0.55, abs=0.03)


@pytest.mark.parametrize("rate", [0.0, 0.05, 0.5, 1.0])
def test_each_detail_has_its_rate(rate: float) -> None:
    latents = torch.randn(4000, NUM_LATENTS, generator=torch.Generator().manual_seed(1))
    details = decode(latents, detail_rate=rate).details
    assert details.shape == (4000, len(DETAILS))
    torch.testing.assert_close(details.mean(0), torch.full((6,), rate), atol=0.032, rtol=0.0)


def test_errors_name_the_value() -> None:
    with pytest.raises(ValueError, match=r"1\.5.*0 to 1"):
        decode(torch.zeros(1, NUM_LATENTS), detail_rate=1.5)
    with pytest.raises(ValueError, match=rf"\(2, 5\).*{NUM_LATENTS}"):
        decode(torch.zeros(2, 5), detail_rate=0.5)


def test_scores_have_variance_one_and_tell_glasses() -> None:
    latents = torch.randn(20000, NUM_LATENTS, generator=torch.Generator().manual_seed(0))
    values = scores(latents[:, :NUM_PLAIN_LATENTS])
    assert values.shape[1] > NUM_PLAIN_LATENTS
    assert torch.allclose(values.mean(0), torch.zeros(()), atol=0.05)
    assert torch.allclose(values.var(0), torch.ones(()), atol=0.05)
    column = group_slice(Group.ATTRIBUTE).start + ATTRIBUTES.index("glasses")
    worn = decode(latents, detail_rate=0.0).attributes[:, ATTRIBUTES.index("glasses")]
    assert torch.equal(values[:, column] > 0, worn > 0)
    with pytest.raises(ValueError, match="accepted"):
        scores(latents)
