"""Precision and recall against torch-fidelity, and on sets whose answer is known."""

import pytest
import torch
from torch_fidelity import metric_prc

from clcae.metrics.manifold import Precision, Recall, share_inside


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def metrics(maximum: int = 1000) -> tuple[Precision, Recall]:
    kind = {"features": lambda images: images.flatten(1), "features_name": "pixels"}
    return (
        Precision(**kind, dimension=12, maximum=maximum),
        Recall(**kind, dimension=12, maximum=maximum),
    )


@pytest.mark.parametrize("neighbours", [1, 3, 5])
def test_agrees_with_torch_fidelity(neighbours: int) -> None:
    outputs, targets = torch.randn(150, 8).double() * 0.7 + 0.3, torch.randn(130, 8).double()
    expected = metric_prc.calculate_precision_recall_full(outputs, targets, neighbours)
    ours = (
        share_inside(outputs, targets, neighbours=neighbours),
        share_inside(targets, outputs, neighbours=neighbours),
    )
    assert ours == pytest.approx(expected, rel=1e-6)
    assert 0.1 < ours[1] < ours[0]


def test_accumulators_agree_with_torch_fidelity_and_merge() -> None:
    outputs, targets = torch.rand(80, 3, 2, 2), torch.rand(70, 3, 2, 2) * 0.8
    expected = metric_prc.calculate_precision_recall_full(outputs.flatten(1), targets.flatten(1))
    for whole, first, second, value in zip(metrics(), metrics(), metrics(), expected, strict=True):
        whole.update_outputs(outputs)
        whole.update_targets(targets)
        first.update_outputs(outputs[:9])
        first.update_targets(targets[50:])
        second.update_outputs(outputs[9:])
        second.update_targets(targets[:50])
        first.merge_state(second.state())
        assert first.compute() == whole.compute() == pytest.approx(value, rel=1e-6)
        assert first.protocol["neighbours"] == "3"


def test_known_sets() -> None:
    line = torch.arange(10.0)[:, None]  # each third neighbour is 2 or 3 away
    assert share_inside(line, line) == 1
    assert share_inside(line + 100, line) == 0
    # 12 is 3 from 9, whose third neighbour is 6: on the ball; 12.5 is outside.
    assert share_inside(torch.tensor([[12.0], [12.5]]), line) == 0.5
    far = line + 1e6  # nor does it depend on the origin
    assert share_inside(torch.tensor([[12.0], [12.5]]) + 1e6, far) == 0.5


def test_copies_have_balls_of_no_size() -> None:
    copies = torch.rand(1, 2048).repeat(6, 1)
    assert share_inside(copies[:2], copies) == 1
    assert share_inside(copies[:2] + 1e-3, copies) == 0


def test_refusals() -> None:
    for metric in metrics():
        metric.update(torch.rand(3, 3, 2, 2), torch.rand(3, 3, 2, 2))
        with pytest.raises(ValueError, match="3 outputs and 3 targets: it needs 4 or more of each"):
            metric.compute()
    with pytest.raises(ValueError, match="more than 3 neighbours"):
        share_inside(torch.rand(3, 2), torch.rand(3, 2))
    with pytest.raises(ValueError, match=r"expected \[M, D\], \[K, D\]"):
        share_inside(torch.rand(5, 2), torch.rand(5, 3))
