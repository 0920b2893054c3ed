"""InterFaceGAN: the normal of the hyperplane that separates a latent space by an attribute.

Shen et al. 2020 (arXiv 2005.09635), sections 3.1 to 3.3; `utils/manipulator.py` of the official
code. Codes are drawn and scored, the extremes of the scores are separated by a linear SVM, and the
unit normal is the direction; conditional manipulation projects it off others.

W codes come from the mapping network (the official sampler of 'W' draws raw normal numbers, which
W is not). Rows of W+ and Z+ are drawn independently, and their boundary is found on flattened codes
[N, L * D] and given back as rows [L, D] of unit length together, which needs the fewest samples;
for a boundary of one row, give that row's codes alone.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from clcae.stylegan2 import Generator, LatentSpace, normalize_z

SHARE = 0.02  # of the samples on either side: chosen_num_or_ratio of the official code
SPLIT = 0.7  # of the extremes, for training
NEEDED = "pip install -e '.[edit]'"


@dataclass(frozen=True, eq=False)
class Boundary:
    """A separating hyperplane, and how well it separates what it has not seen."""

    normal: Tensor  # [1, D], or rows [L, D]; of unit length
    num_extremes: int  # samples on either side, those held out included
    accuracy: float  # on the extremes held out
    accuracy_rest: float | None  # on all samples between the extremes; None where there are none
    threshold: float  # the score that parts the samples between the extremes


def sample_codes(
    generator: Generator,
    *,
    space: LatentSpace,
    count: int,
    rng: torch.Generator,
    truncation: float = 1.0,
) -> Tensor:
    """Codes of a latent space: [N, D], or [N, L, D] for W+ and Z+.

    Args:
        generator: whose latent space it is.
        space: Z and Z+ are brought to the sphere of radius sqrt(D); W and W+ are mapped.
        count: N.
        rng: source of all draws, on the CPU.
        truncation: psi, of W and W+; 1 changes nothing.
    """
    shape = (count, generator.num_codes) if space.has_rows else (count,)
    z = torch.randn(*shape, generator.z_dim, generator=rng).to(generator.w_average)
    if space in (LatentSpace.Z, LatentSpace.Z_PLUS):
        return normalize_z(z)
    with torch.no_grad():
        return generator.map(z, truncation=truncation)


@torch.no_grad()
def scored_samples(
    generator: Generator,
    score: Callable[[Tensor], Tensor],  # images [N, 3, H, W] in [-1, 1] -> [N, A]
    *,
    space: LatentSpace,
    count: int,
    seed: int = 0,
    batch: int | None = None,  # pictures at once; None: as many as fit into some GiB, at most 256
    truncation: float = 1.0,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Codes and the scores of their pictures, batch by batch.

    Yields:
        Codes [N, D] or [N, L, D] and scores [N, A], on the CPU; the same for the same seed and
        batch.
    """
    rng = torch.Generator().manual_seed(seed)
    step = batch or min(generator.at_once, 256)
    for first in range(0, count, step):
        codes = sample_codes(
            generator,
            space=space,
            count=min(step, count - first),
            rng=rng,
            truncation=truncation,
        )
        latent = generator.map(codes) if space in (LatentSpace.Z, LatentSpace.Z_PLUS) else codes
        scores = score(generator.synthesize(latent).clamp(-1, 1))
        yield codes.cpu(), scores.cpu()


def train_boundary(
    codes: NDArray[np.floating] | Tensor,  # [N, D], or rows [N, L, D]
    scores: NDArray[np.floating] | Tensor,  # [N] or [N, 1]
    *,
    share: float = SHARE,
    split: float = SPLIT,
    invalid: float | None = None,
    seed: int = 0,
) -> Boundary:
    """The boundary between the highest and the lowest scores, by a linear SVM (C = 1).

    Args:
        codes: samples of the latent space.
        scores: of one attribute, the more the higher.
        share: extremes on either side: up to 1 a share of the samples, above a number of them; at
            most half of the samples.
        split: part of the extremes that is trained on; the rest is held out.
        invalid: samples of this score are dropped, as those of NaN always are; None drops no other.
        seed: of the split, of numpy's legacy generator as in the official code.

    Raises:
        ValueError: shapes that do not fit, scores that are all alike, too few samples.
        ImportError: scikit-learn is missing, with what to install.
    """
    values, labels = _arrays(codes, scores)
    keep = np.isfinite(labels) if invalid is None else np.isfinite(labels) & (labels != invalid)
    order = np.flatnonzero(keep)[np.argsort(labels[keep], kind="stable")[::-1]]
    if len(order) < 4 or labels[order[0]] == labels[order[-1]]:
        raise ValueError(
            f"{len(order)} valid scores, from {labels[order].min(initial=0):g} to "
            f"{labels[order].max(initial=0):g}: expected four or more that differ"
        )
    flat = values.reshape(len(values), -1)
    chosen = _count(len(order), share)
    trained = int(chosen * split)
    if not 0 < trained < chosen:
        raise ValueError(
            f"{chosen} extremes on either side with split {split:g}: none would be "
            "trained on or held out; expected more samples, or a split between 0 and 1"
        )
    shuffle = np.random.RandomState(seed)
    sides = [
        side[shuffle.permutation(chosen)] for side in (order[:chosen], order[len(order) - chosen :])
    ]
    weights, offset = _svm(flat, [side[:trained] for side in sides])
    normal = torch.from_numpy(weights / np.linalg.norm(weights))
    threshold = float(labels[order[0]] + labels[order[-1]]) / 2
    rest = order[chosen : len(order) - chosen]

    def accuracy(rows: NDArray, truth: NDArray) -> float:
        return float(((flat[rows] @ weights + offset > 0) == truth).mean())

    return Boundary(
        normal=normal.reshape(values.shape[1:] if values.ndim == 3 else (1, -1)).float(),
        num_extremes=chosen,
        accuracy=accuracy(
            np.concatenate([side[trained:] for side in sides]),
            np.arange(2 * (chosen - trained)) < chosen - trained,
        ),
        accuracy_rest=accuracy(rest, labels[rest] >= threshold) if len(rest) else None,
        threshold=threshold,
    )


