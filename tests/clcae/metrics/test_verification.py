"""ROC AUC and R2 against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.metrics import r2_score as sklearn_r2
from sklearn.metrics import roc_auc_score

from clcae.metrics.verification import r2_score, roc_auc


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("levels", [2, 5, 10_000])
def test_auc_agrees_with_sklearn(levels: int) -> None:
    rng = np.random.default_rng(levels)
    labels = rng.integers(0, 2, 400)
    scores = np.round((rng.standard_normal(400) + labels) * levels / 4)  # with ties
    expected = roc_auc_score(labels, scores)
    ours = roc_auc(torch.from_numpy(scores), torch.from_numpy(labels))
    assert ours == pytest.approx(expected, rel=1e-12)
    assert roc_auc(torch.from_numpy(-scores), torch.from_numpy(labels)) == pytest.approx(1 - ours)


def test_auc_at_its_ends() -> None:
    scores, labels = torch.arange(6.0), torch.tensor([0, 0, 0, 1, 1, 1])
    assert roc_auc(scores, labels.bool()) == 1
    assert roc_auc(scores, 1 - labels) == 0
    assert roc_auc(torch.zeros(6), labels) == 0.5


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, 2.0], [1, 1], "2 positives and 0 negatives"),
        ([1.0, 2.0], [0, 2], "other than 0 and 1"),
        ([1.0, float("nan")], [0, 1], "not finite"),
        ([1.0, 2.0, 3.0], [0, 1], r"expected one \[N\]"),
    ],
)
def test_auc_refusals(scores: list[float], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        roc_auc(torch.tensor(scores), torch.tensor(labels))


def test_r2_agrees_with_sklearn() -> None:
    targets = torch.randn(200, 3) * torch.tensor([1.0, 5, 0.1]) + 100
    estimates = targets + torch.randn(200, 3) * torch.tensor([0.1, 5, 0.3])
    expected = sklearn_r2(targets.double(), estimates.double(), multioutput="raw_values")
    np.testing.assert_allclose(r2_score(estimates, targets), expected, rtol=1e-9)


def test_r2_refusals() -> None:
    with pytest.raises(ValueError, match=r"constant attributes \[1\]"):
        r2_score(torch.rand(3, 2), torch.tensor([[0.0, 1], [1, 1], [2, 1]]))
    with pytest.raises(ValueError, match="1 rows"):
        r2_score(torch.rand(1, 2), torch.rand(1, 2))
    with pytest.raises(ValueError, match="not finite"):
        r2_score(torch.full((3, 2), torch.nan), torch.rand(3, 2))
    with pytest.raises(ValueError, match="differ"):
        r2_score(torch.rand(3, 1), torch.rand(3, 2))
