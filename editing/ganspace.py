"""GANSpace: the principal components of W as directions.

Härkönen et al. 2020 (arXiv 2004.02546), sections 2.1 and 2.2, for StyleGAN2: PCA of mapped samples,
moved on a range of layers. The paper runs incremental PCA; W is narrow enough for its exact
covariance, gathered in batches, so that a million samples take no more memory than two. An edit is
either an increment in standard deviations (the paper) or the coordinate to reach (`ganspace.py` of
e4e, CLCAE and StyleRes), see `editing.directions`. Deviation: the sign of a component, which PCA
leaves open, is such that its largest entry is positive.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clcae.stylegan2 import Generator, LatentSpace
from editing.directions import Direction, Semantics
from editing.published import ComponentEdit
from editing.statistics import LatentStatistics, mapped

STRENGTHS = {"increment": (-3.0, 3.0), "coordinate": (-25.0, 25.0)}  # StyleRes' demo: -25 to 25


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """What a PCA file holds: `mean`, `comp` and `std`.

    Raises:
        ValueError: shapes that do not belong together, NaN, or a deviation that is not positive.
    """

    mean: Tensor  # [1, D]
    components: Tensor  # [K, D], of unit length, widest first
    deviations: Tensor  # [K], standard deviations

    def __post_init__(self) -> None:
        shapes = [tuple(t.shape) for t in (self.mean, self.components, self.deviations)]
        count, width = shapes[1] if len(shapes[1]) == 2 else (0, 0)
        if not count or shapes != [(1, width), (count, width), (count,)]:
            raise ValueError(
                f"a PCA has mean, components and deviations of shapes {shapes}, "
                "expected [1, D], [K, D] and [K]"
            )
        finite = all(
            bool(t.isfinite().all()) for t in (self.mean, self.components, self.deviations)
        )
        if not finite or not (self.deviations > 0).all():
            raise ValueError("a PCA holds NaN, infinity, or deviations that are not positive")

    def direction(
        self,
        component: int,
        *,
        name: str | None = None,  # None: "pc" and the number
        layers: tuple[int, int] | None = None,  # first to end, exclusive; None: all
        semantics: Semantics = "increment",
        default: float = 1.0,
        provenance: Mapping[str, Any] | None = None,
    ) -> Direction:
        """One component as a direction; strength 1 is one standard deviation.

        Raises:
            ValueError: there is no such component.
        """
        if not 0 <= component < len(self.components):
            raise ValueError(
                f"component {component} is not among the {len(self.components)} of this PCA"
            )
        low, high = STRENGTHS[semantics]
        absolute = semantics == "coordinate"
        return Direction(
            name=f"pc{component}" if name is None else name,
            vector=self.components[component : component + 1],
            space=LatentSpace.W,
            layers=layers,
            unit=float(self.deviations[component]),
            strengths=(min(low, default), max(high, default)),
            default=default,
            semantics=semantics,
            center=self.mean if absolute else None,
            meaning="the coordinate, in standard deviations of W along the component"
            if absolute
            else "one standard deviation of W along the component",
            provenance={"method": "GANSpace", "component": component, **(provenance or {})},
        )

    def named(
        self,
        edits: Mapping[str, ComponentEdit],
        *,
        provenance: Mapping[str, Any] | None = None,
    ) -> dict[str, Direction]:
        """The published edits by name, as coordinates; those of components beyond K are left out.

        For codes of one generator only: components of another PCA mean something else.
        """
        return {
            name: self.direction(
                edit.component,
                name=name,
                layers=edit.layers,
                semantics="coordinate",
                default=edit.strength,
                provenance=provenance,
            )
            for name, edit in edits.items()
            if edit.component < len(self.components)
        }


def principal_components(
    statistics: LatentStatistics,
    *,
    count: int = 80,  # as official files hold
) -> PrincipalComponents:
    """The widest components of codes whose moments are known, but none that has no width.

    Raises:
        ValueError: `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"count is {count}, expected 1 or more components")
    variances, vectors = torch.linalg.eigh(statistics.covariance)
    variances, vectors = variances.flip(0), vectors.flip(1)
    # Rounding gives directions of no width a variance of about this much.
    wide = int((variances > variances[0] * 1e-12).sum())
    count = min(count, wide)
    return PrincipalComponents(
        mean=statistics.mean[None].float(),
        components=signed(vectors[:, :count].T).float(),
        deviations=variances[:count].sqrt().float(),
    )


def components_of_generator(
    generator: Generator, *, count: int = 80, num_samples: int = 1_000_000, seed: int = 0
) -> PrincipalComponents:
    """The components of W over mapped samples: a million, as GANSpace takes (section 2.2)."""
    batches = mapped(generator, num_samples=num_samples, seed=seed)
    return principal_components(LatentStatistics.of_codes(batches), count=count)


def signed(
    vectors: Tensor,  # [K, D]
) -> Tensor:
    """The vectors with such a sign that the entry of largest magnitude is positive."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * torch.where(largest < 0, -1.0, 1.0).to(vectors)
