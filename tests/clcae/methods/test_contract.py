"""What every inversion method promises of edits, in every output and by every rule."""

import copy
import re
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from small_methods import (
    SIDE,
    small_clcae,
    small_e4e,
    small_e4e_z_plus,
    small_in_domain,
    small_official,
    small_optimization,
    small_pivotal_tuning,
    small_psp,
    small_styleres,
)

from clcae.methods.clcae import CLCAE
from clcae.methods.e4e import E4E, PSP
from clcae.methods.e4e_z_plus import E4EZPlus
from clcae.methods.foundation import FoundationInversion
from clcae.methods.in_domain import InDomain
from clcae.methods.interface import OUTPUTS, InversionMethod, parse_output
from clcae.methods.official_clcae import OfficialCLCAE
from clcae.methods.optimization import Optimization
from clcae.methods.pivotal_tuning import PivotalTuning
from clcae.methods.styleres import StyleRes
from clcae.pretrained import loading
from clcae.stylegan2 import LatentSpace
from editing import Direction, edit_inversion, move_of

METHODS = {
    CLCAE: small_clcae,
    OfficialCLCAE: small_official,
    E4E: small_e4e,
    PSP: small_psp,
    Optimization: small_optimization,
    StyleRes: small_styleres,
    E4EZPlus: small_e4e_z_plus,
    InDomain: small_in_domain,
    PivotalTuning: small_pivotal_tuning,
}
# Those whose space is a setting.
FURTHER = [small_in_domain(space="Z+"), small_e4e_z_plus(num_offsets=0)]
IMAGES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
WIDTHS = {space: 20 if space.is_mapped else 12 for space in LatentSpace}
DIRECTIONS = {
    space: Direction(
        name=f"of {space}",
        vector=torch.randn(1, width, generator=torch.Generator().manual_seed(2)),
        space=space,
        unit=0.5,
    )
    for space, width in WIDTHS.items()
}


def cases() -> Iterator[tuple[str, InversionMethod]]:
    for method in [*(build() for build in METHODS.values()), *FURTHER]:
        for output in method.outputs:
            asked = method.with_output(output)
            rules = ("refined", "foundation") if isinstance(asked, FoundationInversion) else ()
            for rule in rules:
                yield f"{type(asked).__name__}, {output}, {rule}", asked.with_rule(rule)
            if not rules:
                yield f"{type(asked).__name__}, {output}", asked


CASES = dict(cases())


def direction_for(method: InversionMethod) -> Direction:
    return DIRECTIONS[parse_output(method.output)[0]]


