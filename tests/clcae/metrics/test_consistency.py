"""LEC against what e4e's script computes, written with numpy's percentiles."""

import numpy as np
import pytest
import torch
from torch import Tensor

from clcae.metrics.consistency import (
    EditingConsistency,
    OfficialEditingConsistency,
    edit_and_undo,
    editing_distance,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def official(codes: Tensor, recovered: Tensor, batch_size: int) -> float:
    """Full batches in order; `np.percentile` by ranks below and above; what lies within."""
    means = []
    for start in range(0, len(codes) - batch_size + 1, batch_size):
        part = slice(start, start + batch_size)
        means.append((codes[part] - recovered[part]).norm(2, dim=(1, 2)).mean().numpy())
    array = np.array(means)
    low = np.percentile(array, 1, method="lower")
    high = np.percentile(array, 99, method="higher")
    return float(array[(low <= array) & (array <= high)].mean())


def pair(count: int) -> tuple[Tensor, Tensor]:
    codes = torch.randn(count, 4, 6)
    spread = torch.rand(count, 1, 1) ** 4 * 30  # a few far away, for the filter
    return codes + spread * torch.randn(count, 4, 6), codes


@pytest.mark.parametrize(("count", "batch_size"), [(21, 8), (611, 3), (500, 1)])
def test_agrees_with_the_script(count: int, batch_size: int) -> None:
    recovered, codes = pair(count)
    metric = OfficialEditingConsistency(edit="age 3", batch_size=batch_size)
    counted = [
        metric.update(outputs, targets)
        for outputs, targets in zip(
            recovered.split(batch_size), codes.split(batch_size), strict=True
        )
    ]
    used = count // batch_size * batch_size
    assert torch.cat(counted).tolist() == [True] * used + [False] * (count - used)
    assert metric.num_counted == used
    assert metric.compute() == pytest.approx(official(codes, recovered, batch_size), rel=1e-6)


def test_the_filter_leaves_out_what_is_extreme_in_many_batches() -> None:
    metric = OfficialEditingConsistency(edit="age 3", batch_size=1)
    zero = torch.zeros(1, 1, 1)
    for value in [*range(100, 300), 1e6]:
        metric.update(zero + value, zero)
    assert metric.compute() == pytest.approx(np.mean([*range(102, 300)]), abs=2)
    few = OfficialEditingConsistency(edit="age 3", batch_size=1)
    for value in (1.0, 2.0, 1e6):
        few.update(zero + value, zero)
    assert few.compute() == pytest.approx(1000003 / 3)


def test_the_plain_form_does_not_depend_on_batches() -> None:
    recovered, codes = pair(50)
    expected = (codes.double() - recovered.double()).flatten(1).norm(dim=1).mean()
    values = []
    for batch_size in (1, 7, 50):
        metric = EditingConsistency(edit="age 3")
        for outputs, targets in zip(
            recovered.split(batch_size), codes.split(batch_size), strict=True
        ):
            metric.update(outputs, targets)
        values.append(metric.compute())
    assert values[0] == values[1] == values[2] == pytest.approx(float(expected), rel=1e-12)
    assert metric.direction == "lower"


def test_merge_equals_whole_to_the_last_digit() -> None:
    recovered, codes = pair(40)
    for make in (EditingConsistency, OfficialEditingConsistency):
        whole, first, second = make(edit="age 3"), make(edit="age 3"), make(edit="age 3")
        for start in range(0, 40, 8):
            part = slice(start, start + 8)
            (first if start in (8, 32) else second).update(recovered[part], codes[part])
            whole.update(recovered[part], codes[part])
        first.merge(second)
        assert first.compute() == whole.compute()
        with pytest.raises(ValueError, match="cannot merge"):
            first.merge(make(edit="age 4"))


def test_round_trip_of_an_exact_inversion_is_nothing() -> None:
    matrix = torch.linalg.qr(torch.randn(12, 12, dtype=torch.float64)).Q
    step = 0.1 * torch.randn(3, 4, dtype=torch.float64)
    calls: list[str] = []

    def invert(images: Tensor) -> Tensor:
        calls.append("invert")
        return (images.double().flatten(1) @ matrix).reshape(-1, 3, 4)

    def synthesize(codes: Tensor) -> Tensor:
        calls.append("synthesize")
        return (codes.flatten(1) @ matrix.T).reshape(-1, 3, 2, 2)

    images = torch.rand(5, 3, 2, 2) * 2 - 1
    exact = edit_and_undo(
        images,
        invert=invert,
        synthesize=synthesize,
        edit=lambda codes: codes + step,
        undo=lambda codes: codes - step,
    )
    assert calls == ["invert", "synthesize", "invert"]
    torch.testing.assert_close(editing_distance(*exact), torch.zeros(5).double(), atol=1e-9, rtol=0)
    forgotten = edit_and_undo(
        images,
        invert=invert,
        synthesize=synthesize,
        edit=lambda codes: codes + step,
        undo=lambda codes: codes,
    )
    torch.testing.assert_close(editing_distance(*forgotten), step.norm().expand(5))


def test_refusals() -> None:
    codes = torch.zeros(2, 3, 4)
    for make in (EditingConsistency, OfficialEditingConsistency):
        metric = make(edit="age 3")
        with pytest.raises(ValueError, match=r"expected one \[N, L, D\]"):
            metric.update(codes, codes[:, :2])
        with pytest.raises(ValueError, match="not finite"):
            metric.update(codes * torch.nan, codes)
        with pytest.raises(ValueError, match=r"nothing to average|no full batch of 8"):
            metric.compute()
    with pytest.raises(ValueError, match="9 codes at once: expected 8"):
        OfficialEditingConsistency(edit="age 3").update(torch.zeros(9, 3, 4), torch.zeros(9, 3, 4))
    with pytest.raises(ValueError, match="batch size is 0"):
        OfficialEditingConsistency(edit="age 3", batch_size=0)
    with pytest.raises(ValueError, match=r"expected \[-1, 1\]"):
        edit_and_undo(
            torch.full((1, 3, 2, 2), 99.0),
            invert=torch.clone,
            synthesize=torch.clone,
            edit=torch.clone,
            undo=torch.clone,
        )
