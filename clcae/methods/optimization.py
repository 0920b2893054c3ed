"""Inversion by optimising the code, with or without a feature of the generator, in any space.

| output | papers |
| --- | --- |
| Z, Z+, F/Z+ | F/Z+ (arXiv 2306.00241; arXiv 2307.08995, WACV 2024), section 3; `invert_zp.py` |
| W | StyleGAN2's projector (Karras et al. 2020, appendix D), as PTI (arXiv 2106.05744) runs it |
| W+ | Image2StyleGAN (Abdal et al. 2019); with the penalty in P_N+, II2S (Zhu et al. 2020) |
| F/W+ | BDInvert (Kang et al. 2021) |

In-domain inversion (Zhu et al. 2020, section 3.2; `invert.py` of genforce/idinvert) starts W+ at an
encoder's codes and keeps it where the encoder finds it again: start "encoder", weight "domain".

F replaces the generator's own feature at one layer, and the RGB of lower resolutions is dropped:
the layers up to there are not computed, and the first rows of the code (`inert_rows`) change no
picture, get no gradient and stay as they started. Codes of Z and Z+ go through the mapping network
in every step, which normalises them; that is the whole of the sphere's constraint.

Deviations: codes of Z are put back on the sphere of radius sqrt(z_dim) at the end, which changes no
picture. Every picture begins at the same random code. Free noise maps begin at the generator's own,
not at a random draw, and are kept with the inversion (PTI throws them away). The perceptual
distance is antialiased where pictures are scaled down for it. Truncation is of codes that come out
of the mapping network, so not of W and W+.

It is deterministic, and every picture is searched by itself: others in the batch change it by
rounding alone, whose effect grows with the steps. A code found in W+ reconstructs well and edits
badly, since nothing keeps it where the generator was trained (Tov et al. 2021).
"""

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Self, cast, get_args

import torch
from torch import Tensor, nn
from tqdm import tqdm

from clcae.data.threads import check_wanted
from clcae.encoders.base_code import BaseCodeEncoder
from clcae.frozen.judges import PerceptualNetwork
from clcae.losses.inversion import checked_weights
from clcae.methods.interface import Inversion, InversionMethod, parse_output
from clcae.methods.inversion_file import holds_numbers, join
from clcae.methods.optimizer.descent import LARGEST_RATE, Schedule
from clcae.methods.optimizer.search import (
    NOISE,
    TERMS,
    NoiseMaps,
    Search,
    SearchSettings,
    noise_maps,
)
from clcae.methods.optimizer.starts import Start
from clcae.nn.folding import folded
from clcae.precision import Precision
from clcae.serialization import register
from clcae.stylegan2 import Generator, LatentSpace, Layer
from clcae.stylegan2.normal_space import NUM_SAMPLES, NormalSpace
from clcae.stylegan2.synthesis import Noise, Prefix

LAYER = "16x16/0"  # x03 of F/Z+ and BDInvert
PIXELS_AT_ONCE = 1 << 16  # with gradients: 16 pictures at 64, one at 256 and above


