"""Observes edits beside the true ones: a portrait drawn again with one attribute moved.

Methods are compared at equal change: of every picture the strength is searched, within the range of
the direction, at which the judges see as much change from the method's own reconstruction as they
see from the portrait to its true edit.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from clcae.data.sources import checked_indices
from clcae.data.transforms import at_input_size, resize
from clcae.evaluation.networks import JudgingNetwork
from clcae.evaluation.observer import EditMoves
from clcae.evaluation.preparation import Size
from clcae.evaluation.tally import RECONSTRUCTION, Observations, Pair
from clcae.images import from_uint8, to_uint8
from clcae.methods.interface import Inversion, InversionMethod
from clcae.metrics.true_edit import area_psnr, equal_change, pasted
from clcae.portraits import ATTRIBUTES, TrueEditImages

PARTS = 8  # of a direction's range, tried for every picture
AREAS = {
    "changed": "where the true edit changes pixels",
    "unchanged": "where the true edit changes no pixel",
    "details": "where details show in the true edit",
}
PICTURES = {
    "edited": "edited, at the strength of equal change",
    "unedited": "the method's reconstruction, unedited",
    "ceiling": "the method's reconstruction of the true edit",
    "true": "the true edit",
    **{
        f"{part}/{PARTS}": f"edited, at {part}/{PARTS} of the direction's range"
        for part in range(1, PARTS + 1)
    },
}
_PLANES = 8  # of a pair: portrait, true edit, what changes, what shows of details


@dataclass(frozen=True)
class Asked:
    """What a metric asks of true edits.

    Args:
        quantity: one of `clcae.metrics.true_edit.QUANTITIES`.
        picture: one of PICTURES.
        area: one of AREAS, for a distance.
        edit: its name; "" is all of them.
    """

    quantity: str
    picture: str
    area: str = ""
    edit: str = ""

    @property
    def stream(self) -> str:
        """Names the stream of its values."""
        return " ".join(["true edits:", self.quantity, self.picture, self.area, self.edit]).rstrip()


class TrueEditGroups:
    """Groups true edits: item i is the i-th pair of every edit, packed for `TrueEditObserver`.

    Args:
        images: the pairs.
        amounts: edit -> the step by which its label is moved.

    Raises:
        ValueError: if there is no such edit or step.
    """

    def __init__(self, images: TrueEditImages, amounts: Mapping[str, float]) -> None:
        self.pairs = images
        self.rows = {name: images.rows(name, amount) for name, amount in amounts.items()}

    def __len__(self) -> int:
        return self.pairs.num_people

    def name(self, index: int) -> str:
        """Names an item in reports: "edits/00042"."""
        return f"edits/{index:05d}"

    def images(self, indices: Sequence[int] | Tensor) -> Tensor:
        """Draws pairs [N, 8 E, S, S], in [-1, 1] and masks of 0 and 1. Raises IndexError."""
        chosen = checked_indices(indices, len(self)).tolist()
        packed = []
        for rows in self.rows.values():
            pairs = self.pairs.pairs([rows[index] for index in chosen])
            masks = torch.stack([pairs.changed, pairs.edited_details.any(dim=1)], dim=1).float()
            packed.append(torch.cat([pairs.images, pairs.edited, masks], dim=1))
        return torch.cat(packed, dim=1)


@dataclass(frozen=True)
class _Case:
    """One edit of a batch: the portraits, their true edits and the areas where they are judged."""

    name: str
    image: Tensor  # [N, 3, S, S]
    truth: Tensor  # [N, 3, S, S]
    areas: Mapping[str, Tensor]  # [N, S, S], bool


class TrueEditObserver:
    """Edits portraits by every output of a method, and compares with the true edits.

    Args:
        method: the method.
        outputs: those of the method that are measured, a space each.
        shape: height and width at which the method is given its inputs.
        edits: name -> the move by the whole range of its direction.
        attributes: name of every edit in the batches -> the judged attribute.
        amounts: the same -> by how much its label is moved; the sign is the way of the edit. What
            is not among `edits` is passed over.
        network: judges attributes and distances.
        asked: what metrics read.
    """

    def __init__(
        self,
        *,
        method: InversionMethod,
        outputs: Sequence[str],
        shape: Size,
        edits: Mapping[str, EditMoves],
        attributes: Mapping[str, str],
        amounts: Mapping[str, float],
        network: JudgingNetwork,
        asked: Collection[Asked],
    ) -> None:
        self.shape, self.edits, self.asked = shape, dict(edits), {*asked}
        self.methods = {output: method.with_output(output) for output in outputs}
        # Takes an inversion of its own, minutes where codes are searched.
        self.with_ceiling = any(one.picture == "ceiling" for one in self.asked)
        self.columns = {name: ATTRIBUTES.index(attributes[name]) for name in amounts}
        self.amounts = dict(amounts)
        self.judge = network.answers["attributes"].function
        self.distance = network.answers["distance"].function

    def __call__(
        self,
        packed: Tensor,  # [N, 8 E, S, S], of `TrueEditGroups`
    ) -> Observations:
        """Returns for each output the streams of values [N, E], and sheets as reconstructions."""
        cases = [
            _Case(
                name,
                image=planes[:, :3],
                truth=planes[:, 3:6],
                areas={
                    "changed": planes[:, 6] > 0,
                    "unchanged": planes[:, 6] == 0,
                    "details": planes[:, 7] > 0,
                },
            )
            for name, planes in zip(self.amounts, packed.split(_PLANES, dim=1), strict=True)
            if name in self.edits
        ]
        return {space: self._of(method, cases) for space, method in self.methods.items()}

    def _of(self, method: InversionMethod, cases: Sequence[_Case]) -> dict[str, Pair]:
        values: dict[str, list[Tensor]] = {}
        sheets = []
        for case in cases:
            pictures, changes = self._edited(method, case)
            blank = torch.ones_like(case.image)
            shown = [pictures.get(name, blank) for name in ("unedited", "edited", "ceiling")]
            sheets.append(torch.cat([case.image, *shown, case.truth], dim=3))
            for whole in {replace(one, edit="") for one in self.asked}:  # computed once
                value = self._value(whole, case, pictures, changes)
                for one in (whole, replace(whole, edit=case.name)):
                    if one in self.asked:
                        values.setdefault(one.stream, []).append(value)
        streams = {name: torch.stack(found, dim=1) for name, found in values.items()}
        sheet = torch.cat(sheets, dim=2)
        return {
            RECONSTRUCTION: (sheet, sheet),
            **{name: (found, found) for name, found in streams.items()},
        }

    def _edited(
        self, method: InversionMethod, case: _Case
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Makes all pictures of a case, and their judged changes; "reached" is among these."""
        name, inversion = case.name, self._inverted(method, case.image)
        edit = self.edits[name].of(inversion.space)
        inversion = method.mapped_for(inversion, edit.space)
        pictures = {"unedited": self._picture(method, inversion), "true": case.truth}
        if self.with_ceiling:
            pictures["ceiling"] = self._picture(method, self._inverted(method, case.truth))
        before, still = self._judged(case.image, name), self._judged(pictures["unedited"], name)
        made: list[Tensor] = []

        def change(strengths: Tensor) -> Tensor:
            made.append(self._moved(method, inversion, edit, strengths))
            return self._judged(made[-1], name) - still

        wanted = self._judged(case.truth, name) - before
        found = equal_change(change, wanted, parts=PARTS)
        for part, picture in enumerate(made[:PARTS], start=1):
            pictures[f"{part}/{PARTS}"] = picture
        pictures["edited"] = self._moved(method, inversion, edit, found.strengths)
        changes = {key: self._judged(each, name) - still for key, each in pictures.items()}
        changes["true"] = wanted
        changes["reached"] = found.reached.to(wanted)
        return pictures, changes

    def _value(
        self,
        asked: Asked,
        case: _Case,
        pictures: Mapping[str, Tensor],
        changes: Mapping[str, Tensor],
    ) -> Tensor:
        """Computes a quantity of each pair, [N], float64."""
        if asked.quantity == "reached":
            return changes["reached"].double()
        if asked.quantity == "change":
            return changes[asked.picture].double()
        picture, area = pictures[asked.picture], case.areas[asked.area]
        if asked.quantity == "psnr":
            return area_psnr(picture, case.truth, area)
        distances = self.distance(pasted(picture, case.truth, area), case.truth)
        empty = ~area.flatten(1).any(dim=1)
        return distances.reshape(-1).double().masked_fill(empty, torch.nan)

    def _inverted(self, method: InversionMethod, images: Tensor) -> Inversion:
        return method.invert(resize(images, self.shape, filter_name="bilinear"))

    def _picture(self, method: InversionMethod, inversion: Inversion) -> Tensor:
        """Synthesizes pictures of 256 levels, as large as the portraits."""
        picture = at_input_size(method.synthesize(inversion), self.shape)
        return from_uint8(to_uint8(picture.clamp(-1, 1)))

    def _moved(
        self, method: InversionMethod, inversion: Inversion, edit: EditMoves, strengths: Tensor
    ) -> Tensor:
        """Edits each picture by its own share of the range."""
        return self._picture(method, method.edit(inversion, edit.by(strengths)))

    def _judged(self, pictures: Tensor, name: str) -> Tensor:
        """Returns the attribute [N] of an edit, counted the way of it."""
        way = 1.0 if self.amounts[name] > 0 else -1.0
        return self.judge(pictures)[:, self.columns[name]] * way
