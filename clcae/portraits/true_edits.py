"""True edits: a portrait, and the same one drawn again with one attribute moved.

Person, scene, details and the other attributes stay, so that an edit can be compared with what it
should have made. An attribute takes along what hangs on it: yaw turns earrings and headband, age
greys the hair and fades the skin, a smile lifts the cheeks. Pictures have 256 levels, as files
have, and the mask of an edit is every pixel where they differ.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clcae.images import from_uint8, to_uint8
from clcae.portraits.dataset import PortraitImages, Split, single_threaded
from clcae.portraits.parameters import ATTRIBUTES, DETAILS, PortraitParameters, decode
from clcae.portraits.renderer import render

NUM_PEOPLE = 128  # of each edit
_SIGNED = ("smile", "yaw", "pitch", "light")  # labels in [-1, 1]; the others in [0, 1]


@dataclass(frozen=True)
class TrueEdit:
    """An attribute, and the amounts by which its label is moved, of one sign and growing."""

    attribute: str
    steps: tuple[float, ...]


TRUE_EDITS: Mapping[str, TrueEdit] = {
    "smile+": TrueEdit("smile", (0.25, 0.5, 0.75, 1.0)),
    "smile-": TrueEdit("smile", (-0.25, -0.5, -0.75, -1.0)),
    "yaw+": TrueEdit("yaw", (0.25, 0.5, 0.75, 1.0)),
    "yaw-": TrueEdit("yaw", (-0.25, -0.5, -0.75, -1.0)),
    "age+": TrueEdit("age", (0.15, 0.3, 0.45, 0.6)),
    "age-": TrueEdit("age", (-0.15, -0.3, -0.45, -0.6)),
    "beard+": TrueEdit("beard", (0.25, 0.5, 0.75, 1.0)),
    "glasses+": TrueEdit("glasses", (1.0,)),  # worn or not
    "glasses-": TrueEdit("glasses", (-1.0,)),
}


@dataclass(frozen=True)
class TrueEditPairs:
    """A batch of portraits with their true edits.

    Args:
        images: the portraits.
        edited: the same with one attribute moved.
        changed: where the two differ.
        details: where each detail shows in `images`: where it differs from the same picture without
            that detail; in the order of DETAILS.
        edited_details: the same of `edited`.
        people: numbers of the people in the split.
        attributes: labels of `images`, in the order of ATTRIBUTES.
        amounts: by how much the label of the edit's attribute is moved.
    """

    images: Tensor  # [N, 3, S, S], in [-1, 1]
    edited: Tensor  # [N, 3, S, S], in [-1, 1]
    changed: Tensor  # [N, S, S], bool
    details: Tensor  # [N, 6, S, S], bool
    edited_details: Tensor  # [N, 6, S, S], bool
    people: Tensor  # [N], int64
    attributes: Tensor  # [N, 8]
    amounts: Tensor  # [N]


class TrueEditImages:
    """Pairs of portraits and true edits by index; an image source of the unedited portraits.

    Edits follow each other, of an edit its steps, of a step its people: the first of the split
    whose label has room for the edit's largest step.

    Args:
        split: of the people; "test" are held out.
        edits: names out of TRUE_EDITS, or name -> steps; None takes all with their steps.
        num_people: people of each edit.
        size: side of the pictures, in pixels.
        detail_rate: probability of each detail, in [0, 1]; None: that of the split.

    Raises:
        ValueError: if an edit or a step is unknown, a split has too few people with room for it, or
            as `PortraitImages`.
    """

    def __init__(
        self,
        *,
        split: Split = "test",
        edits: Sequence[str] | Mapping[str, Sequence[float]] | None = None,
        num_people: int = NUM_PEOPLE,
        size: int = 64,
        detail_rate: float | None = None,
    ) -> None:
        self.portraits = PortraitImages(split=split, size=size, detail_rate=detail_rate)
        self.num_people, self.size = num_people, size
        self.edits = _chosen(TRUE_EDITS if edits is None else edits)
        latents = self.portraits.latents(range(len(self.portraits)))
        labels = decode(latents, detail_rate=self.portraits.detail_rate).attributes
        self._people = {name: self._with_room(name, labels) for name in self.edits}
        self._places = [(name, step) for name, edit in self.edits.items() for step in edit.steps]

    def __len__(self) -> int:
        return len(self._places) * self.num_people

    def name(self, index: int) -> str:
        """Names a pair in reports: "test/00042 smile+0.5"."""
        name, step = self._places[index // self.num_people]
        person = int(self._people[name][index % self.num_people])
        return f"{self.portraits.name(person)} {self.edits[name].attribute}{step:+g}"

    def rows(self, edit: str, step: float) -> range:
        """Returns the indices of all pairs of one step. Raises ValueError if there are none."""
        if (edit, step) not in self._places:
            known = ", ".join(f"{name} {amount:+g}" for name, amount in self._places)
            raise ValueError(f"no edit {edit!r} of {step:+g}; there are {known}")
        start = self._places.index((edit, step)) * self.num_people
        return range(start, start + self.num_people)

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Draws unedited portraits [N, 3, size, size] in [-1, 1]. Raises IndexError."""
        with single_threaded():
            return from_uint8(_pixels(self._parameters(self._checked(indices))[0], self.size))

    def pairs(self, indices: Sequence[int] | Tensor) -> TrueEditPairs:
        """Draws pairs with everything that is known of them. Raises IndexError."""
        rows = self._checked(indices)
        before, after, amounts = self._parameters(rows)
        with single_threaded():
            pixels, edited = (_pixels(drawn, self.size) for drawn in (before, after))
            details, edited_details = _detail_masks(before, pixels), _detail_masks(after, edited)
        return TrueEditPairs(
            images=from_uint8(pixels),
            edited=from_uint8(edited),
            changed=(pixels != edited).any(dim=1),
            details=details,
            edited_details=edited_details,
            people=self._numbers(rows),
            attributes=before.attributes,
            amounts=amounts,
        )

    def _parameters(self, rows: Tensor) -> tuple[PortraitParameters, PortraitParameters, Tensor]:
        """Decodes portraits before and after their edits, and the amounts [N] between."""
        latents = self.portraits.latents(self._numbers(rows))
        before = decode(latents, detail_rate=self.portraits.detail_rate)
        places = [self._places[place] for place in (rows // self.num_people).tolist()]
        amounts = torch.tensor([step for _, step in places])
        attributes = before.attributes.clone()
        for row, (name, step) in enumerate(places):
            attribute = self.edits[name].attribute
            low, high = _range(attribute)
            column = ATTRIBUTES.index(attribute)
            attributes[row, column] = (attributes[row, column] + step).clamp(low, high)
        return before, replace(before, attributes=attributes), amounts

    def _numbers(self, rows: Tensor) -> Tensor:
        """Returns the numbers [N] of the people of pairs."""
        numbers = [
            self._people[self._places[row // self.num_people][0]][row % self.num_people]
            for row in rows.tolist()
        ]
        return torch.stack(numbers) if numbers else rows

    def _with_room(
        self,
        name: str,
        labels: Tensor,  # [M, 8], of the whole split
    ) -> Tensor:
        """Finds the first people [num_people] whose label has room for the largest step.

        Fewer or smaller steps than those of TRUE_EDITS are of the same people.
        """
        edit = self.edits[name]
        low, high = _range(edit.attribute)
        largest = max(edit.steps[-1], TRUE_EDITS[name].steps[-1], key=abs)
        moved = labels[:, ATTRIBUTES.index(edit.attribute)] + largest
        people = ((moved >= low) & (moved <= high)).nonzero().flatten()
        if not 1 <= self.num_people <= len(people):
            raise ValueError(
                f"num_people is {self.num_people}: of {len(labels)} people of the split "
                f"{self.portraits.split}, {len(people)} have room for {name} {largest:+g}"
            )
        return people[: self.num_people]

    def _checked(self, indices: Sequence[int] | Tensor) -> Tensor:
        rows = torch.as_tensor(indices, dtype=torch.int64)
        outside = rows[(rows < 0) | (rows >= len(self))]
        if outside.numel():
            raise IndexError(f"index {int(outside[0])} is out of range for {len(self)} pairs")
        return rows


def _chosen(edits: Sequence[str] | Mapping[str, Sequence[float] | TrueEdit]) -> dict[str, TrueEdit]:
    """Checks names and steps of edits."""
    if unknown := [name for name in edits if name not in TRUE_EDITS]:
        raise ValueError(f"edits has {unknown[0]!r}: there are {', '.join(TRUE_EDITS)}")
    if not edits:
        raise ValueError(f"edits is empty: expected some of {', '.join(TRUE_EDITS)}")
    chosen = {}
    for name in edits:
        edit = TRUE_EDITS[name]
        given = edits[name] if isinstance(edits, Mapping) else edit
        if not isinstance(given, TrueEdit):
            steps = tuple(float(step) for step in given)
            amounts = [step if edit.steps[0] > 0 else -step for step in steps]
            if not amounts or sorted({*amounts}) != amounts or amounts[0] <= 0:
                raise ValueError(
                    f"steps of {name} are {list(given)}: expected growing amounts of its sign, as "
                    f"{list(edit.steps)}"
                )
            edit = replace(edit, steps=steps)
        chosen[name] = edit
    return chosen


def _range(attribute: str) -> tuple[float, float]:
    return (-1.0 if attribute in _SIGNED else 0.0), 1.0


def _pixels(parameters: PortraitParameters, size: int) -> Tensor:
    """Draws portraits, uint8 [N, 3, size, size]."""
    return to_uint8(render(parameters, size=size))


def _detail_masks(
    parameters: PortraitParameters,
    pixels: Tensor,  # [N, 3, S, S], uint8, drawn from them
) -> Tensor:
    """Draws portraits without each detail that they have: masks [N, 6, S, S] of what it hid."""
    size = pixels.shape[-1]
    masks = torch.zeros(len(parameters), len(DETAILS), size, size, dtype=torch.bool)
    for column in range(len(DETAILS)):
        having = parameters.details[:, column].nonzero().flatten()
        if having.numel():
            details = parameters.details[having].clone()
            details[:, column] = 0.0
            without = PortraitParameters(
                values={name: value[having] for name, value in parameters.values.items()},
                attributes=parameters.attributes[having],
                details=details,
            )
            masks[having, column] = (pixels[having] != _pixels(without, size)).any(dim=1)
    return masks
