"""A method of any space is observed, edits included."""

from dataclasses import replace

import pytest
import torch
from small_methods import SIDE, small_clcae, small_optimization
from torch import Tensor

from clcae.data.generated import GeneratedCodes
from clcae.evaluation.observer import EditMoves, GeneratedObserver, MethodObserver
from clcae.evaluation.tally import (
    AGAIN,
    RECONSTRUCTION,
    beside_drift_of,
    codes_of,
    response_of,
)
from clcae.methods.interface import Inversion, InversionMethod
from clcae.metrics.editing import EditingResponse
from clcae.stylegan2 import LatentSpace, normalize_z, walk

IMAGES = torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_moves_of_w_act_on_codes_of_every_space() -> None:
    method = small_optimization()
    edit = EditMoves(lambda codes: codes + 0.3, lambda codes: codes - 0.3, LatentSpace.W)
    observer = MethodObserver(
        method=method,
        outputs=method.outputs,
        shape=(SIDE, SIDE),
        edits={"more": edit},
        streams={"more", codes_of("more")},
    )
    observed = observer(IMAGES)
    assert list(observed) == ["Z", "Z+", "W", "W+", "F/Z", "F/Z+", "F/W", "F/W+"]
    for space, streams in observed.items():
        inversion = method.mapped(method.with_output(space).invert(IMAGES))
        torch.testing.assert_close(streams[codes_of("more")][1], inversion.codes)
        edited = method.synthesize(method.edit(inversion, edit.move))
        torch.testing.assert_close(streams["more"][0], edited)


@torch.no_grad()
def test_codes_of_z_take_the_move_of_the_sphere_and_codes_of_w_that_of_w() -> None:
    method = small_optimization()
    shift = torch.linspace(-1, 1, method.generator.z_dim)
    walking = EditMoves(lambda z: walk(z, shift), lambda z: walk(z, -shift), LatentSpace.Z)
    added = EditMoves(lambda w: w + 0.3, lambda w: w - 0.3, LatentSpace.W, on_sphere=walking)
    streams = {"more", codes_of("more")}
    observed = {
        edit: MethodObserver(
            method=method,
            outputs=["Z+", "W+", "F/Z+"],
            shape=(SIDE, SIDE),
            edits={"more": moves},
            streams=streams,
        )
        for edit, moves in {"of its space": added, "of W": replace(added, on_sphere=None)}.items()
    }
    both, of_w = (observer(IMAGES) for observer in observed.values())
    assert torch.equal(both["W+"]["more"][0], of_w["W+"]["more"][0])
    for space in ("Z+", "F/Z+"):
        inversion = method.with_output(space).invert(IMAGES)
        edited = method.synthesize(method.edit(inversion, walking.move))
        torch.testing.assert_close(both[space]["more"][0], edited)
        assert (both[space]["more"][0] - of_w[space]["more"][0]).abs().max() > 1e-3
        undone, codes = both[space][codes_of("more")]
        torch.testing.assert_close(codes, inversion.codes)  # in Z, not mapped
        rows = undone.square().mean(dim=-1)
        torch.testing.assert_close(rows, torch.ones_like(rows))


def test_moves_of_z_cannot_act_on_codes_of_w() -> None:
    method = small_optimization()
    edit = EditMoves(lambda codes: codes, lambda codes: codes, LatentSpace.Z)
    observer = MethodObserver(
        method=method,
        outputs=["W"],
        shape=(SIDE, SIDE),
        edits={"more": edit},
        streams={"more"},
    )
    with pytest.raises(ValueError, match="a move of Z cannot act on codes of W"):
        observer(IMAGES)


@torch.no_grad()
def test_drift_is_that_of_a_second_inversion() -> None:
    method = small_clcae()
    edit = EditMoves(lambda codes: codes + 0.3, lambda codes: codes - 0.3)
    observer = MethodObserver(
        method=method,
        outputs=["W", "F"],
        shape=(SIDE, SIDE),
        edits={"more": edit},
        streams={AGAIN, codes_of("more"), beside_drift_of("more")},
    )
    for space, streams in observer(IMAGES).items():
        own = method.with_output(space)
        first = own.invert(IMAGES)
        second = own.invert(own.synthesize(first))
        torch.testing.assert_close(streams[AGAIN], (second.codes, first.codes))
        undone, before = streams[codes_of("more")]
        expected = (torch.cat([undone, second.codes], 1), torch.cat([before, first.codes], 1))
        torch.testing.assert_close(streams[beside_drift_of("more")], expected)


