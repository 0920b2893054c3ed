"""The search of one batch of pictures: its variables, their anchors, and the weighted loss.

`clcae.methods.optimization` says which settings are of which paper.
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn

from clcae.encoders.base_code import BaseCodeEncoder
from clcae.frozen.judges import PerceptualNetwork
from clcae.losses.optimization import (
    domain_errors,
    noise_errors,
    normality_errors,
    perceptual_features,
    squared_errors,
)
from clcae.methods.interface import Inversion, InversionMethod
from clcae.methods.optimizer.descent import Schedule, Variables, descend
from clcae.methods.optimizer.starts import Start, codes_of, encoded, own_feature, own_start
from clcae.stylegan2 import Generator, LatentSpace, Layer, normalize_z
from clcae.stylegan2.normal_space import NormalSpace
from clcae.stylegan2.synthesis import Noise, Prefix

NoiseMaps = Literal["fixed", "free"]

TERMS = ("pixel", "perceptual", "feature", "code", "domain", "normality", "noise")
NOISE_SEED = 2  # of the noise on codes
NOISE = "noise."  # prefix of the names of noise maps, before the number of their layer


@dataclass(frozen=True, kw_only=True)
class SearchSettings:
    """What a search needs to know; the arguments of `Optimization`, for one output.

    Args:
        space: of the codes.
        layer: whose feature is searched; None searches codes alone.
        psi: truncation of each row after the mapping network, [L]; None: none.
        normal_space: returns P_N+; called where "normality" has a weight.
    """

    generator: Generator
    space: LatentSpace
    layer: Layer | None
    steps: int
    lr: float
    feature_lr: float
    schedule: Schedule
    start: Start
    encoder: InversionMethod | None
    base_code: BaseCodeEncoder | None
    perceptual: PerceptualNetwork | None
    perceptual_size: int | None
    weights: Mapping[str, float]
    psi: Tensor | None
    noise: NoiseMaps
    code_noise: float
    patience: int | None
    least_gain: float
    normal_space: Callable[[], NormalSpace]

    @property
    def inert_rows(self) -> int:
        """Number of first rows of a code that change no picture: those up to the layer of F."""
        return 0 if self.layer is None else self.layer.index + 1


class Search:
    """Searches codes, feature and noise maps of a batch.

    Args:
        settings: of the search.
        images: [N, 3, R, R], in [-1, 1].
    """

    def __init__(self, settings: SearchSettings, images: Tensor) -> None:
        self.settings, self.images = settings, images
        self.generator, self.weights = settings.generator, settings.weights
        self.live = slice(settings.inert_rows if settings.space.has_rows else 0, None)
        self.anchors: Variables = {}
        count, space, encoder = len(images), settings.space, settings.encoder
        of_feature = settings.layer is not None and settings.base_code is None
        given: Inversion | None = None
        if encoder is not None:
            if settings.start == "encoder" or self.weights.get("code") or of_feature:
                given = encoded(encoder, images)
            if given is not None and self.weights.get("code"):
                codes = codes_of(encoder, given, space)
                self.anchors["code"] = self._on_sphere(codes[:, self.live])
        if settings.start == "encoder":
            assert encoder is not None and given is not None
            self.start = codes_of(encoder, given, space)
        else:
            self.start = own_start(self.generator, space, settings.start, count=count)
        self.variables: Variables = {"codes": self.start[:, self.live].contiguous()}
        if settings.layer is not None:
            if settings.base_code is not None:
                base = settings.base_code(images)
            else:
                base = own_feature(self.generator, settings.layer, given, encoder, count=count)
            base = base.contiguous(memory_format=torch.channels_last)
            self.anchors["feature"] = self.variables["feature"] = base
        if settings.noise == "free":
            own = noise_maps(self.generator, {})
            for index in range(settings.inert_rows, len(own)):
                self.variables[f"{NOISE}{index}"] = own[index].repeat(count, 1, 1, 1)
        if self.weights.get("perceptual"):
            self.target_features = self._features(images)

    def run(self, on_step: Callable[[], object] | None = None) -> Inversion:
        """Searches, and returns what was found; `on_step` is called after every step."""
        settings = self.settings
        rates = dict.fromkeys(self.variables, settings.lr)
        if settings.layer is not None:
            rates["feature"] = settings.feature_lr
        found = descend(
            self.variables,
            self.losses,
            steps=settings.steps,
            rates=rates,
            schedule=settings.schedule,
            patience=settings.patience,
            least_gain=settings.least_gain,
            project=_normalize_noise if settings.noise == "free" else None,
            on_step=on_step,
        )
        codes = self.start.clone()
        codes[:, self.live] = found.pop("codes")
        codes = self._on_sphere(codes)
        feature, context = found.pop("feature", None), found
        if settings.psi is not None:
            context["truncation"] = settings.psi.expand(len(codes), -1)
        return Inversion(
            codes=codes.expand(-1, self.generator.num_codes, -1),
            space=settings.space,
            feature=feature,
            layer=settings.layer,
            context=context,
        )

    def losses(self, variables: Variables, pictures: Tensor, step: int) -> Tensor:
        """Computes the weighted sum of the terms of each picture, [n]."""
        terms = self.terms(variables, pictures, step)
        return torch.stack([self.weights[name] * term for name, term in terms.items()]).sum(dim=0)

    def terms(self, variables: Variables, pictures: Tensor, step: int) -> dict[str, Tensor]:
        """Computes the terms that have a weight and apply to this search, each [n].

        Args:
            variables: of some of the pictures.
            pictures: their numbers within the batch, [n].
            step: of the search.
        """
        weights, codes = self.weights, variables["codes"]
        made = self.pictures(variables, step)
        terms: dict[str, Tensor] = {}
        if weights.get("pixel"):
            terms["pixel"] = squared_errors(made, self.images[pictures])
        if weights.get("perceptual"):
            targets = [feature[pictures] for feature in self.target_features]
            terms["perceptual"] = self._network.distance(self._features(made), targets)
        if weights.get("feature") and "feature" in variables:
            anchor = self.anchors["feature"][pictures]
            terms["feature"] = squared_errors(variables["feature"], anchor)
        if weights.get("code"):
            anchor = self.anchors["code"][pictures]
            terms["code"] = squared_errors(self._on_sphere(codes), anchor)
        if weights.get("domain"):
            terms["domain"] = self._domain(codes, made)
        if weights.get("normality") and self.settings.space.is_mapped:
            terms["normality"] = normality_errors(codes, self.settings.normal_space())
        if weights.get("noise") and self.settings.noise == "free":
            maps = [value for name, value in variables.items() if name.startswith(NOISE)]
            terms["noise"] = noise_errors(maps)
        return terms

    def pictures(self, variables: Variables, step: int) -> Tensor:
        """Generates pictures [n, 3, R, R]; computes no layer up to that of F."""
        codes = self.mapped(variables["codes"], step)
        noise: Noise = "const"
        if self.settings.noise == "free":
            noise = noise_maps(self.generator, variables)
        if self.settings.layer is None:
            return self.generator.synthesize(codes, noise=noise)
        prefix = Prefix(self.settings.layer, variables["feature"], None)
        return self.generator.finish(prefix, codes, noise=noise)

    def _domain(self, codes: Tensor, made: Tensor) -> Tensor:
        """Inverts the pictures of searched codes again; gradients flow through the encoder too."""
        encoder, space = self.settings.encoder, self.settings.space
        assert encoder is not None
        again = codes_of(encoder, encoded(encoder, made), space)[:, self.live]
        return domain_errors(codes, again, angles=not space.is_mapped)

    def mapped(self, codes: Tensor, step: int) -> Tensor:
        """Maps searched codes [n, rows, D] to W+ [n, L, w_dim]; inert rows are the mean code."""
        settings, average = self.settings, self.generator.w_average
        inert, rows = settings.inert_rows, self.generator.num_codes
        w = codes if settings.space.is_mapped else self.generator.map(codes)
        if settings.space.is_mapped and settings.code_noise:
            w = w + self._code_noise(w, step)
        w = w.expand(-1, rows - inert, -1)
        if settings.psi is not None:
            w = torch.lerp(average, w, settings.psi[inert:, None])
        if not inert:
            return w
        return torch.cat([average.expand(len(w), inert, -1), w], dim=1)

    def _code_noise(self, w: Tensor, step: int) -> Tensor:
        """Draws the noise of one step, the same for every picture."""
        fading = max(0.0, 1.0 - step / self.settings.steps / 0.75) ** 2
        rng = torch.Generator().manual_seed(NOISE_SEED + step)
        drawn = torch.randn(w.shape[1:], generator=rng).to(w)
        return drawn * (self.settings.code_noise * self._deviation * fading)

    @functools.cached_property
    def _deviation(self) -> float:
        """Root of the mean squared distance of samples of W from their mean."""
        rng = torch.Generator().manual_seed(0)
        z = torch.randn(10_000, self.generator.z_dim, generator=rng).to(self.images)
        w = self.generator.map(z)
        return float((w - w.mean(dim=0)).square().sum(dim=1).mean().sqrt())

    @property
    def _network(self) -> PerceptualNetwork:
        assert self.settings.perceptual is not None
        return self.settings.perceptual

    def _features(self, images: Tensor) -> list[Tensor]:
        return perceptual_features(images, self._network, self.settings.perceptual_size)

    def _on_sphere(self, codes: Tensor) -> Tensor:
        return codes if self.settings.space.is_mapped else normalize_z(codes)


def noise_maps(generator: Generator, given: Mapping[str, Tensor]) -> list[Tensor]:
    """Returns a noise map for each layer: "noise.INDEX" of those given, else the generator's."""
    layers = cast("Sequence[nn.Module]", generator.synthesis.layers)
    own = [cast("Tensor", layer.noise) for layer in layers]
    return [given.get(f"{NOISE}{index}", noise) for index, noise in enumerate(own)]


def _normalize_noise(variables: Variables) -> None:
    """Sets every noise map to mean 0 and variance 1, in place."""
    for name, value in variables.items():
        if name.startswith(NOISE):
            value.sub_(value.mean(dim=(2, 3), keepdim=True))
            value.mul_(value.square().mean(dim=(2, 3), keepdim=True).rsqrt())