def test_every_method_is_here() -> None:
    known = {cls for cls in loading._KNOWN if issubclass(cls, InversionMethod)}
    assert known == set(METHODS) and len(CASES) == 2 * 6 + 2 + 8 + 2 + 2 * 2 + 3
    spaces = [method.invert(IMAGES).space for method in CASES.values()]
    assert {space: spaces.count(space) for space in LatentSpace} == {
        LatentSpace.Z: 2 + 1,
        LatentSpace.Z_PLUS: 2 + 2,
        LatentSpace.W: 2 * 2 + 2 + 1,
        LatentSpace.W_PLUS: 2 * 4 + 2 + 2 + 2 + 1 + 2,
    }


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_inversions_and_reconstructions(name: str) -> None:
    method = CASES[name]
    assert method.image_shape == (SIDE, SIDE)
    assert {*method.outputs} <= {*OUTPUTS} and method.output in method.outputs
    assert method.device == IMAGES.device
    inversion = method.invert(IMAGES)
    space = inversion.space
    assert (space, inversion.feature is not None) == parse_output(method.output)
    assert inversion.codes.shape == (3, method.generator.num_codes, WIDTHS[space])
    assert space.has_rows or bool((inversion.codes == inversion.codes[:, :1]).all())
    together = method.reconstructions(IMAGES)
    assert [*together] == [*method.outputs]
    alone = method.reconstruct(IMAGES)
    assert alone.shape == IMAGES.shape
    torch.testing.assert_close(together[method.output], alone, rtol=0, atol=1e-5)
    with pytest.raises(
        ValueError, match=rf"output is 'S', .* has {re.escape(', '.join(method.outputs))}"
    ):
        method.reconstruct(IMAGES, "S")


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_directions_act_where_their_space_fits(name: str) -> None:
    method = CASES[name]
    inversion = method.invert(IMAGES)
    of_z, of_w = (DIRECTIONS[space] for space in (LatentSpace.Z, LatentSpace.W))
    assert edit_inversion(method, inversion, []).space is inversion.space
    moved = edit_inversion(method, inversion, [(of_w, 1.0)])
    assert moved.space.is_mapped and moved.space.has_rows is inversion.space.has_rows
    mapped = method.mapped(inversion)
    torch.testing.assert_close(method.synthesize(mapped), method.synthesize(inversion))
    if inversion.space.is_mapped:
        assert mapped is inversion
        with pytest.raises(ValueError, match="direction of Z was found in Z, the codes are of W"):
            edit_inversion(method, inversion, [(of_z, 1.0)])
    else:
        torch.testing.assert_close(moved.codes, mapped.codes + 0.5 * of_w.vector)
        both = edit_inversion(method, inversion, [(of_w, 1.0), (of_z, 1.0)])
        first = method.mapped(edit_inversion(method, inversion, [(of_z, 1.0)]))
        torch.testing.assert_close(both.codes, first.codes + 0.5 * of_w.vector)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_a_move_of_single_rows_leaves_the_space_of_one_row(name: str) -> None:
    method = CASES[name]
    inversion = method.invert(IMAGES)
    some = replace(DIRECTIONS[inversion.space], layers=(2, 4))
    if name.endswith("foundation") and inversion.space.has_rows:
        with pytest.raises(ValueError, match="one row for all layers"):  # the foundation code
            edit_inversion(method, inversion, [(some, 1.0)])
        return
    there = edit_inversion(method, inversion, [(some, 1.0)])
    assert there.space is inversion.space.with_rows
    back = edit_inversion(method, there, [(some, -1.0)])
    torch.testing.assert_close(back.codes, inversion.codes, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_edits(name: str) -> None:
    method = CASES[name]
    inversion = method.invert(IMAGES)
    direction = DIRECTIONS[inversion.space]
    picture = method.synthesize(inversion)

    still = method.edit(inversion, move_of([(direction, 0.0)]))
    torch.testing.assert_close(method.synthesize(still), picture, rtol=0, atol=1e-5)

    there = method.edit(inversion, move_of([(direction, 2.0)]))
    assert (method.synthesize(there) - picture).abs().max() > 1e-2
    back = method.edit(there, move_of([(direction, -2.0)]))
    torch.testing.assert_close(back.codes, inversion.codes, rtol=0, atol=1e-4)
    torch.testing.assert_close(method.synthesize(back), picture, rtol=0, atol=1e-3)

    half = method.edit(inversion, move_of([(direction, 1.0)]))
    twice = method.edit(half, move_of([(direction, 1.0)]))
    torch.testing.assert_close(twice.codes, there.codes, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_pictures_do_not_depend_on_the_batch(name: str) -> None:
    method = CASES[name]
    move = move_of([(direction_for(method), 1.0)])
    whole = method.synthesize(method.edit(method.invert(IMAGES), move))
    alone = method.synthesize(method.edit(method.invert(IMAGES[1:2]), move))
    torch.testing.assert_close(alone, whole[1:2], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_what_is_derived_follows_from_the_rest(name: str) -> None:
    method = CASES[name]
    there, back = (move_of([(direction_for(method), strength)]) for strength in (2.0, -2.0))
    edited = method.edit(method.invert(IMAGES), there)
    reduced = method.reduced(edited)
    assert not {*reduced.context} & {*method.derived}
    completed = method.completed(reduced)
    torch.testing.assert_close(method.synthesize(edited), method.synthesize(completed))
    first, second = (method.edit(inversion, back) for inversion in (edited, completed))
    torch.testing.assert_close(method.synthesize(first), method.synthesize(second))


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_the_form_for_inference_makes_the_same_pictures(name: str) -> None:
    method = CASES[name]
    fast, keys = method.for_inference(), [*method.state_dict()]
    for edited in (False, True):
        first, second = (each.invert(IMAGES) for each in (method, fast))
        if edited:
            move = move_of([(direction_for(method), 1.0)])
            first, second = method.edit(first, move), fast.edit(second, move)
        torch.testing.assert_close(
            method.synthesize(first), fast.synthesize(second), rtol=0, atol=1e-4
        )
    assert [*method.state_dict()] == keys


SEARCHES = (Optimization, PivotalTuning)


@pytest.mark.parametrize("name", CASES)
@torch.inference_mode()
def test_bfloat16_is_near_and_gives_float32(name: str) -> None:
    """Codes within 1 %, of small random networks; what is searched is searched in float32."""
    method = copy.copy(CASES[name])
    if isinstance(method, SEARCHES):
        method.steps = 1
    fast = method.for_inference("bfloat16")
    assert (method.precision, fast.precision) == ("float32", "bfloat16")
    exact, near = method.invert(IMAGES), fast.invert(IMAGES)
    tensors = [near.codes, *near.context.values()]
    tensors += [near.feature] if near.feature is not None else []
    move = move_of([(direction_for(method), 1.0)])
    tensors += [fast.synthesize(near), fast.synthesize(fast.edit(near, move))]
    if not isinstance(method, SEARCHES):
        tensors += fast.reconstructions(IMAGES).values()
    assert {tensor.dtype for tensor in tensors} == {torch.float32}
    assert (near.space, near.layer) == (exact.space, exact.layer)
    assert float((near.codes - exact.codes).norm() / exact.codes.norm()) < 0.01
    if type(method) is Optimization:
        assert torch.equal(near.codes, exact.codes)
    expected = method.synthesize(exact)
    error = (fast.synthesize(near) - expected).square().mean()
    assert float(10 * torch.log10(expected.var() / error)) > (
        20 if isinstance(method, SEARCHES) else 30
    )
