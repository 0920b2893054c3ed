"""InterFaceGAN: directions as normals of hyperplanes that separate codes by an attribute.

Shen et al. 2020 (arXiv 2005.09635), sections 3.1 to 3.3; `utils/manipulator.py` of the official
code. A linear SVM separates the extremes of the scores, and the unit normal is the direction.
Conditional manipulation projects it off others: off their boundaries, as in the paper, or off the
gradients of the linear functions that fit the other scores best by least squares. A code that moves
orthogonally to such a gradient keeps what is linear in the other attribute, and the gradient is
found from all samples, the boundary from the extremes alone.

Deviations: W codes come from the mapping network (the official sampler of 'W' draws raw normal
numbers, which W is not). Rows of W+ and Z+ are drawn independently; their boundary is found on
flattened codes [N, L * D] and given back as rows [L, D] of unit length together, which needs the
fewest samples. For a boundary of one row, give that row's codes alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from tqdm import tqdm

from clcae.portraits import ATTRIBUTES
from clcae.stylegan2 import Generator, LatentSpace
from editing.calibration import by_width, measured, width_of
from editing.directions import Direction
from editing.samples import Samples, check_attributes, draw, portraits_scorer, sample_codes

Off = Literal["boundaries", "gradients"]

SHARE = 0.02  # of the samples on either side: chosen_num_or_ratio of the official code
SPLIT = 0.7  # of the extremes, for training
NEEDED = "pip install -e '.[edit]'"


@dataclass(frozen=True, eq=False)
class Boundary:
    """A separating hyperplane and its accuracy on held-out samples."""

    normal: Tensor  # [1, D], or rows [L, D]; of unit length
    num_extremes: int  # samples on either side, those held out included
    accuracy: float  # on the extremes held out
    accuracy_rest: float | None  # on all samples between the extremes; None where there are none


@dataclass(frozen=True)
class Search:
    """Options of finding directions in scored samples.

    Args:
        space: of the codes.
        conditions: attributes to project off, except a direction's own; None is all.
        off: vectors that stand for the conditions.
        share: extremes on either side, see `train_boundary`.
        invalid: score that marks a sample as not scored.
        seed: of the split into training and held-out extremes, and of samples drawn.
    """

    space: LatentSpace = LatentSpace.W
    conditions: Sequence[str] | None = ()
    off: Off = "boundaries"
    share: float = SHARE
    invalid: float | None = None
    seed: int = 0


def find_directions(
    samples: Samples, wanted: Sequence[str], search: Search
) -> dict[str, Direction]:
    """Finds the directions of attributes; strength 1 is one width of the latent space along each.

    Raises:
        ValueError: if an attribute is unknown, its scores are all alike, or the conditions leave
            nothing of a boundary.
        ImportError: if scikit-learn is missing.
    """
    boundaries: dict[str, Boundary] = {}

    def boundary(name: str) -> Boundary:
        if name not in boundaries:
            scores = samples.scores[:, samples.column(name)]
            boundaries[name] = train_boundary(
                samples.codes,
                scores,
                share=search.share,
                invalid=search.invalid,
                seed=search.seed,
            )
        return boundaries[name]

    def normal(name: str) -> Tensor:
        if search.off == "boundaries":
            return boundary(name).normal
        scores = samples.scores[:, samples.column(name)]
        valid = scores.isfinite()
        if search.invalid is not None:
            valid &= scores != search.invalid
        fitted = least_squares(samples.codes[valid].flatten(1), scores[valid])
        return fitted.reshape(boundary(wanted[0]).normal.shape)

    found = {}
    for name in wanted:
        own = boundary(name)
        conditions = samples.names if search.conditions is None else search.conditions
        others = [other for other in conditions if other != name]
        vector = conditional(own.normal, [normal(other) for other in others])
        direction = Direction(
            name=name,
            vector=vector,
            space=search.space,
            provenance={
                "method": "InterFaceGAN",
                "conditions": others,
                "off": search.off if others else None,
                "samples": len(samples.codes),
                "extremes": own.num_extremes,
                "held_out_accuracy": own.accuracy,
                "rest_accuracy": own.accuracy_rest,
                "cosine_to_boundary": float((vector * own.normal).sum()),
            },
        )
        found[name] = by_width(direction, width_of(samples.codes, vector))
    return found


def find_judged(
    generator: Generator,
    wanted: Sequence[str] | None,
    search: Search,
    *,
    num_samples: int,
    truncation: float,
    calibrate_on: int,
    compare: bool,
) -> dict[str, Direction]:
    """Draws samples, scores them by the portraits judge, finds directions and measures them.

    Args:
        generator: of pictures that the judge reads.
        wanted: attributes of the judge; None is all.
        search: how directions are found.
        num_samples: pictures scored.
        truncation: psi, of sampled codes of W and W+.
        calibrate_on: codes for units and ranges, and as many again for the leaks.
        compare: measure also the leaks of every other way to project off.

    Raises:
        ValueError: as `find_directions`, or if an attribute does not respond to its direction.
        ImportError: if scikit-learn is missing.
    """
    judge, embed = portraits_scorer(generator)
    wanted, space, seed = wanted or list(ATTRIBUTES), search.space, search.seed
    check_attributes([*wanted, *(search.conditions or [])], ATTRIBUTES)
    codes, scores = [], []
    drawn = draw(generator, space=space, count=num_samples, seed=seed, truncation=truncation)
    with tqdm(total=num_samples, unit="picture", disable=None) as bar:
        for some, pictures in drawn:
            codes.append(some)
            with torch.no_grad():
                scores.append(judge(pictures.clamp(-1, 1)).cpu())
            bar.update(len(some))
    samples = Samples(torch.cat(codes), torch.cat(scores), ATTRIBUTES, binary=["glasses"])
    found = find_directions(samples, wanted, search)
    ways = {}
    if compare:
        ways = {
            "plain": replace(search, conditions=(), off="boundaries"),
            "boundaries": replace(search, conditions=None, off="boundaries"),
            "gradients": replace(search, conditions=None, off="gradients"),
        }
    others = {way: find_directions(samples, wanted, one) for way, one in ways.items()}
    rng = torch.Generator().manual_seed(seed + 1)
    fresh = sample_codes(generator, space=space, count=2 * calibrate_on, rng=rng).cpu()
    for name, raw in tqdm(found.items(), unit="direction", disable=None):
        found[name] = measured(
            generator,
            raw,
            samples,
            judge=judge,
            embed=embed,
            codes=fresh,
            ways={way: directions[name] for way, directions in others.items()},
        )
    return found


def train_boundary(
    codes: NDArray[np.floating] | Tensor,  # [N, D], or rows [N, L, D]
    scores: NDArray[np.floating] | Tensor,  # [N] or [N, 1]
    *,
    share: float = SHARE,
    split: float = SPLIT,
    invalid: float | None = None,
    seed: int = 0,
) -> Boundary:
    """Separates the highest from the lowest scores by a linear SVM (C = 1).

    Args:
        codes: samples of the latent space.
        scores: of one attribute, the more the higher.
        share: extremes on either side: a share of the samples up to 1, else their number; at most
            half of the samples.
        split: share of the extremes to train on; the rest is held out.
        invalid: drops samples of this score; NaN is always dropped.
        seed: of the split, of numpy's legacy generator as in the official code.

    Raises:
        ValueError: if shapes do not fit, scores are all alike, or there are too few samples.
        ImportError: if scikit-learn is missing.
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
    """Fits weights [D] and offset of the hyperplane; positive on the first side."""
    classifier = linear_svm()
    rows = np.concatenate(sides)
    if not np.isfinite(flat[rows]).all():
        raise ValueError("codes hold NaN or infinity")
    labels = np.concatenate([np.ones(len(sides[0])), np.zeros(len(sides[1]))])
    classifier.fit(flat[rows], labels)
    return classifier.coef_[0].astype(np.float64), float(classifier.intercept_[0])


