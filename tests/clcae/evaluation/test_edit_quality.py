"""The loop over edits: rows in order, values that do not depend on the batches."""

import numpy as np
import pytest
import torch
from torch import Tensor

from clcae.evaluation.edit_quality import EditRow, Judgement, measure_edits
from clcae.methods.interface import Inversion, InversionMethod, Move
from clcae.portraits import PortraitImages
from clcae.pretrained.assets import portraits_judges

DIMMED = 0.9
ATTRIBUTES = ("bright", "red", "contrast")


def judge(images: Tensor) -> Judgement:
    """Attributes that are known in closed form, the shipped identity."""
    attributes = [
        images.mean(dim=(1, 2, 3)),
        images[:, 0].mean(dim=(1, 2)),
        images.std(dim=(1, 2, 3)),
    ]
    return Judgement(torch.stack(attributes, dim=1), portraits_judges().identity(images))


def add(method: InversionMethod, inversion: Inversion, strength: float) -> Inversion:
    return method.edit(inversion, lambda codes: codes + strength)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> PortraitImages:
    cache = tmp_path_factory.mktemp("cache")
    return PortraitImages(split="test", cache=cache, num_people=6)


def cosine(first: Judgement, second: Judgement) -> float:
    a, b = first.embeddings.numpy(), second.embeddings.numpy()
    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    return float(((a * b).sum(axis=1) / norms).mean())


class Paint(torch.nn.Module):
    """An inversion whose codes are the pixels, shown dimmed: the effect of a move is known."""

    def invert(self, images: Tensor) -> Tensor:
        return images

    def edit(self, inversion: Tensor, move: Move) -> Tensor:
        return move(inversion)

    def synthesize(self, inversion: Tensor) -> Tensor:
        return inversion * DIMMED


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
    images = source.images(range(6))
    inputs, plain, edited = (judge(x) for x in (images, images * DIMMED, (images + 0.1) * DIMMED))
    deviations = inputs.attributes.double().numpy().std(axis=0)
    assert rows[2].change == pytest.approx(0.1 * DIMMED / deviations[0], rel=1e-4)
    assert rows[2].leakage == pytest.approx(0.1 * DIMMED / deviations[1] / 2, rel=1e-4)
    assert rows[2].shifts[1] == pytest.approx(0.1 * DIMMED / deviations[1], rel=1e-4)
    assert rows[2].identity == pytest.approx(cosine(edited, plain), abs=1e-6)
    assert rows[2].identity_with_input == pytest.approx(cosine(edited, inputs), abs=1e-6)
    assert np.isnan(rows[1].right_way) and rows[1].change == rows[1].leakage == 0
    assert rows[0].right_way == rows[2].right_way == 1.0
    assert rows[2].shifts[2] == pytest.approx(0.0, abs=1e-5)
    assert rows[1].identity == pytest.approx(1.0, abs=1e-6)
    assert rows[1].count == 6
    for row, other in zip(rows, measured(source, 4), strict=True):
        assert other.leakage == pytest.approx(row.leakage, rel=1e-5, abs=1e-7)
        assert other.identity == pytest.approx(row.identity, rel=1e-5)


def test_directions_are_judged_attributes(source: PortraitImages) -> None:
    with pytest.raises(ValueError, match=r"\['hair'\] are no judged attributes"):
        measure_edits(
            {}, source, directions={"hair": add}, strengths=[1], judge=judge, attributes=ATTRIBUTES
        )
    with pytest.raises(ValueError, match=r"0 methods, .* nothing to measure"):
        measure_edits(
            {}, source, directions={"red": add}, strengths=[1], judge=judge, attributes=ATTRIBUTES
        )


def test_what_cannot_be_measured_is_refused(source: PortraitImages) -> None:
    def constant(images: Tensor) -> Judgement:
        return Judgement(torch.ones(len(images), 3), judge(images).embeddings)

    def broken(images: Tensor) -> Judgement:
        return Judgement(judge(images).attributes * torch.nan, judge(images).embeddings)

    for judged, said in ((constant, "expected > 0"), (broken, "not finite")):
        with pytest.raises(ValueError, match=said):
            measure_edits(
                {"paint": Paint()},  # type: ignore[dict-item]
                source,
                directions={"red": add},
                strengths=[1],
                judge=judged,
                attributes=ATTRIBUTES,
            )
