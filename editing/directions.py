"""Directions of latent space: a vector, the rows it moves, and the length of one step.

Two semantics are in use. InterFaceGAN and SeFa add an increment, strength * unit * vector. GANSpace
as e4e, CLCAE and StyleRes apply it (`editings/ganspace.py` of e4e) sets a coordinate: the strength
is the position on the component to reach, in standard deviations, so that strength 0 is the mean of
the latent space and not the identity.

Codes of Z lie on spheres, and their shift is the vector of a walk (`clcae.stylegan2.walk`); a
coordinate of Z is reached by that walk.
"""

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from clcae.quoting import shown
from clcae.stylegan2 import Generator, LatentSpace, normalize_z

Semantics = Literal["increment", "coordinate"]
MAX_NAME = 80  # characters
AT_REST = 1 - 1e-6  # cosine with a direction from which on a walk along it goes no further


@dataclass(frozen=True, eq=False)
class Direction:
    """A named direction.

    Args:
        name: printable, without "=".
        vector: one row for all layers [1, D], or a row for each [L, D]; of any length but 0. It is
            kept as float32 on the CPU and follows the codes it is added to.
        space: of the codes it was found for; W serves W+ and Z serves Z+.
        layers: the rows it moves, (first, end) with the end exclusive; None moves all of them.
        unit: strength 1 is so many times the vector. For a coordinate: the component's standard
            deviation.
        strengths: lowest and highest sensible strength.
        default: strength if none is given.
        semantics: "increment" adds strength * unit * vector; "coordinate" brings row 0 of the code
            to coordinate `strength`: (strength - coordinate) * unit * vector is added, with
            coordinate = <row 0 - center, vector> / unit, and strength 0 is not the identity.
        center: [1, D], the mean a coordinate is measured from; None for an increment.
        meaning: of strength 1, in words.
        provenance: origin and measurements; anything JSON can hold.

    Raises:
        ValueError: if one of these has another form or is not finite.
    """

    name: str
    vector: Tensor  # [1, D] or [L, D]
    space: LatentSpace = LatentSpace.W
    layers: tuple[int, int] | None = None
    unit: float = 1.0
    strengths: tuple[float, float] = (-5.0, 5.0)  # e4e's factor range
    default: float = 1.0
    semantics: Semantics = "increment"
    center: Tensor | None = None  # [1, D]
    meaning: str = ""
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name = self.name
        if not name or len(name) > MAX_NAME or not name.isprintable() or "=" in name:
            raise ValueError(
                f"a direction is called {name[:MAX_NAME]!r}, expected 1 to {MAX_NAME} printable "
                "characters without '='"
            )
        object.__setattr__(self, "space", LatentSpace(self.space))
        object.__setattr__(self, "vector", self._row_tensor("vector", self.vector))
        if not self.vector.any():
            raise ValueError(f"direction {name}: its vector is zero")
        if self.semantics not in get_args(Semantics):
            raise ValueError(f"direction {name}: semantics {shown(self.semantics)} are unknown")
        if (self.semantics == "coordinate") != (self.center is not None):
            raise ValueError(f"direction {name}: a coordinate has a center, an increment has none")
        if self.center is not None:
            center = self._row_tensor("center", self.center)
            object.__setattr__(self, "center", center)
            if len(center) != 1 or self.vector.shape != center.shape:
                raise ValueError(
                    f"direction {name}: vector {tuple(self.vector.shape)} and center "
                    f"{tuple(center.shape)}, expected one row each, equally wide"
                )
        self._check_numbers()

    def _row_tensor(self, what: str, value: Tensor) -> Tensor:
        if value.ndim != 2 or not value.numel() or not value.is_floating_point():
            raise ValueError(
                f"direction {self.name}: {what} has shape {tuple(value.shape)} of {value.dtype}, "
                "expected [1, D] or [L, D] of floating point"
            )
        if not value.isfinite().all():
            raise ValueError(f"direction {self.name}: {what} holds NaN or infinity")
        return value.detach().float().cpu()

    def _check_numbers(self) -> None:
        low, high = self.strengths
        numbers = (self.unit, low, high, self.default)
        if not all(math.isfinite(n) for n in numbers) or self.unit <= 0 or low > high:
            raise ValueError(
                f"direction {self.name}: unit {self.unit}, strengths {low} to {high}, default "
                f"{self.default}; expected finite numbers, a positive unit, the lowest first"
            )
        if self.layers is not None:
            first, end = self.layers
            if not 0 <= first < end or (len(self.vector) > 1 and end > len(self.vector)):
                raise ValueError(
                    f"direction {self.name}: layers {first} to {end} of a vector with "
                    f"{len(self.vector)} rows, expected 0 <= first < end (exclusive)"
                )

    @property
    def width(self) -> int:
        """Width D of the codes that it fits."""
        return self.vector.shape[1]

    @property
    def same_on_all_rows(self) -> bool:
        """Whether it is the same on every row, so that it applies to any number of layers."""
        return self.layers is None and bool((self.vector == self.vector[:1]).all())

    def rows_of(self, num_rows: int) -> slice:
        """Returns the rows that it moves in codes of `num_rows`.

        Raises:
            ValueError: if the codes lack rows that it moves, or have another number of them.
        """
        if self.same_on_all_rows:
            return slice(0, num_rows)
        if num_rows == 1:
            moved = "a row for each layer" if self.layers is None else f"layers {self._range}"
            raise ValueError(
                f"direction {self.name} moves {moved}, the codes have one row for all layers "
                "(W): give codes of W+, or take a direction of all rows"
            )
        if len(self.vector) > 1 and len(self.vector) != num_rows:
            raise ValueError(
                f"direction {self.name} has {len(self.vector)} rows, the codes have {num_rows}"
            )
        if self.layers is not None and self.layers[1] > num_rows:
            raise ValueError(
                f"direction {self.name} moves layers {self._range}, the codes have {num_rows} rows"
            )
        return slice(*(self.layers or (0, num_rows)))

    @property
    def _range(self) -> str:
        return "all" if self.layers is None else f"{self.layers[0]}-{self.layers[1]}"

    def shift(
        self,
        codes: Tensor,  # [N, L, D], or W codes with one row [N, 1, D]
        strength: float | Tensor,  # a number, or one for each code [N]
    ) -> Tensor:
        """Computes the shift [N, L, D] to add to codes, or to walk by in Z; zero on rows that stay.

        An increment uses only the shape of codes. The strength is in units, or the coordinate to
        reach.

        Raises:
            ValueError: if the codes' width or rows do not fit, a strength is not finite, or a
                coordinate of Z lies beyond the sphere.
        """
        if not bool(torch.as_tensor(strength).isfinite().all()):
            raise ValueError(f"direction {self.name}: strength {strength}, expected a number")
        if isinstance(strength, Tensor):
            strength = strength.to(codes)[:, None, None]
        if codes.ndim != 3 or codes.shape[-1] != self.width:
            raise ValueError(
                f"direction {self.name} is {self.width} wide, codes have shape "
                f"{tuple(codes.shape)}, expected [N, L, {self.width}]: "
                "it was found for another generator"
            )
        rows = self.rows_of(codes.shape[1])
        vector = self.vector.to(codes)
        shift = torch.zeros_like(codes)
        shift[:, rows] = vector[:1] if len(vector) == 1 or self.same_on_all_rows else vector[rows]
        return shift * (self.unit * self._steps(codes, vector, strength))

    def _steps(self, codes: Tensor, vector: Tensor, strength: float | Tensor) -> float | Tensor:
        """Computes the units to move: a number, or one for each code [N, 1, 1]."""
        if self.center is None:
            return strength
        center = self.center.to(codes)
        if not self.space.is_mapped:
            return self._steps_of_walk(codes, center, vector, strength)
        coordinate = ((codes[:, 0] - center) * vector[0]).sum(dim=1) / self.unit
        return strength - coordinate[:, None, None]

    def _steps_of_walk(
        self, codes: Tensor, center: Tensor, vector: Tensor, strength: float | Tensor
    ) -> Tensor:
        """Computes the units by which `walk` brings row 0 to a coordinate, [N, 1, 1].

        The walk adds |shift| / sqrt(D) to artanh of the cosine between a row and the vector.
        """
        reach = float(vector.norm()) * math.sqrt(self.width)  # of a scalar product with the vector
        here = (normalize_z(codes[:, 0]) * vector[0]).sum(dim=1)[:, None, None]
        there = (strength * self.unit + (center * vector).sum()).expand_as(here)
        if not bool((there.abs() < reach).all()):
            least, most = ((way * reach - (center * vector).sum()) / self.unit for way in (-1, 1))
            raise ValueError(
                f"direction {self.name}: coordinate {strength} lies beyond the sphere of Z, "
                f"expected between {float(least):.4g} and {float(most):.4g}"
            )
        here = (here / reach).clamp(-AT_REST, AT_REST)
        distance = torch.atanh(there / reach) - torch.atanh(here)
        return distance * math.sqrt(self.width) / (vector.norm() * self.unit)

    def check(self, generator: Generator) -> None:
        """Raises ValueError if it has another width or other rows than a generator."""
        width = generator.w_dim if self.space.is_mapped else generator.z_dim
        if width != self.width:
            raise ValueError(
                f"direction {self.name} is {self.width} wide, the generator's {self.space} is "
                f"{width}: it was found for another generator"
            )
        self.rows_of(generator.num_codes)

    def spread(self, count: int) -> list[float]:
        """Returns so many strengths, evenly over the sensible range."""
        return [round(s, 3) for s in torch.linspace(*self.strengths, count).tolist()]

    def digest(self) -> str:
        """Computes a sha256 of what the shift of a given strength depends on."""
        walks = "" if self.space.is_mapped else " walk"
        digest = hashlib.sha256(f"{self.layers} {self.unit} {self.semantics}{walks}".encode())
        for tensor in (self.vector, self.center):
            if tensor is not None:
                digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def cosines(directions: Mapping[str, Direction]) -> Tensor:
    """Computes the cosine of every pair: [M, M]; NaN if two differ in shape.

    A direction that is the same on all its rows is compared by one row, whatever layers it moves.
    """
    vectors = []
    for direction in directions.values():
        vector = direction.vector.double()
        if (vector == vector[:1]).all():
            vector = vector[:1]
        vectors.append(vector / vector.norm())
    table = torch.full((len(vectors), len(vectors)), math.nan, dtype=torch.float64)
    for i, first in enumerate(vectors):
        for j, second in enumerate(vectors):
            if first.shape == second.shape:
                table[i, j] = (first * second).sum()
    return table