def linear_svm() -> Any:
    """Builds scikit-learn's SVC with a linear kernel; ImportError if scikit-learn is missing."""
    try:
        from sklearn.svm import SVC
    except ImportError as error:
        raise ImportError(f"finding boundaries needs scikit-learn: {NEEDED}") from error
    return SVC(kernel="linear")


def least_squares(
    codes: Tensor,  # [N, D]
    scores: Tensor,  # [N]
) -> Tensor:
    """Fits the linear function of codes that predicts the scores; returns its unit gradient [1, D].

    Not of InterFaceGAN: it uses every sample, the SVM only the extremes.
    """
    centred = codes.double() - codes.double().mean(dim=0)
    target = (scores.double() - scores.double().mean()).reshape(-1, 1)
    slope = torch.linalg.lstsq(centred, target).solution.T
    return (slope / slope.norm()).float()


def conditional(
    direction: Tensor,  # [1, D] or [L, D]
    conditions: Sequence[Tensor],  # of the same shape
) -> Tensor:
    """Projects a direction off all conditions; unit length (equation 5 and section 3.3).

    For one condition that is n - (n . c) c. Conditions need neither unit length nor to be
    orthogonal among themselves.

    Raises:
        ValueError: if shapes differ, or the conditions leave nothing of the direction.
    """
    shapes = {tuple(t.shape) for t in (direction, *conditions)}
    if len(shapes) != 1:
        raise ValueError(f"boundaries have shapes {sorted(shapes)}, expected one")
    flat = direction.double().reshape(-1)
    left = flat
    if conditions:
        others = torch.stack([c.double().reshape(-1) for c in conditions])
        others = others / others.norm(dim=1, keepdim=True)
        # lstsq by SVD: linearly dependent conditions do no harm
        solved = torch.linalg.lstsq(others.T, flat[:, None], driver="gelsd").solution[:, 0]
        left = flat - solved @ others
    if not left.norm() > 1e-6 * flat.norm():
        raise ValueError("the conditions leave nothing of the direction: it lies in their span")
    return (left / left.norm()).reshape(direction.shape).float()
