"""True edits observed with methods whose pictures are known, against pixels counted by hand."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from clcae.evaluation.networks import Answer, JudgingNetwork
from clcae.evaluation.observer import EditMoves
from clcae.evaluation.protocol import build_measures, read_protocol
from clcae.evaluation.tally import RECONSTRUCTION, Tally
from clcae.evaluation.true_edits import Asked, TrueEditGroups, TrueEditObserver
from clcae.methods.interface import Inversion, InversionMethod
from clcae.portraits import ATTRIBUTES, TrueEditImages
from clcae.stylegan2 import LatentSpace

SIDE = 64
AMOUNTS = {"smile+": 0.5, "glasses-": -1.0}
PICTURES = ("unedited", "edited", "ceiling", "true", "4/8")


class Painting(nn.Module):
    """A generator whose codes are pixels."""

    num_codes = 1

    def synthesize(self, codes: Tensor) -> Tensor:
        return codes.unflatten(2, (3, SIDE, SIDE))[:, 0]


class Copying(InversionMethod):
    """Inverts a picture to its own pixels, darkened from nothing to `shade` along each row."""

    outputs = ("W+",)
    output = "W+"
    image_shape = (SIDE, SIDE)

    def __init__(self, shade: float = 0.0) -> None:
        super().__init__()
        self.generator = Painting()  # type: ignore[assignment]
        self.shade = shade * torch.linspace(0, 1, SIDE)  # so that levels round one after another

    def invert(self, images: Tensor) -> Inversion:
        return Inversion((images - self.shade).flatten(1)[:, None], LatentSpace.W_PLUS)


def brightness(images: Tensor) -> Tensor:
    """Judges every attribute by the mean pixel of the upper half."""
    return images[:, :, : SIDE // 2].mean(dim=(1, 2, 3))[:, None].expand(-1, len(ATTRIBUTES))


NETWORK = JudgingNetwork(
    nn.Identity(),
    {
        "attributes": Answer(brightness),
        "distance": Answer(lambda x, y: (x - y).abs().mean(dim=(1, 2, 3))),
    },
)


def moves(size: float) -> Mapping[str, EditMoves]:
    """Moves that brighten the upper half, and darken it."""
    step = torch.zeros(3, SIDE, SIDE)
    step[:, : SIDE // 2] = size
    change = step.flatten()
    return {
        "smile+": EditMoves(lambda codes: codes + change, lambda codes: codes - change),
        "glasses-": EditMoves(lambda codes: codes - change, lambda codes: codes + change),
    }


def source() -> TrueEditGroups:
    return TrueEditGroups(TrueEditImages(edits=[*AMOUNTS], num_people=3), AMOUNTS)


def observed(size: float, shade: float = 0.0, only: tuple[str, ...] = (*AMOUNTS,)) -> dict:
    asked = {
        Asked(quantity, picture, area, edit)
        for picture in PICTURES
        for edit in ("", *only)
        for quantity, area in [
            ("change", ""),
            *((q, a) for q in ("psnr", "perceptual") for a in ("changed", "unchanged", "details")),
        ]
    } | {Asked("reached", "edited", "", edit) for edit in ("", *only)}
    observer = TrueEditObserver(
        method=Copying(shade),
        outputs=["W+"],
        shape=(SIDE, SIDE),
        edits={name: moves(size)[name] for name in only},
        attributes={"smile+": "smile", "glasses-": "glasses"},
        amounts=AMOUNTS,
        network=NETWORK,
        asked=asked,
    )
    streams = observer(source().images(range(3)))["W+"]
    return {name: values for name, (values, _) in streams.items()}


def value(streams: dict, *asked: str) -> Tensor:
    found: Tensor = streams[Asked(*asked).stream]
    return found


def test_groups_hold_the_pairs_of_every_edit() -> None:
    groups = source()
    packed = groups.images([2, 0])
    assert packed.shape == (2, 16, SIDE, SIDE) and len(groups) == 3
    pairs = groups.pairs.pairs([groups.pairs.rows("glasses-", -1.0)[2]])
    assert torch.equal(packed[0, 8:11], pairs.images[0])
    assert torch.equal(packed[0, 11:14], pairs.edited[0])
    assert torch.equal(packed[0, 14] > 0, pairs.changed[0])
    assert torch.equal(packed[0, 15] > 0, pairs.edited_details[0].any(dim=0))
    assert groups.name(2) == "edits/00002"
    with pytest.raises(ValueError, match=r"no edit 'smile\+' of \+0.4"):
        TrueEditGroups(groups.pairs, {"smile+": 0.4})


def test_a_method_that_copies_has_a_perfect_ceiling_and_keeps_what_does_not_change() -> None:
    streams = observed(0.2)
    assert (value(streams, "psnr", "ceiling", "changed") == 100.0).all()
    assert (value(streams, "perceptual", "ceiling", "changed") == 0.0).all()
    assert (value(streams, "psnr", "unedited", "unchanged") == 100.0).all()
    torch.testing.assert_close(
        value(streams, "change", "ceiling"), value(streams, "change", "true")
    )
    assert (value(streams, "change", "unedited") == 0).all()


def test_values_pixel_by_pixel_at_the_strength_that_brings_the_true_change() -> None:
    size, shade = 0.2, 0.05
    streams, packed = observed(size, shade), source().images(range(3)).numpy()
    for column, (name, way) in enumerate([("smile+", 1), ("glasses-", -1)]):
        planes = packed[:, 8 * column : 8 * column + 8]
        for picture in range(3):
            image, truth = planes[picture, :3], planes[picture, 3:6]
            area, details = planes[picture, 6] > 0, planes[picture, 7] > 0
            wanted = way * (truth[:, :32].mean() - image[:, :32].mean())

            def shown(strength: float, image: np.ndarray = image, way: int = way) -> np.ndarray:
                made = image - (shade * torch.linspace(0, 1, SIDE)).numpy()  # float32, as there
                made[:, :32] += np.float32(way * strength) * np.float32(size)
                levels = np.round((made.clip(-1, 1) + np.float32(1)) * np.float32(127.5))
                return levels.astype(float) / 127.5 - 1

            def change(strength: float, way: int = way, shown=shown) -> float:  # type: ignore[no-untyped-def]
                return way * float(shown(strength)[:, :32].mean() - shown(0.0)[:, :32].mean())

            enough = [s for s in np.linspace(0, 1, 2001) if change(s) >= wanted]
            assert bool(value(streams, "reached", "edited")[picture, column]) == bool(enough)
            strength = enough[0] if enough else max(np.arange(9) / 8, key=change)
            assert float(value(streams, "change", "edited")[picture, column]) == pytest.approx(
                change(strength), abs=2e-3
            )
            for which, made in (("unedited", shown(0.0)), ("4/8", shown(0.5))):
                for where, mask in (("changed", area), ("unchanged", ~area), ("details", details)):
                    square = ((made - truth) ** 2)[:, mask].mean() / 4 if mask.any() else math.nan
                    found = float(value(streams, "psnr", which, where)[picture, column])
                    assert found == pytest.approx(-10 * math.log10(square), abs=1e-5)
                    distance = (np.abs(made - truth) * mask).mean()
                    found = float(value(streams, "perceptual", which, where)[picture, column])
                    assert found == pytest.approx(distance, abs=1e-5)
            square = ((shown(strength) - truth) ** 2)[:, area].mean() / 4
            found = float(value(streams, "psnr", "edited", "changed")[picture, column])
            assert found == pytest.approx(-10 * math.log10(square), abs=0.1)
        each = value(streams, "psnr", "4/8", "changed", name)
        assert torch.equal(each[:, 0], value(streams, "psnr", "4/8", "changed")[:, column])


def test_what_cannot_change_is_counted_as_not_reached_and_never_dropped() -> None:
    streams = observed(0.0)
    wanted = value(streams, "change", "true")
    assert torch.equal(value(streams, "reached", "edited") > 0, wanted <= 0)
    assert value(streams, "psnr", "edited", "changed").isfinite().all()


def test_an_edit_that_cannot_be_made_leaves_the_others() -> None:
    streams = observed(0.2, only=("glasses-",))
    whole = value(observed(0.2), "psnr", "edited", "changed", "glasses-")
    torch.testing.assert_close(value(streams, "psnr", "edited", "changed", "glasses-"), whole)
    assert value(streams, "psnr", "edited", "changed").shape == (3, 1)
    assert streams[RECONSTRUCTION].shape == (3, 3, SIDE, 5 * SIDE)


def test_the_true_edit_is_inverted_only_where_its_inversion_is_measured() -> None:
    given = []

    class Counting(Copying):
        def invert(self, images: Tensor) -> Inversion:
            given.append(len(images))
            return super().invert(images)

    for picture, calls in (("edited", [3]), ("ceiling", [3, 3])):
        given.clear()
        observer = TrueEditObserver(
            method=Counting(),
            outputs=["W+"],
            shape=(SIDE, SIDE),
            edits={"smile+": moves(0.2)["smile+"]},
            attributes={"smile+": "smile", "glasses-": "glasses"},
            amounts=AMOUNTS,
            network=NETWORK,
            asked={Asked("psnr", picture, "changed")},
        )
        sheet, _ = observer(source().images(range(3)))["W+"][RECONSTRUCTION]
        assert given == calls and sheet.shape == (3, 3, SIDE, 5 * SIDE)


def test_edits_may_go_farther_than_their_range() -> None:
    measures = {"reached": {"measure": "true_reached", "network": "portraits"}}
    far = {"smile+": {**SMILE, "reach": 3}, "glasses-": None}
    protocol = read_protocol({"measures": measures, "edits": far})
    assert {name: edit.reach for name, edit in protocol.edits.items()} == {"smile+": 3}
    built, _ = build_measures(protocol, lambda _: NETWORK)
    assert built["reached"].words["edit"] == "smile +0.5 (3 times the range)"
    for entry in ({**SMILE, "reach": 0}, {"direction": "smile", "strength": 1.0, "reach": 2}):
        with pytest.raises(ValueError, match=r"reach is \d.*: expected above 0, of a true edit"):
            read_protocol({"measures": measures, "edits": {"e": entry}})


def test_measures_of_a_protocol_are_means_and_one_of_each_edit() -> None:
    protocol = read_protocol(
        {
            "measures": {
                "PSNR": {"measure": "true_psnr", "area": "changed", "network": "portraits"},
                "reached": {"measure": "true_reached", "network": "portraits"},
            },
            "edits": {
                "smile+": {"direction": "smile", "attribute": "smile", "amount": 0.5},
                "glasses-": {"direction": "glasses", "attribute": "glasses", "amount": -1.0},
            },
            "directions": "portraits",
        }
    )
    names = ["PSNR", "PSNR smile+", "PSNR glasses-"]
    assert [spec.name for spec in protocol.measures][:3] == names
    measures, missing = build_measures(protocol, lambda _: NETWORK)
    assert not missing
    streams = observed(0.2)
    tally = Tally(measures)
    pairs = {name: (each, each) for name, each in streams.items()}
    tally.update({"W+": pairs}, ["a", "b", "c"])
    row = tally.rows(method="m", num_images=3)["W+"]
    values = value(streams, "psnr", "edited", "changed")
    assert row.metrics["PSNR"] == pytest.approx(float(values.mean()))
    assert row.metrics["PSNR glasses-"] == pytest.approx(float(values[:, 1].mean()))
    assert row.protocol["PSNR glasses-"]["edit"] == "glasses -1"
    assert row.protocol["PSNR"]["area"] == "where the true edit changes pixels"
    assert row.protocol["reached"]["range"] == "[0, 1]"

    less, missing = build_measures(
        protocol, lambda _: NETWORK, without={"smile+": "no such direction"}
    )
    assert [*less] == ["PSNR glasses-", "reached glasses-"]
    assert missing["PSNR"] == missing["PSNR smile+"] == "no such direction"


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"measure": "true_psnr"}, r"M.area is '': expected one of changed, unchanged, details"),
        ({"measure": "true_change", "picture": "9/8"}, r"M.picture is '9/8': expected one of"),
        ({"measure": "true_change", "area": "hat"}, r"M.area is 'hat': true_change takes none"),
        (
            {"measure": "true_reached", "picture": "true"},
            r"M.picture is 'true': true_reached takes",
        ),
        ({"measure": "true_change", "size": 256}, r"M.size is 256: true_change takes none"),
        ({"measure": "mse", "area": "changed"}, r"M.area is 'changed': mse takes none"),
    ],
)
def test_unknown_areas_and_pictures_are_refused(entry: dict[str, str], message: str) -> None:
    edits = {"smile+": {"direction": "smile", "attribute": "smile", "amount": 0.5}}
    with pytest.raises(ValueError, match=message):
        read_protocol({"measures": {"M": {"network": "portraits", **entry}}, "edits": edits})


def test_an_edit_has_a_strength_or_an_amount() -> None:
    for entry in ({}, {"strength": 1.0, "amount": 0.5}, {"amount": 0.0}):
        edits = {"e": {"direction": "smile", **entry}}
        with pytest.raises(ValueError, match="expected a strength, or the amount of a true edit"):
            read_protocol({"measures": {"MSE": {"measure": "mse"}}, "edits": edits})


SMILE = {"direction": "smile", "attribute": "smile", "amount": 0.5}


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([SMILE], r"protocol.edits is \[.*\]: expected edits by name"),
        ({"e": {"amount": 0.5}}, "protocol.edits.e has no direction"),
        (
            {"e": {**SMILE, "amount": "x"}},
            "protocol.edits.e.amount is 'x': expected a finite number",
        ),
        ({"e": {**SMILE, "amount": True}}, "e.amount is True: expected a finite number"),
        ({"e": {**SMILE, "amount": math.nan}}, "e.amount is nan: expected a finite number"),
        ({"e": {**SMILE, "threshold": None}}, "e.threshold is None: expected a finite number"),
        ({"e": {**SMILE, "attribute": 3}}, "e.attribute is 3: expected a text"),
        ({"e": {"direction": "smile", "strength": 1.0}}, "protocol.edits has no true edit"),
        (None, "protocol.edits has no true edit"),
    ],
)
def test_edits_of_no_use_are_refused(edits: object, message: str) -> None:
    measures = {"reached": {"measure": "true_reached", "network": "portraits"}}
    with pytest.raises(ValueError, match=message):
        read_protocol({"measures": measures, "edits": edits})


def test_names_of_measures_of_each_edit_are_no_others() -> None:
    measure = {"measure": "true_reached", "network": "portraits"}
    with pytest.raises(ValueError, match=r"measures: two are called 'M smile\+'"):
        read_protocol({"measures": {"M": measure, "M smile+": measure}, "edits": {"smile+": SMILE}})
