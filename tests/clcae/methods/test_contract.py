"""What every inversion method promises of edits, in every output and by every rule."""

from collections.abc import Iterator

import pytest
import torch
from small_methods import (
    SIDE,
    small_clcae,
    small_e4e,
    small_official,
    small_projection,
    small_psp,
)

from clcae.methods.clcae import CLCAE
from clcae.methods.e4e import E4E, PSP
from clcae.methods.foundation import FoundationInversion
from clcae.methods.interface import InversionMethod
from clcae.methods.official_clcae import OfficialCLCAE
from clcae.methods.projection import Projection
from clcae.pretrained import doors
from editing import Direction, move_of

METHODS = {
    CLCAE: small_clcae,
    OfficialCLCAE: small_official,
    E4E: small_e4e,
    PSP: small_psp,
    Projection: small_projection,
}
IMAGES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
DIRECTION = Direction(
    name="any", vector=torch.randn(1, 20, generator=torch.Generator().manual_seed(2)), unit=0.5
)


def cases() -> Iterator[tuple[str, InversionMethod]]:
    for build in METHODS.values():
        method = build()
        for output in method.outputs:
            asked = method.with_output(output)
            rules = ("refined", "foundation") if isinstance(asked, FoundationInversion) else ()
            for rule in rules:
                yield f"{type(asked).__name__}, {output}, {rule}", asked.with_rule(rule)
            if not rules:
                yield f"{type(asked).__name__}, {output}", asked


CASES = dict(cases())


def test_every_method_is_here() -> None:
    known = {cls for cls in doors._KNOWN if issubclass(cls, InversionMethod)}
    assert known == set(METHODS) and len(CASES) == 2 * 6 + 2 + 2


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_edits(name: str) -> None:
    method = CASES[name]
    inversion = method.invert(IMAGES)
    picture = method.synthesize(inversion)
    assert inversion.codes.shape == (3, method.generator.num_codes, method.generator.w_dim)

    still = method.edit(inversion, move_of([(DIRECTION, 0.0)]))
    torch.testing.assert_close(method.synthesize(still), picture, rtol=0, atol=1e-5)

    there = method.edit(inversion, move_of([(DIRECTION, 2.0)]))
    assert (method.synthesize(there) - picture).abs().max() > 1e-2
    back = method.edit(there, move_of([(DIRECTION, -2.0)]))
    torch.testing.assert_close(back.codes, inversion.codes, rtol=0, atol=1e-4)
    torch.testing.assert_close(method.synthesize(back), picture, rtol=0, atol=1e-3)

    half = method.edit(inversion, move_of([(DIRECTION, 1.0)]))
    twice = method.edit(half, move_of([(DIRECTION, 1.0)]))
    torch.testing.assert_close(twice.codes, there.codes, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_pictures_do_not_depend_on_the_batch(name: str) -> None:
    method = CASES[name]
    move = move_of([(DIRECTION, 1.0)])
    whole = method.synthesize(method.edit(method.invert(IMAGES), move))
    alone = method.synthesize(method.edit(method.invert(IMAGES[1:2]), move))
    torch.testing.assert_close(alone, whole[1:2], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", CASES)
@torch.no_grad()
def test_what_is_derived_follows_from_the_rest(name: str) -> None:
    method = CASES[name]
    there, back = (move_of([(DIRECTION, strength)]) for strength in (2.0, -2.0))
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
            move = move_of([(DIRECTION, 1.0)])
            first, second = method.edit(first, move), fast.edit(second, move)
        torch.testing.assert_close(
            method.synthesize(first), fast.synthesize(second), rtol=0, atol=1e-4
        )
    assert [*method.state_dict()] == keys
