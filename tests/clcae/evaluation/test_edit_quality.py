"""The loop over edits: rows in order, values that do not depend on the batches."""

import pytest
import torch
from torch import Tensor

from clcae.evaluation.edit_quality import EditRow, measure_edits
from clcae.methods.interface import Move
from clcae.metrics.editing import Judgement
from clcae.portraits import PortraitImages
from clcae.pretrained.assets import portraits_judges

ATTRIBUTES = ("bright", "red", "contrast")


def judge(images: Tensor) -> Judgement:
    """Attributes that are known in closed form, the shipped identity."""
    attributes = [
        images.mean(dim=(1, 2, 3)),
        images[:, 0].mean(dim=(1, 2)),
        images.std(dim=(1, 2, 3)),
    ]
    return Judgement(torch.stack(attributes, dim=1), portraits_judges().identity(images))


def add(strength: float) -> Move:
    return lambda codes: codes + strength


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PortraitImages:
    cache = tmp_path_factory.mktemp("cache")
    return PortraitImages(split="test", cache=cache, num_people=6)


class Paint(torch.nn.Module):
    """An inversion whose codes are the pixels: the effect of a move is known."""

    def invert(self, images: Tensor) -> Tensor:
        return images

    def edit(self, inversion: Tensor, move: Move) -> Tensor:
        return move(inversion)

    def synthesize(self, inversion: Tensor) -> Tensor:
        return inversion


def measured(source: PortraitImages, batch_size: int) -> list[EditRow]:
    return measure_edits(
        {"paint": Paint()},  # type: ignore[dict-item]
        source,
        directions={"bright": add},
        strengths=[-0.1, 0.0, 0.1],
        judge=judge,
        attributes=ATTRIBUTES,
        batch_size=batch_size,
    )


def test_rows_and_values(source: PortraitImages) -> None:
    rows = measured(source, 6)
    assert [(row.method, row.direction, row.strength) for row in rows] == [
        ("paint", "bright", -0.1),
        ("paint", "bright", 0.0),
        ("paint", "bright", 0.1),
    ]
    bright = judge(source.images(range(6))).attributes[:, 0].double()
    assert rows[2].effect.change == pytest.approx(0.1 / float(bright.std(correction=0)), rel=1e-4)
    assert rows[0].effect.right_way == rows[2].effect.right_way == 1.0
    assert rows[2].effect.shifts[2] == pytest.approx(0.0, abs=1e-5)
    assert rows[1].effect.identity == pytest.approx(1.0, abs=1e-6)
    assert rows[1].as_dict()["count"] == 6 and "effect" not in rows[1].as_dict()
    for row, other in zip(rows, measured(source, 4), strict=True):
        assert other.effect.leakage == pytest.approx(row.effect.leakage, rel=1e-5, abs=1e-7)
        assert other.effect.identity == pytest.approx(row.effect.identity, rel=1e-5)


def test_directions_are_judged_attributes(source: PortraitImages) -> None:
    with pytest.raises(ValueError, match=r"\['hair'\] are no judged attributes"):
        measure_edits(
            {}, source, directions={"hair": add}, strengths=[1], judge=judge, attributes=ATTRIBUTES
        )
    with pytest.raises(ValueError, match=r"0 methods, .* nothing to measure"):
        measure_edits(
            {}, source, directions={"red": add}, strengths=[1], judge=judge, attributes=ATTRIBUTES
        )
