"""The networks that are measured: of official sizes with weights drawn at random, or as shipped."""

import copy
from collections.abc import Callable
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from clcae.methods.clcae import CLCAE
from clcae.methods.foundation import FoundationInversion
from clcae.pretrained.doors import load_generator, load_method
from clcae.stylegan2 import Generator

PORTRAITS = 64  # pixels; generator and encoder of this size are those that are shipped
IMAGE_SIZE = 256  # of what CLCAE's encoder reads, section 4.1
SEED = 0


class Networks:
    """Builds a network when it is first asked for, and keeps it until `clear`.

    Args:
        device: Where they lie.
        textbook: The module of the plain synthesis, which stands with the tests; None: not there.
        compiled: What lets a network run compiled, in place; None: nothing is compiled.
        memory_kept: Whether this process computes on a CPU and keeps what it frees, which a plain
            program does not.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        textbook: ModuleType | None,
        compiled: Callable[[Generator], Generator] | None = None,
        memory_kept: bool = False,
    ) -> None:
        self.device = device
        self.memory_kept = memory_kept
        self.textbook = textbook
        self.compiled = compiled
        self._built: dict[tuple[object, ...], Any] = {}

    def clear(self) -> None:
        """Forgets all networks."""
        self._built.clear()

    def generator(self, resolution: int) -> Generator:
        """Config F (512 wide), frozen; at 64 pixels the portraits' generator."""
        return self._once(("generator", resolution), lambda: _generator(resolution))

    def compiled_generator(self, resolution: int) -> Generator:
        """A copy of `generator` that runs compiled."""
        assert self.compiled is not None
        compiled, generator = self.compiled, self.generator(resolution)
        return self._once(("compiled", resolution), lambda: compiled(copy.deepcopy(generator)))

    def plain_synthesis(self, resolution: int, *, fir: str = "filtered") -> nn.Module:
        """The textbook's, with the weights of `generator`, frozen; `fir` names its filter."""
        assert self.textbook is not None
        kind, how = self.textbook.TextbookSynthesis, getattr(self.textbook, fir)

        def build() -> nn.Module:
            synthesis: nn.Module = kind.of(self.generator(resolution), fir=how)
            return synthesis.requires_grad_(False)

        return self._once((fir, resolution), build)

    def method(self, resolution: int) -> FoundationInversion:
        """CLCAE (section 3.2) around `generator`; at 64 pixels the portraits' method."""
        return self._once(("method", resolution), lambda: _method(self, resolution))

    def codes(self, resolution: int, count: int) -> Tensor:
        """Codes [count, L, w_dim] of W+."""
        generator = self.generator(resolution)
        rng = torch.Generator().manual_seed(SEED)
        shape = (count, generator.num_codes, generator.w_dim)
        return torch.randn(shape, generator=rng).to(self.device)

    def images(self, resolution: int, count: int) -> Tensor:
        """Images [count, 3, H, W] for the encoder of `method`, in [-1, 1]."""
        rng = torch.Generator().manual_seed(SEED)
        side = min(resolution, IMAGE_SIZE)
        return torch.rand(count, 3, side, side, generator=rng).mul(2).sub(1).to(self.device)

    def _once(self, key: tuple[object, ...], build: Callable[[], Any]) -> Any:
        if key not in self._built:
            torch.manual_seed(SEED)
            self._built[key] = build().to(self.device).eval()
        return self._built[key]


def _generator(resolution: int) -> Generator:
    if resolution == PORTRAITS:
        return load_generator("portraits")
    generator = Generator(resolution=resolution)
    for name, parameter in generator.synthesis.named_parameters():
        if "noise_strength" in name:  # 0 when it is built, which no trained generator has
            nn.init.constant_(parameter, 0.1)
    return generator.requires_grad_(False)


def _method(networks: Networks, resolution: int) -> FoundationInversion:
    if resolution == PORTRAITS:
        method = load_method("portraits/clcae")
        assert isinstance(method, FoundationInversion)
        return method.requires_grad_(False)
    return CLCAE(  # configs/method/clcae_ffhq.yaml
        generator=networks.generator(resolution),
        image_size=IMAGE_SIZE,
        layer="16x16/1",
        attention="one_token",
    ).requires_grad_(False)
