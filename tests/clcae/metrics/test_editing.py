"""Effects of edits against plain numpy, merged and whole."""

import numpy as np
import pytest
import torch

from clcae.metrics.editing import EditQuality, Judgement


def judged(seed: int, count: int = 40) -> Judgement:
    rng = np.random.default_rng(seed)
    return Judgement(
        attributes=torch.from_numpy(rng.normal(size=(count, 3))).float(),
        embeddings=torch.from_numpy(rng.normal(size=(count, 5))).float(),
    )


def part(judgement: Judgement, rows: slice) -> Judgement:
    return Judgement(judgement.attributes[rows], judgement.embeddings[rows])


def cosine(first: np.ndarray, second: np.ndarray) -> float:
    norms = np.linalg.norm(first, axis=1) * np.linalg.norm(second, axis=1)
    return float(((first * second).sum(axis=1) / norms).mean())


@pytest.mark.parametrize("sign", [1, -1])
def test_effect_is_what_its_protocol_says(sign: int) -> None:
    edited, unedited, inputs = judged(0), judged(1), judged(2)
    deviations = np.array([0.5, 2.0, 1.5])
    quality = EditQuality(num_attributes=3, target=1, sign=sign)
    for rows in (slice(0, 13), slice(13, None)):
        quality.update(*(part(judgement, rows) for judgement in (edited, unedited, inputs)))
    effect = quality.compute(deviations)
    change = (edited.attributes - unedited.attributes).double().numpy() / deviations
    assert effect.count == 40
    assert effect.change == pytest.approx(change[:, 1].mean(), rel=1e-5)
    assert effect.right_way == np.mean(change[:, 1] * sign > 0)
    assert effect.leakage == pytest.approx(np.abs(change[:, [0, 2]]).mean(), rel=1e-5)
    assert effect.shifts == pytest.approx(change.mean(axis=0), rel=1e-5)
    ours, reconstruction, given = (j.embeddings.numpy() for j in (edited, unedited, inputs))
    assert effect.identity == pytest.approx(cosine(ours, reconstruction), abs=1e-6)
    assert effect.identity_with_input == pytest.approx(cosine(ours, given), abs=1e-6)


def test_no_edit_changes_nothing_and_has_no_way() -> None:
    same, inputs = judged(0), judged(2)
    quality = EditQuality(num_attributes=3, target=0, sign=0)
    quality.update(same, same, inputs)
    effect = quality.compute([1.0, 1.0, 1.0])
    assert effect.change == effect.leakage == 0.0
    assert effect.identity == pytest.approx(1.0, abs=1e-6)
    assert np.isnan(effect.right_way)


def test_what_cannot_be_measured_is_refused() -> None:
    with pytest.raises(ValueError, match="target is 3 of 3"):
        EditQuality(num_attributes=3, target=3, sign=1)
    quality = EditQuality(num_attributes=3, target=0, sign=1)
    with pytest.raises(ValueError, match="no picture was judged"):
        quality.compute([1.0, 1.0, 1.0])
    with pytest.raises(ValueError, match=r"attributes are \(39, 3\), not \(40, 3\)"):
        quality.update(judged(0), judged(1, 39), judged(2))
    with pytest.raises(ValueError, match="not finite"):
        quality.update(
            Judgement(judged(0).attributes * np.nan, judged(0).embeddings), *[judged(1)] * 2
        )
    quality.update(judged(0), judged(1), judged(2))
    with pytest.raises(ValueError, match="expected 3 > 0"):
        quality.compute([1.0, 0.0, 1.0])
