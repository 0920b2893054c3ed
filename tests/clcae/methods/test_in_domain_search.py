"""The search of in-domain inversion: its regulariser, gradients through the encoder, Z+."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_methods import small_e4e_z_plus, small_in_domain, tiny_generator
from torch import Tensor

from clcae.methods.interface import InversionMethod
from clcae.methods.optimization import Optimization
from clcae.methods.optimizer.search import Search

ENCODERS: dict[str, InversionMethod] = {
    "W+": small_in_domain(),
    "Z+": small_in_domain(space="Z+"),
    "Z": small_e4e_z_plus(num_offsets=0),
}


def searching(space: str, **settings: Any) -> Optimization:
    encoder = ENCODERS[space]
    given: dict[str, Any] = {
        "weights": {"pixel": 1.0, "domain": 2.0},
        "start": "encoder",
        "schedule": "constant",
        "steps": 20,
        "lr": 0.02,
    }
    return Optimization(
        generator=encoder.generator, encoder=encoder, output=space, **{**given, **settings}
    )


def pictures(space: str) -> Tensor:
    generator = ENCODERS[space].generator
    z = torch.randn(2, 12, generator=torch.Generator().manual_seed(3))
    return generator.synthesize(generator.map(z)).clamp(-1, 1)


def regulariser(space: str, codes: Tensor) -> Tensor:
    """The paper's formula, in words; of Z the angles."""
    encoder = ENCODERS[space]
    generator = encoder.generator
    w = codes if space == "W+" else generator.map(codes)
    again = encoder.invert(generator.synthesize(w.expand(-1, 8, -1))).codes[:, : codes.shape[1]]
    if space == "W+":
        return (codes - again).square().mean(dim=(1, 2))
    cosine = (F.normalize(codes, dim=2) * F.normalize(again, dim=2)).sum(dim=2)
    return (1 - cosine).mean(dim=1)


@pytest.mark.parametrize("space", ENCODERS)
def test_the_regulariser_and_its_gradient_through_the_encoder(space: str) -> None:
    search = Search(searching(space).search_settings(), pictures(space))
    codes = search.variables["codes"].detach() + 0.1
    numbers = torch.arange(2)
    values = []
    for function in (
        lambda x: search.terms({"codes": x}, numbers, 0)["domain"],
        lambda x: regulariser(space, x),
    ):
        leaf = codes.clone().requires_grad_()
        value = function(leaf)
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
        values.append((value.detach(), gradient))
    for ours, expected in zip(*values, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-3, atol=1e-6)
    assert values[0][1].abs().max() > 0


def test_it_stays_nearer_to_what_the_encoder_finds_again() -> None:
    images, found = pictures("W+"), {}
    for weight in (0.0, 50.0):
        method = searching("W+", weights={"pixel": 1.0, "domain": weight})
        found[weight] = float(regulariser("W+", method.invert(images).codes).mean())
    assert found[50.0] < found[0.0]


@pytest.mark.parametrize("space", ["W+", "Z+"])
def test_a_picture_does_not_depend_on_its_batch_and_comes_nearer(space: str) -> None:
    method, images = searching(space, weights={"pixel": 1.0, "domain": 0.05}), pictures(space)
    together = method.invert(images).codes
    alone = method.invert(images[1:]).codes
    torch.testing.assert_close(alone, together[1:], rtol=0, atol=1e-3)
    before = (ENCODERS[space].reconstruct(images) - images).square().mean()
    assert (method.reconstruct(images) - images).square().mean() < before


def test_it_needs_an_encoder_of_the_space() -> None:
    with pytest.raises(ValueError, match=r"weights\.domain is 2\.0, which needs encoder"):
        Optimization(generator=tiny_generator(), weights={"pixel": 1.0, "domain": 2.0})
    of_w = ENCODERS["W+"]
    method = Optimization(
        generator=of_w.generator, encoder=of_w, output="Z+", weights={"pixel": 1.0, "domain": 2.0}
    )
    with pytest.raises(ValueError, match=r"encoder gives codes of W\+, expected those of Z\+"):
        method.invert(pictures("W+"))
