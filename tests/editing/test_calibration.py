"""Units, ranges and accounts: on a judge whose answer is known, and the shipped directions."""

import pytest
import torch
from torch import Tensor

import clcae
from clcae.portraits import ATTRIBUTES
from clcae.stylegan2 import Generator
from editing import Direction, load_directions, move_of
from editing.calibration import account, by_width, calibrated, judged, width_of
from editing.samples import Attribute, portraits_scorer
from editing.statistics import mapped

DEVIATIONS = {"smile": 0.407, "yaw": 0.578, "age": 0.245, "glasses": 0.457, "beard": 0.198}


class Echo(Generator):
    """Its pictures are its codes, so that a judge may read them exactly."""

    def synthesize(self, codes: Tensor, **_: object) -> Tensor:
        pictures = torch.zeros(len(codes), 3, 8, 8)
        pictures[:, 0, 0, :2] = codes[:, 0, :2] / 10  # pictures are clamped to [-1, 1]
        return pictures


@pytest.fixture
def echo() -> Echo:
    return Echo(resolution=8, z_dim=4, w_dim=4, mapping_layers=2, channels=[4, 3]).eval()


def judge(images: Tensor) -> Tensor:
    first, second = (images[:, 0, 0, column] * 10 for column in (0, 1))
    return torch.stack([2 * first, second, (second > 1).float()], dim=1)


CODES = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
FIRST = Attribute(name="first", column=0, deviation=3.0, binary=False)
SECOND = Attribute(name="second", column=1, deviation=1.0, binary=False)
WORN = Attribute(name="worn", column=2, deviation=0.4, binary=True)


def test_the_unit_is_one_deviation_of_the_attribute(echo: Echo) -> None:
    direction = Direction(name="first", vector=torch.tensor([[2.0, 0.2, 0.0, 0.0]]))
    found = calibrated(echo, direction, FIRST, codes=CODES, width=0.5, judge=judge)
    assert found.unit == pytest.approx(0.75, abs=1e-4)  # 2 * 2 * 0.75 = 3
    assert found.strengths == (-2.0, 2.0)  # three widths of 0.5 are two units
    figures = account(echo, found, FIRST, [SECOND], codes=CODES, judge=judge)
    assert figures["change"] == pytest.approx(1, abs=1e-4)
    assert figures["leaks"] == {"second": pytest.approx(0.15, abs=1e-4)}
    assert figures["largest_leak"] == pytest.approx(0.15, abs=1e-4) and "identity" not in figures


def test_the_range_ends_where_nothing_responds_any_more(echo: Echo) -> None:
    def saturating(images: Tensor) -> Tensor:
        return judge(images).clamp(-4, 4)

    direction = Direction(name="first", vector=torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
    small = Attribute(name="first", column=0, deviation=1.0, binary=False)
    codes = CODES * 0.01
    found = calibrated(echo, direction, small, codes=codes, width=1.0, judge=saturating)
    assert found.unit == pytest.approx(0.5, abs=1e-3)
    assert found.strengths == pytest.approx((-4.25, 4.25), abs=0.26)


def test_a_binary_unit_carries_almost_all_over(echo: Echo) -> None:
    direction = Direction(name="worn", vector=torch.tensor([[0.0, 1.0, 0.0, 0.0]]))
    found = calibrated(echo, direction, WORN, codes=CODES, width=1.0, judge=judge)
    start, below, above = judged(echo, found, CODES, [0.0, -1.0, 1.0], judge)[..., 2] > 0.5
    assert 0.9 < above[~start].float().mean() <= 1.0
    assert (~below[start]).float().mean() > 0.9
    assert "95% of the pictures to the other side" in found.meaning


def test_what_does_not_respond_is_refused(echo: Echo) -> None:
    direction = Direction(name="first", vector=torch.tensor([[0.0, 0.0, 0.0, 1.0]]))
    with pytest.raises(ValueError, match="does not move this attribute"):
        calibrated(echo, direction, FIRST, codes=CODES[:4], width=1.0, judge=judge)


def test_widths() -> None:
    codes = CODES * torch.tensor([1.0, 5.0, 1.0, 1.0])
    vector = torch.tensor([[0.0, 2.0, 0.0, 0.0]])
    assert width_of(codes, vector) == pytest.approx(float(codes[:, 1].std()) / 2, rel=1e-5)
    direction = by_width(Direction(name="a", vector=vector), width_of(codes, vector))
    step = move_of([(direction, 1.0)])(torch.zeros(1, 3, 4))[0, 0, 1]
    assert float(step) == pytest.approx(float(codes[:, 1].std()), rel=1e-5)


@pytest.mark.parametrize("name", DEVIATIONS)
def test_the_shipped_directions_do_what_they_say(name: str) -> None:
    generator = clcae.load_generator("portraits")
    attributes, identity = portraits_scorer(generator)
    direction = load_directions("portraits")[name]
    assert direction.provenance["held_out_accuracy"] >= 0.95
    assert direction.strengths[0] <= -1 and direction.strengths[1] >= 1
    codes = next(mapped(generator, num_samples=24, seed=12345))
    own = Attribute(name, ATTRIBUTES.index(name), DEVIATIONS[name], name == "glasses")
    others = [
        Attribute(other, ATTRIBUTES.index(other), deviation, other == "glasses")
        for other, deviation in DEVIATIONS.items()
        if other != name
    ]
    figures = account(
        generator, direction, own, others, codes=codes, judge=attributes, embed=identity
    )
    assert 0.75 < figures["change"] < 1.3
    assert figures["largest_leak"] < 0.2
    assert min(figures["identity"]) > 0.85
