"""GANSpace: the principal components of W as directions, in W or in Z.

Härkönen et al. 2020 (arXiv 2004.02546), sections 2.1 and 2.2, for StyleGAN2: PCA of mapped samples,
moved on a range of layers. An edit is an increment in standard deviations (the paper), or the
coordinate to reach (`ganspace.py` of e4e, CLCAE and StyleRes); see `editing.directions`.

Z has no components of its own: those of Z are the directions, of unit length, by which z is fitted
best from the coordinates of w (`decomposition.py`). F/Z+ adds multiples of them and does not take
the coordinate out first (`edit_ganspace_zp.py`).

Deviations: the exact covariance, gathered in batches, takes the place of incremental PCA and of a
second sample for the regression; the sign of a component, which PCA leaves open, is such that its
largest entry is positive; and increments of Z walk on the sphere, where F/Z+ adds once and leaves
the rest to the mapping network.

Published face edits are the 42 rows of StyleRes' `ganspace_configs.csv`, which hold e4e's and
CLCAE's too; they belong to the components of StyleGAN2 FFHQ at 1024 (`ffhq_pca.pt`, 18 rows). Those
of cars are of e4e's notebook and CLCAE's scripts, for `cars_pca.pt`; where the two differ (colour:
-8 and -27) e4e's.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from clcae.stylegan2 import Generator, LatentSpace
from editing.directions import Direction, Semantics
from editing.statistics import LatentStatistics, mapped, samples

STRENGTHS = {"increment": (-3.0, 3.0), "coordinate": (-25.0, 25.0)}  # StyleRes' demo: -25 to 25


@dataclass(frozen=True)
class ComponentEdit:
    """A published edit by one component."""

    component: int  # counted from 0
    layers: tuple[int, int]  # rows first to end, exclusive
    strength: float  # the coordinate it is published with, in standard deviations


@dataclass(frozen=True, eq=False)
class PrincipalComponents:
    """A PCA of codes, as official files hold it: `mean`, `comp` and `std`, of W or Z.

    Raises:
        ValueError: if shapes do not belong together, or there is NaN or a deviation that is not
            positive.
    """

    mean: Tensor  # [1, D]
    components: Tensor  # [K, D], of unit length, widest first
    deviations: Tensor  # [K], standard deviations
    space: LatentSpace = LatentSpace.W  # or Z

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
        """Makes a direction of one component; strength 1 is one standard deviation.

        Raises:
            ValueError: if there is no such component.
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
            space=self.space,
            layers=layers,
            unit=float(self.deviations[component]),
            strengths=(min(low, default), max(high, default)),
            default=default,
            semantics=semantics,
            center=self.mean if absolute else None,
            meaning=f"the coordinate, in standard deviations of {self.space} along the component"
            if absolute
            else f"one standard deviation of {self.space} along the component",
            provenance={"method": "GANSpace", "component": component, **(provenance or {})},
        )

    def directions(
        self,
        *,
        layers: tuple[int, int] | None = None,
        semantics: Semantics = "increment",
        provenance: Mapping[str, Any] | None = None,
    ) -> dict[str, Direction]:
        """Makes directions pc0, pc1, ... of all components; arguments as `direction`."""
        return {
            f"pc{index}": self.direction(
                index, layers=layers, semantics=semantics, provenance=provenance
            )
            for index in range(len(self.components))
        }

    def named(
        self,
        edits: Mapping[str, ComponentEdit],
        *,
        provenance: Mapping[str, Any] | None = None,
    ) -> dict[str, Direction]:
        """Makes directions of published edits, as coordinates; leaves out components beyond K.

        The edits must be published for this very PCA: components of another mean something else.
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
    """Computes the leading principal components; drops those of zero variance.

    Raises:
        ValueError: if `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"count is {count}, expected 1 or more components")
    variances, vectors = torch.linalg.eigh(statistics.covariance)
    variances, vectors = variances.flip(0), vectors.flip(1)
    # Rounding leaves zero variances at about this share of the largest.
    wide = int((variances > variances[0] * 1e-12).sum())
    count = min(count, wide)
    return PrincipalComponents(
        mean=statistics.mean[None].float(),
        components=signed(vectors[:, :count].T).float(),
        deviations=variances[:count].sqrt().float(),
    )


def components_of_generator(
    generator: Generator,
    *,
    count: int = 80,
    num_samples: int = 1_000_000,
    seed: int = 0,
    space: LatentSpace = LatentSpace.W,  # or Z
) -> PrincipalComponents:
    """Computes the components of W over mapped samples: a million, as GANSpace (section 2.2).

    Those of Z are fitted to them, each going the way of the component of W with its number. The
    least-squares fit of z by the coordinates a of w is E[z a], since these are uncorrelated and of
    unit variance.

    Raises:
        ValueError: if `count` is not positive.
    """
    if space.is_mapped:
        batches = mapped(generator, num_samples=num_samples, seed=seed)
        return principal_components(LatentStatistics.of_codes(batches), count=count)
    sampled = samples(generator, num_samples=num_samples, seed=seed)
    joint = LatentStatistics.of_codes(torch.cat([w, z], dim=1) for z, w in sampled)
    split = generator.w_dim
    of_w = LatentStatistics(mean=joint.mean[:split], covariance=joint.covariance[:split, :split])
    components = principal_components(of_w, count=count).components
    fitted = components.double() @ joint.covariance[:split, split:]
    return PrincipalComponents(
        mean=joint.mean[None, split:].float(),
        components=(fitted / fitted.norm(dim=1, keepdim=True)).float(),
        deviations=torch.ones(len(fitted)),
        space=LatentSpace.Z,
    )


def signed(
    vectors: Tensor,  # [K, D]
) -> Tensor:
    """Flips vectors so that their entry of largest magnitude is positive."""
    largest = vectors.gather(1, vectors.abs().argmax(dim=1, keepdim=True))
    return vectors * torch.where(largest < 0, -1.0, 1.0).to(vectors)


FACE_EDITS: Mapping[str, ComponentEdit] = {
    "frizzy_hair": ComponentEdit(31, (2, 6), 20),
    "background_blur": ComponentEdit(49, (6, 9), 20),
    "bald": ComponentEdit(21, (2, 5), 20),
    "big_smile": ComponentEdit(19, (4, 5), 20),
    "caricature_smile": ComponentEdit(26, (3, 8), 13),
    "scary_eyes": ComponentEdit(33, (6, 8), 20),
    "curly_hair": ComponentEdit(47, (3, 6), 20),
    "dark_bg_shiny_hair": ComponentEdit(13, (8, 9), 20),
    "dark_hair_and_light_pos": ComponentEdit(14, (8, 9), 20),
    "dark_hair": ComponentEdit(16, (8, 9), 20),
    "disgusted": ComponentEdit(43, (6, 8), -30),
    "displeased": ComponentEdit(36, (4, 7), 20),
    "eye_openness": ComponentEdit(54, (7, 8), 20),
    "eye_wrinkles": ComponentEdit(28, (6, 8), 20),
    "eyebrow_thickness": ComponentEdit(37, (8, 9), 20),
    "face_roundness": ComponentEdit(37, (0, 5), 20),
    "fearful_eyes": ComponentEdit(54, (4, 10), 20),
    "hairline": ComponentEdit(21, (4, 5), -20),
    "happy_frizzy_hair": ComponentEdit(30, (0, 8), 20),
    "happy_elderly_lady": ComponentEdit(27, (4, 7), 20),
    "head_angle_up": ComponentEdit(11, (1, 4), 20),
    "huge_grin": ComponentEdit(28, (4, 6), 20),
    "in_awe": ComponentEdit(23, (3, 6), -15),
    "wide_smile": ComponentEdit(23, (3, 6), 20),
    "large_jaw": ComponentEdit(22, (3, 6), 20),
    "light_lr": ComponentEdit(15, (8, 9), 10),
    "lipstick_and_age": ComponentEdit(34, (6, 11), 20),
    "lipstick": ComponentEdit(34, (10, 11), 20),
    "mascara_vs_beard": ComponentEdit(41, (6, 9), 20),
    "nose_length": ComponentEdit(51, (4, 5), -20),
    "elderly_woman": ComponentEdit(34, (6, 7), 20),
    "overexposed": ComponentEdit(27, (8, 18), 15),
    "screaming": ComponentEdit(35, (3, 7), -15),
    "short_face": ComponentEdit(32, (2, 6), -20),
    "show_front_teeth": ComponentEdit(59, (4, 5), 40),
    "smile": ComponentEdit(46, (4, 5), -20),
    "straight_bowl_cut": ComponentEdit(20, (4, 5), -20),
    "sunlight_in_face": ComponentEdit(10, (8, 9), 10),
    "trimmed_beard": ComponentEdit(58, (7, 9), 20),
    "white_hair": ComponentEdit(57, (7, 10), -24),
    "wrinkles": ComponentEdit(20, (6, 7), -18),
    "boyishness": ComponentEdit(8, (2, 5), 20),
}

CAR_EDITS: Mapping[str, ComponentEdit] = {
    "viewpoint": ComponentEdit(0, (0, 5), 2),
    "cube": ComponentEdit(16, (3, 6), 25),
    "colour": ComponentEdit(22, (9, 11), -8),
    "grass": ComponentEdit(41, (9, 11), -18),
}

# By the beginning of the file's name, because its content does not name the generator.
EDITS_BY_FILE: Mapping[str, Mapping[str, ComponentEdit]] = {"ffhq": FACE_EDITS, "cars": CAR_EDITS}