@register("projection")
class Optimization(InversionMethod):
    """Searches codes, and a feature and noise maps where they are asked for, with Adam.

    Args:
        generator: frozen or not; its parameters get no gradient.
        steps: of Adam; no step leaves the start.
        lr: highest learning rate of the codes.
        output: the one that `invert` searches.
        outputs: those that are offered; None offers all.
        layer: whose feature F replaces; None is 16x16/0, where the generator has it, else outputs
            with F are not offered.
        feature_lr: highest learning rate of F; None is `lr`.
        schedule: of the rates; "ramp" rises over 5 % of the steps and falls over the last quarter.
        start: "mean" is the average of W; Z has none, so that codes of Z and Z+ start at random.
            "random" is one random code for all pictures. "encoder" is what `encoder` gives.
        encoder: a method whose codes are a start, an anchor (weight "code"), or compared with the
            codes of the search by inverting its pictures again (weight "domain").
        base_code: computes where F starts and its anchor; None takes the generator's own feature of
            the encoder's codes, or of the mean code without one.
        perceptual: network of the term "perceptual".
        perceptual_size: side to which pictures are scaled for it; None leaves them.
        weights: of `TERMS`; those not named have none. "pixel" is the squared error, "feature" and
            "code" those to their anchors, of Z between points on the sphere; "domain" is in-domain
            inversion's, of Z of the angles; "normality" acts on codes of W and W+, "noise" on free
            noise maps. None is {"pixel": 1}.
        truncation: psi of codes of Z and Z+ after the mapping network, within the search too.
        truncated_rows: number of first rows that are truncated; None: all.
        noise: "free" searches the noise maps too, kept at mean 0 and variance 1.
        code_noise: noise on codes of W and W+, in parts of their deviation; it fades out over
            three quarters of the steps (Karras et al. 2020, appendix D).
        patience: stops a picture once so many steps bring less than `least_gain`; None: never.
        least_gain: a part of the lowest loss.
        normal_samples: from which P_N+ is measured.
        at_once: pictures searched together, which bounds the memory; None goes by the resolution.

    Raises:
        ValueError: if a number is out of range, an output or a layer unknown, parts do not fit the
            generator, or a term or start lacks its network.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        steps: int = 500,
        lr: float = 0.1,
        output: str = "W+",
        outputs: Sequence[str] | None = None,
        layer: str | None = None,
        feature_lr: float | None = None,
        schedule: Schedule = "ramp",
        start: Start = "mean",
        encoder: InversionMethod | None = None,
        base_code: BaseCodeEncoder | None = None,
        perceptual: nn.Module | None = None,
        perceptual_size: int | None = None,
        weights: Mapping[str, float] | None = None,
        truncation: float = 1.0,
        truncated_rows: int | None = None,
        noise: NoiseMaps = "fixed",
        code_noise: float = 0.0,
        patience: int | None = None,
        least_gain: float = 0.01,
        normal_samples: int = NUM_SAMPLES,
        at_once: int | None = None,
    ) -> None:
        super().__init__()
        for name, built, kind in (
            ("generator", generator, Generator),
            ("encoder", encoder, InversionMethod),
            ("base_code", base_code, BaseCodeEncoder),
        ):
            if built is not None and not isinstance(built, kind):
                raise ValueError(f"{name} is a {type(built).__name__}, expected {kind.__name__}")
        rates = [lr] if feature_lr is None else [lr, feature_lr]
        if steps < 0 or not all(0 < rate <= LARGEST_RATE for rate in rates):
            raise ValueError(
                f"{steps} steps with a learning rate of {' and '.join(map(str, rates))}: expected "
                f"0 up, above 0 to {LARGEST_RATE:g}"
            )
        for name, given, known in (
            ("schedule", schedule, get_args(Schedule)),
            ("start", start, get_args(Start)),
            ("noise", noise, get_args(NoiseMaps)),
        ):
            if given not in known:
                raise ValueError(f"{name} is {given!r}, expected one of {', '.join(known)}")
        for name, number, least in (
            ("patience", patience, 1),
            ("at_once", at_once, 1),
            ("perceptual_size", perceptual_size, 1),
            ("truncation", truncation, 0),
            ("truncated_rows", truncated_rows, 0),
            ("code_noise", code_noise, 0),
            ("least_gain", least_gain, 0),
        ):
            if number is not None and not least <= number < math.inf:
                raise ValueError(f"{name} is {number}, expected {least} or more")
        self.generator = generator
        self.layer = _layer_of(generator, layer)
        spaces = [space.value for space in LatentSpace]
        offered = [*spaces, *(f"F/{space}" for space in spaces if self.layer is not None)]
        self.outputs = tuple(offered if outputs is None else outputs)
        if unknown := [name for name in self.outputs if name not in offered]:
            raise ValueError(f"outputs has {unknown[0]!r}, expected some of {', '.join(offered)}")
        if output not in self.outputs:
            raise ValueError(
                f"output is {output!r}, {type(self).__name__} has {', '.join(self.outputs)}"
            )
        self.output = output
        self.weights = checked_weights({"pixel": 1.0} if weights is None else weights)
        if not {*self.weights} <= {*TERMS}:
            given_terms = ", ".join(map(str, self.weights))
            raise ValueError(f"weights are of {given_terms}: expected some of {', '.join(TERMS)}")
        if not (self.weights.get("pixel") or self.weights.get("perceptual")):
            raise ValueError(f"weights are {self.weights}: expected one of pixel or perceptual")
        for term, part, name in (
            ("perceptual", perceptual, "perceptual"),
            ("code", encoder, "encoder"),
            ("domain", encoder, "encoder"),
        ):
            if self.weights.get(term) and part is None:
                raise ValueError(f"weights.{term} is {self.weights[term]}, which needs {name}")
        if start == "encoder" and encoder is None:
            raise ValueError("start is 'encoder', which needs encoder")
        self.encoder, self.base_code, self.perceptual = encoder, base_code, perceptual
        self._check_parts()
        self.steps, self.lr, self.feature_lr = steps, lr, lr if feature_lr is None else feature_lr
        self.schedule, self.start, self.noise = schedule, start, noise
        self.perceptual_size = perceptual_size
        self.truncation, self.truncated_rows = truncation, truncated_rows
        self.code_noise, self.patience, self.least_gain = code_noise, patience, least_gain
        self.normal_samples = normal_samples
        self.searched_at_once = at_once or max(PIXELS_AT_ONCE // generator.resolution**2, 1)
        self._normal_spaces: dict[torch.device, NormalSpace] = {}

    def _check_parts(self) -> None:
        generator = self.generator
        if self.base_code is not None:
            expected = None if self.layer is None else generator.feature_shape(self.layer)
            if self.base_code.out_shape != expected:
                raise ValueError(
                    f"base_code gives features {self.base_code.out_shape}, the layer "
                    f"{self.layer} has {expected}"
                )
        if self.encoder is not None:
            own = (generator.num_codes, generator.z_dim, generator.w_dim)
            other = self.encoder.generator
            given = (other.num_codes, other.z_dim, other.w_dim)
            if given != own:
                raise ValueError(
                    f"encoder is of a generator with rows, z and w of {given}, expected {own}"
                )

    def _check_encoder(self) -> None:
        """Raises ValueError if the encoder's codes say nothing to this generator.

        That of another one maps the same z farther away than codes of W are from their mean; that
        of a generator which was trained on from this one, or tuned, does not.
        """
        if self.encoder is None:
            return
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(64, self.generator.z_dim, generator=rng).to(self.generator.w_average)
        own, other = self.generator.map(z), self.encoder.generator.map(z)
        if (other - own).square().mean() > (own - own.mean(dim=0)).square().mean():
            raise ValueError(
                "encoder is of another generator, whose mapping network has nothing in common with "
                "this one's: give an encoder that was trained with this generator"
            )

    @property
    def image_shape(self) -> tuple[int, int]:
        """The size of the generator's pictures."""
        return self.generator.resolution, self.generator.resolution

    @property
    def at_once(self) -> int:
        """Number of images that are searched together."""
        return self.searched_at_once

    @property
    def inert_rows(self) -> int:
        """Number of first rows of a code that change no picture: those up to the layer of F."""
        return self.search_settings().inert_rows

    def search_settings(self) -> SearchSettings:
        """Returns the settings of the search of `output`."""
        space, replaces = parse_output(self.output)
        exact = self.precision == "float32"
        return SearchSettings(
            generator=self.generator if exact else self.generator.for_inference("float32"),
            space=space,
            layer=self.layer if replaces else None,
            steps=self.steps,
            lr=self.lr,
            feature_lr=self.feature_lr,
            schedule=self.schedule,
            start=self.start,
            encoder=self.encoder,
            base_code=self.base_code,
            perceptual=cast("PerceptualNetwork | None", self.perceptual),
            perceptual_size=self.perceptual_size,
            weights=self.weights,
            psi=None if space.is_mapped or self.truncation == 1.0 else self.psi,
            noise=self.noise,
            code_noise=self.code_noise,
            patience=self.patience,
            least_gain=self.least_gain,
            normal_space=self.normal_space,
        )

    def for_inference(self, precision: Precision = "float32") -> Self:
        """Returns a copy whose encoders and perceptual network are folded.

        The precision is that of its pictures; it searches in float32.
        """
        other = copy.copy(self)
        other._modules = dict(self._modules)
        for name in ("base_code", "perceptual"):
            if (part := getattr(self, name)) is not None:
                other.add_module(name, folded(part))
        if self.encoder is not None:
            other.add_module("encoder", self.encoder.for_inference())
        if precision != self.precision:
            other.add_module("generator", self.generator.for_inference(precision))
        return other

    def with_generator(self, generator: Generator) -> Self:
        other = super().with_generator(generator)
        other._normal_spaces = {}  # another generator's
        return other

    def form(self) -> Inversion:
        """Returns an inversion of the form that this method's have, without a step."""
        other = copy.copy(self)
        other.steps = 0
        return super(Optimization, other).form()

    def invert(self, images: Tensor) -> Inversion:
        """Searches codes, chunk by chunk.

        Raises:
            ValueError: if images have another size than the generator's pictures, the encoder is
                of another generator, or a search diverges.
        """
        side = self.generator.resolution
        if images.shape[1:] != (3, side, side):
            raise ValueError(
                f"images have shape {tuple(images.shape)}, expected [N, 3, {side}, {side}]: this "
                f"generator makes {side}x{side}"
            )
        chunks = images.split(self.at_once)
        with (
            torch.inference_mode(False),  # gradients are wanted, whoever asks
            torch.no_grad(),
            tqdm(
                total=len(chunks) * self.steps,
                desc=self.output,
                unit="step",
                leave=False,
                disable=None,
            ) as bar,
        ):
            self._check_encoder()

            def on_step() -> None:
                check_wanted()
                bar.update()

            settings = self.search_settings()
            found = join([Search(settings, chunk.clone()).run(on_step) for chunk in chunks])
        if not holds_numbers(found):
            raise ValueError(
                f"the search in {self.output} diverged to NaN or infinity at a learning rate of "
                f"{self.lr}: give a smaller one, and pictures in [-1, 1]"
            )
        return found

    def mapped(self, inversion: Inversion) -> Inversion:
        """Maps codes of Z and Z+ as the search did, truncated where it truncated.

        What is stored with an inversion ("truncation" of its context, psi of each row) goes before
        the method's own values. Truncated rows among others turn codes of Z into W+.
        """
        plain = super().mapped(inversion)
        if inversion.space.is_mapped:
            return plain
        psi = inversion.context.get("truncation")
        if psi is None:
            if self.truncation == 1.0:
                return plain
            psi = self.psi
        codes = torch.lerp(self.generator.w_average, plain.codes, psi[..., None])
        equal = bool((psi == psi[..., :1]).all())
        return replace(plain, codes=codes, space=plain.space if equal else plain.space.with_rows)

    @property
    def psi(self) -> Tensor:
        """Truncation of each row, [L]."""
        psi = self.generator.w_average.new_ones(self.generator.num_codes)
        psi[: self.truncated_rows] = self.truncation
        return psi

    def synthesize(self, inversion: Inversion) -> Tensor:
        """Generates pictures, with the inversion's own feature and noise maps if it has them."""
        codes = self.mapped(inversion).codes
        maps = {key: value for key, value in inversion.context.items() if key.startswith(NOISE)}
        noise: Noise = noise_maps(self.generator, maps) if maps else "const"
        if inversion.feature is None:
            return self.generator.synthesize(codes, noise=noise)
        assert inversion.layer is not None
        prefix = Prefix(inversion.layer, inversion.feature, None)
        return self.generator.finish(prefix, codes, noise=noise)

    def normal_space(self) -> NormalSpace:
        """Returns P_N+ of the generator, measured once."""
        if self.device not in self._normal_spaces:
            self._normal_spaces[self.device] = NormalSpace.of(
                self.generator, num_samples=self.normal_samples
            )
        return self._normal_spaces[self.device]


def _layer_of(generator: Generator, name: str | None) -> Layer | None:
    """Finds the layer of F. Raises ValueError if it is unknown or the last one."""
    if name is None:
        layer = Layer.parse(LAYER)
        return layer if layer.index < generator.num_layers - 1 else None
    layer = generator.layer(name)
    if layer.index == generator.num_layers - 1:
        raise ValueError(f"layer is {layer}, the generator's last: no code would act behind F")
    return layer