class Painting(torch.nn.Module):
    """A generator that paints codes into pixels."""

    num_codes, z_dim = 2, 16

    def map(self, z: Tensor) -> Tensor:
        return 0.2 * (normalize_z(z) / 3).tanh()

    def synthesize(self, codes: Tensor) -> Tensor:
        return codes[:, None].expand(-1, 3, -1, -1)


class Reading(InversionMethod):
    """An encoder that reads painted codes, or part of them, or none."""

    outputs = ("W+",)
    output = "W+"
    image_shape = (2, 16)

    def __init__(self, seen: float, bias: float) -> None:
        super().__init__()
        self.generator = Painting()  # type: ignore[assignment]
        self.seen, self.bias = seen, bias

    def invert(self, images: Tensor) -> Inversion:
        return Inversion(self.seen * images[:, 0] + self.bias, LatentSpace.W_PLUS)


@pytest.mark.parametrize(("seen", "bias"), [(1.0, 0.0), (0.4, 0.1), (0.0, 0.3)])
def test_response_of_an_encoder_that_sees_so_much(seen: float, bias: float) -> None:
    direction = torch.linspace(-0.3, 0.2, 16)
    edit = EditMoves(lambda codes: codes + direction, lambda codes: codes - direction)
    observer = GeneratedObserver(
        method=Reading(seen, bias),
        outputs=["W+"],
        shape=(2, 16),
        edits={"more": edit},
        streams={RECONSTRUCTION, response_of("more")},
    )
    source = GeneratedCodes(dimension=16, num_codes=5)
    observed = observer(source.images(range(5)))["W+"]
    assert observed[RECONSTRUCTION][1].shape == (5, 3, 2, 16)
    metric = EditingResponse(edit="more")
    metric.update(*observed[response_of("more")])
    assert metric.compute() == pytest.approx(seen, abs=1e-6) and metric.num_counted == 5


class ReadingZ(Reading):
    """An encoder that finds z itself, of which the generator paints a function."""

    outputs = ("Z+",)
    output = "Z+"

    def invert(self, images: Tensor) -> Inversion:
        z = 3 * (images[:, 0] / 0.2).atanh()
        return Inversion(self.seen * z, LatentSpace.Z_PLUS)


@torch.no_grad()
def test_response_to_a_walk_of_z() -> None:
    shift = torch.linspace(-0.3, 0.2, 16)
    edit = EditMoves(
        lambda z: walk(z, shift.expand_as(z)), lambda z: walk(z, -shift.expand_as(z)), LatentSpace.Z
    )
    observer = GeneratedObserver(
        method=ReadingZ(0.7, 0.0),
        outputs=["Z+"],
        shape=(2, 16),
        edits={"more": edit},
        streams={response_of("more")},
    )
    metric = EditingResponse(edit="more")
    observed = observer(GeneratedCodes(dimension=16, num_codes=5).images(range(5)))["Z+"]
    metric.update(*observed[response_of("more")])
    assert metric.compute() == pytest.approx(0.7, abs=1e-4)


def test_moves_of_z_get_no_response_in_w() -> None:
    edit = EditMoves(lambda codes: codes, lambda codes: codes, LatentSpace.Z)
    observer = GeneratedObserver(
        method=Reading(1.0, 0.0),
        outputs=["W+"],
        shape=(2, 16),
        edits={"more": edit},
        streams={response_of("more")},
    )
    with pytest.raises(ValueError, match=r"a move of Z cannot act on codes of W\+"):
        observer(GeneratedCodes(dimension=16).images([0]))


def test_generated_codes_follow_from_seed_and_index() -> None:
    source = GeneratedCodes(dimension=4, num_codes=30, seed=3)
    whole = source.images(range(30))
    assert whole.shape == (30, 1, 1, 4) and len(source) == 30
    assert torch.equal(source.images([7, 2]), whole[[7, 2]])
    assert not torch.equal(GeneratedCodes(dimension=4, seed=4).images([7]), whole[[7]])
    assert source.name(7) == "generated/00007"
    with pytest.raises(IndexError, match="index 30"):
        source.images([30])
    with pytest.raises(ValueError, match="num_codes is 0"):
        GeneratedCodes(dimension=4, num_codes=0)