def _arrays(codes: object, scores: object) -> tuple[NDArray, NDArray]:
    values, labels = np.asarray(codes), np.asarray(scores, dtype=np.float64)
    if values.ndim not in (2, 3) or labels.shape not in ((len(values),), (len(values), 1)):
        raise ValueError(
            f"codes have shape {values.shape} and scores {labels.shape}, expected [N, D] or "
            "[N, L, D], and [N] or [N, 1]"
        )
    return values, labels.reshape(-1)


def _count(total: int, share: float) -> int:
    if not share > 0:
        raise ValueError(f"share is {share}, expected a share up to 1 or a number of samples")
    return min(int(total * share if share <= 1 else min(share, total)), total // 2)


def _svm(flat: NDArray, sides: Sequence[NDArray]) -> tuple[NDArray, float]:
    """Weights [D] and offset of the hyperplane; positive on the first side."""
    classifier = linear_svm()
    rows = np.concatenate(sides)
    if not np.isfinite(flat[rows]).all():
        raise ValueError("codes hold NaN or infinity")
    labels = np.concatenate([np.ones(len(sides[0])), np.zeros(len(sides[1]))])
    classifier.fit(flat[rows], labels)
    return classifier.coef_[0].astype(np.float64), float(classifier.intercept_[0])


def linear_svm() -> Any:
    """scikit-learn's SVC with a linear kernel, not fitted yet.

    Raises:
        ImportError: scikit-learn is missing, with what to install.
    """
    try:
        from sklearn.svm import SVC
    except ImportError as error:
        raise ImportError(f"finding boundaries needs scikit-learn: {NEEDED}") from error
    return SVC(kernel="linear")


def least_squares(
    codes: Tensor,  # [N, D]
    scores: Tensor,  # [N]
) -> Tensor:
    """[1, D], unit length: the gradient of the linear function of a code that fits its score best.

    An alternative to the SVM that uses every sample, not the extremes alone; not InterFaceGAN's.
    """
    centred = codes.double() - codes.double().mean(dim=0)
    target = (scores.double() - scores.double().mean()).reshape(-1, 1)
    slope = torch.linalg.lstsq(centred, target).solution.T
    return (slope / slope.norm()).float()


def conditional(
    direction: Tensor,  # [1, D] or [L, D]
    conditions: Sequence[Tensor],  # of the same shape
) -> Tensor:
    """The direction made orthogonal to all conditions, of unit length (equation 5 and section 3.3).

    What is left of the direction after projection on the span of the conditions, which for one
    is n - (n . c) c, and for more the solution of their Gram system; conditions need neither unit
    length nor to be orthogonal among themselves.

    Raises:
        ValueError: shapes differ, or the conditions leave nothing of the direction.
    """
    shapes = {tuple(t.shape) for t in (direction, *conditions)}
    if len(shapes) != 1:
        raise ValueError(f"boundaries have shapes {sorted(shapes)}, expected one")
    flat = direction.double().reshape(-1)
    left = flat
    if conditions:
        others = torch.stack([c.double().reshape(-1) for c in conditions])
        others = others / others.norm(dim=1, keepdim=True)
        # lstsq by SVD, so that conditions which repeat each other do no harm
        solved = torch.linalg.lstsq(others.T, flat[:, None], driver="gelsd").solution[:, 0]
        left = flat - solved @ others
    if not left.norm() > 1e-6 * flat.norm():
        raise ValueError("the conditions leave nothing of the direction: it lies in their span")
    return (left / left.norm()).reshape(direction.shape).float()


def to_distance(
    code: Tensor,  # [1, D]
    normal: Tensor,  # [1, D], unit length
    distances: Sequence[float] | Tensor,
) -> Tensor:
    """[S, D]: the code moved along the normal until <code, normal> is each of the distances.

    `linear_interpolate` of the official code for codes of two axes; the hyperplane is taken through
    the origin, as there.
    """
    steps = torch.as_tensor(distances, dtype=code.dtype, device=code.device)[:, None]
    return code + (steps - code @ normal.to(code).T) * normal.to(code)


def by_distance(
    code: Tensor,  # [1, D], or rows [1, L, D]
    normal: Tensor,  # [1, D], or [L, D] for rows
    distances: Sequence[float] | Tensor,
) -> Tensor:
    """[S, D] or [S, L, D]: the code moved by each of the distances from where it is.

    `linear_interpolate` of the official code for codes of three axes.
    """
    steps = torch.as_tensor(distances, dtype=code.dtype, device=code.device)
    return code + steps.reshape(-1, *[1] * (code.ndim - 1)) * normal.to(code)
