"""Builds the networks that are measured: of official size with random weights, or as shipped."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from benchmarks.yardstick import synthesis
from benchmarks.yardstick.synthesis import Fir, TextbookSynthesis
from clcae.aligner import Aligner
from clcae.methods.clcae import CLCAE
from clcae.methods.e4e import E4E
from clcae.methods.foundation import FoundationInversion
from clcae.methods.styleres import StyleRes
from clcae.pretrained.loading import load_generator, load_method
from clcae.stylegan2 import Generator
from clcae.stylegan2.compilation import compiled

PORTRAITS = 64  # pixels; generator and encoder of this size are the shipped ones
IMAGE_SIZE = 256  # of CLCAE's encoder, section 4.1
SEED = 0

OnePass = TypeVar("OnePass", E4E, StyleRes)


class NetworkCache:
    """Builds a network when it is first asked for, and keeps it until `clear`.

    Args:
        device: device of the networks.
        compile: whether variants with torch.compile are measured.
        memory_kept: whether this process runs on a CPU and keeps the memory that it frees, which a
            plain program does not.
    """

    def __init__(
        self, *, device: torch.device, compile: bool = False, memory_kept: bool = False
    ) -> None:
        self.device = device
        self.compile = compile
        self.memory_kept = memory_kept
        self._built: dict[tuple[object, ...], Any] = {}

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_built": {}}  # another process builds its own

    def clear(self) -> None:
        """Forgets all networks."""
        self._built.clear()

    def generator(self, resolution: int) -> Generator:
        """Returns a frozen generator of config F; at 64 pixels the portraits' generator."""
        return self._once(("generator", resolution), lambda: _generator(resolution))

    def compiled_generator(self, resolution: int) -> Generator:
        """Returns a copy of `generator` that runs compiled."""
        generator = self.generator(resolution)
        return self._once(("compiled", resolution), lambda: compiled(copy.deepcopy(generator)))

    def textbook(self, resolution: int, *, fir: Fir = synthesis.filtered) -> TextbookSynthesis:
        """Returns the textbook's synthesis with the weights of `generator`, frozen."""
        generator = self.generator(resolution)
        return self._once(
            (fir, resolution),
            lambda: TextbookSynthesis.of(generator, fir=fir).requires_grad_(False),
        )

    def method(self, resolution: int) -> FoundationInversion:
        """Returns CLCAE (section 3.2) around `generator`; at 64 pixels the portraits' method."""
        return self._once(("method", resolution), lambda: _method(self, resolution))

    def e4e(self, resolution: int) -> E4E:
        """Returns an e4e of official size around `generator`, with random weights."""
        return self._once(("e4e", resolution), lambda: _one_pass(self, resolution, E4E))

    def styleres(self, resolution: int) -> StyleRes:
        """Returns a StyleRes of official size around `generator`, with random weights."""
        return self._once(("styleres", resolution), lambda: _one_pass(self, resolution, StyleRes))

    def aligner(self, resolution: int) -> Aligner:
        """Returns the aligner of `generator`'s codes, with the settings of configs/aligner."""
        return self._once(("aligner", resolution), lambda: _aligner(self.generator(resolution)))

    def codes(self, resolution: int, count: int) -> Tensor:
        """Draws W+ codes [count, L, w_dim]."""
        generator = self.generator(resolution)
        rng = torch.Generator().manual_seed(SEED)
        shape = (count, generator.num_codes, generator.w_dim)
        return torch.randn(shape, generator=rng).to(self.device)

    def images(self, resolution: int, count: int) -> Tensor:
        """Draws images [count, 3, H, W] in [-1, 1], as large as the encoder of `method` reads."""
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


def _method(networks: NetworkCache, resolution: int) -> FoundationInversion:
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


def _one_pass(networks: NetworkCache, resolution: int, kind: type[OnePass]) -> OnePass:
    method: OnePass = kind(
        generator=networks.generator(resolution), image_size=min(resolution, IMAGE_SIZE)
    )
    return method.requires_grad_(False)


def _aligner(generator: Generator) -> Aligner:
    if generator.resolution != PORTRAITS:  # configs/aligner/ffhq.yaml
        return Aligner(image_size=IMAGE_SIZE, w_dim=generator.w_dim)
    return Aligner(  # configs/aligner/portraits.yaml
        image_size=PORTRAITS,
        w_dim=generator.w_dim,
        dim=128,
        stem_channels=24,
        stages=[[48, 1], [72, 2], [96, 2]],
        stem_stride=2,
        subtract_average=False,
    )
