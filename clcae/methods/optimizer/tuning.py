"""Tunes some weights of a generator until it draws given pictures from given codes.

`clcae.methods.pivotal_tuning` says what is of the paper and what is not.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor

from clcae.data.transforms import at_input_size
from clcae.frozen.judges import PerceptualNetwork
from clcae.losses.optimization import perceptual_features
from clcae.losses.tuning import at_distance, picture_errors
from clcae.methods.interface import Inversion, InversionMethod
from clcae.stylegan2.tuned import unchanged, with_changes

LOCALITY_SEED = 3
LOCALITY_TRUNCATION = 0.5  # psi of the samples; official value


@dataclass(frozen=True, kw_only=True)
class TuningSettings:
    """What tuning needs to know; the arguments of `PivotalTuning`.

    Args:
        pivot: the method that made the codes and draws their pictures.
        names: of the changes (`clcae.stylegan2.tuned`).
        stop: perceptual distance; None makes all steps.
    """

    pivot: InversionMethod
    names: Sequence[str]
    steps: int
    lr: float
    weights: Mapping[str, float]
    perceptual: PerceptualNetwork | None
    perceptual_size: int | None
    stop: float | None
    locality_weights: Mapping[str, float]
    locality_distance: float
    locality_samples: int


class Tuner:
    """Tunes one generator on one picture, or on several in turn.

    Args:
        settings: of the tuning.
        pivots: inversions of one picture each.
        images: [N, 3, H, W], in [-1, 1], as large as the generator's pictures, or a crop of them.
    """

    def __init__(
        self, settings: TuningSettings, pivots: Sequence[Inversion], images: Tensor
    ) -> None:
        self.settings, self.pivots = settings, pivots
        self.images = images.split(1)
        self.generator = settings.pivot.generator
        self.features = [self._features(image) for image in self.images]
        self.changes = unchanged(self.generator, settings.names)

    def run(self, on_step: Callable[[], object] | None = None) -> dict[str, Tensor]:
        """Tunes, and returns the changes; `on_step` is called after every round.

        One step of Adam for each picture in every round. The only picture of a tuning ends it
        before the step at which its perceptual distance is no longer above `stop`.
        """
        settings, leaves = self.settings, [*self.changes.values()]
        for leaf in leaves:
            leaf.requires_grad_()
        optimizer = torch.optim.Adam(leaves, lr=settings.lr)
        alone = len(self.pivots) == 1 and settings.stop is not None
        for round_ in range(settings.steps):
            for index in range(len(self.pivots)):
                with torch.enable_grad():
                    loss, distance = self.loss(index, round_)
                if alone and distance is not None and distance <= cast("float", settings.stop):
                    return self._found()
                gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
                for leaf, gradient in zip(leaves, gradients, strict=True):
                    leaf.grad = gradient  # None where a feature of the inversion hides a layer
                optimizer.step()
            if on_step is not None:
                on_step()
        return self._found()

    def loss(self, index: int, step: int) -> tuple[Tensor, float | None]:
        """Computes the loss of one picture, and its perceptual distance where there is one."""
        settings = self.settings
        tuned = settings.pivot.with_generator(with_changes(self.generator, self.changes))
        pivot, image = self.pivots[index], self.images[index]
        made = at_input_size(tuned.synthesize(tuned.completed(pivot)), image.shape[-2:])
        terms = picture_errors(
            made, image, self.features[index], settings.perceptual, settings.perceptual_size
        )
        loss = _weighted(terms, settings.weights)
        if any(settings.locality_weights.values()):
            loss = loss + self._locality(tuned, pivot, step * len(self.pivots) + index)
        distance = terms.get("perceptual")
        return loss, None if distance is None else float(distance.detach())

    def _locality(self, tuned: InversionMethod, pivot: Inversion, number: int) -> Tensor:
        """Compares pictures of the changed and the given generator at codes around the pivot."""
        settings, generator = self.settings, self.generator
        rng = torch.Generator().manual_seed(LOCALITY_SEED + number)
        z = torch.randn(settings.locality_samples, generator.z_dim, generator=rng)
        with torch.no_grad():
            samples = generator.map(z.to(self.images[0]), truncation=LOCALITY_TRUNCATION)
            codes = at_distance(
                settings.pivot.mapped(pivot).codes, samples[:, None], settings.locality_distance
            )
            before = generator.synthesize(codes, noise="none")
            features = self._features(before)
        after = tuned.generator.synthesize(codes, noise="none")
        terms = picture_errors(
            after, before, features, settings.perceptual, settings.perceptual_size
        )
        return _weighted(terms, settings.locality_weights)

    def _features(self, images: Tensor) -> list[Tensor] | None:
        network = self.settings.perceptual
        if network is None:
            return None
        return perceptual_features(images, network, self.settings.perceptual_size)

    def _found(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.changes.items()}


def _weighted(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    weighted = [weights[name] * term for name, term in terms.items() if weights.get(name)]
    return torch.stack(weighted).sum(dim=0).mean()
