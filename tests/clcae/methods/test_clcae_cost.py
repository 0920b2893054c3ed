"""What the three pictures of a training step cost, in sizes: on "meta" nothing is computed."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clcae.methods.foundation import Encoding
from clcae.methods.official_clcae import OfficialCLCAE
from clcae.stylegan2 import Generator

BATCH = 2


class GivenFeature(OfficialCLCAE):
    """Synthesis alone: f is there already."""

    def feature_of(self, encoding: Encoding, own: Tensor) -> Tensor:
        return encoding.level


@pytest.fixture(scope="module")
def method() -> GivenFeature:
    generator = Generator(resolution=256).to("meta")  # config F
    with torch.device("meta"):
        return GivenFeature(generator=generator, image_size=256)


def inputs() -> Encoding:
    sizes = {"w": (BATCH, 512), "w_plus": (BATCH, 14, 512), "level": (BATCH, 512, 16, 16)}
    return Encoding(
        **{
            name: torch.zeros(size, device="meta", requires_grad=True)
            for name, size in sizes.items()
        }
    )


def cost(
    method: GivenFeature, *, official: bool = False, checkpointed: bool = False
) -> tuple[int, int, int]:
    """FLOPs of convolutions and products forward, with the backward pass; bytes kept in between."""
    generator, encoding = method.generator.requires_grad_(official), inputs()
    kept = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = storage  # held, so that no other one gets its number
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            if official:
                at = (method.layer, lambda own: encoding.level)
                pictures = [
                    generator.synthesize(encoding.w),
                    generator.synthesize(encoding.w_plus),
                    generator.synthesize(encoding.w_plus, at=at),
                ]
            else:
                named, _, _ = method.pictures(encoding, checkpoint_activations=checkpointed)
                pictures = list(named.values())
        forward = counter.get_total_flops()
        torch.stack(pictures).sum().backward()
        both = counter.get_total_flops()
    for parameter in generator.parameters():
        parameter.grad = None
        kept.pop(parameter.untyped_storage()._cdata, None)
    for layer in generator.synthesis.layers:
        for _, _, prepared in layer._frozen._found.values():  # of weights alone, and made once
            kept.pop(prepared.weight.untyped_storage()._cdata, None)
    return forward, both, sum(storage.nbytes() for storage in kept.values())


def test_a_step_costs_less_than_2_3_of_the_official_synthesis(method: GivenFeature) -> None:
    """The official code keeps gradients of the generator's weights, and shares nothing.

    In the forward pass only what lies up to the layer of f is equal, 2 % at 256 pixels; what a step
    saves is the gradients of weights that are not trained.
    """
    forward, both, kept = cost(method)
    official_forward, official_both, official_kept = cost(method, official=True)
    print(f"forward {3 * forward / official_forward:.3f} of 3, step {3 * both / official_both:.3f}")
    print(f"kept {kept / 2**20:.0f} MiB, official {official_kept / 2**20:.0f} MiB")
    assert forward <= 0.995 * official_forward
    assert both <= 2.3 * official_both / 3
    assert kept <= official_kept


def test_checkpointed_activations_keep_next_to_nothing(method: GivenFeature) -> None:
    forward, both, kept = cost(method)
    again, both_again, kept_again = cost(method, checkpointed=True)
    print(f"kept {kept_again / 2**20:.0f} of {kept / 2**20:.0f} MiB, {both_again / both:.2f} FLOPs")
    assert again == forward
    assert kept_again <= 0.05 * kept
    assert both_again <= 1.6 * both


@torch.no_grad()
def test_an_inversion_and_its_picture_cost_one_synthesis() -> None:
    generator = Generator(resolution=256).to("meta")
    with torch.device("meta"):
        method = OfficialCLCAE(generator=generator, image_size=256).eval()
        images = torch.zeros(1, 3, 256, 256)
        encoding, own = (
            method.encode(images),
            torch.zeros(1, *generator.feature_shape(method.layer)),
        )

    def flops(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter:
            work()
        return int(counter.get_total_flops())

    parts = [
        flops(lambda: method.encode(images)),
        flops(lambda: method.feature_of(encoding, own)),
        flops(lambda: generator.synthesize(encoding.w_plus)),
    ]
    assert flops(lambda: method.synthesize(method.invert(images))) == sum(parts)
