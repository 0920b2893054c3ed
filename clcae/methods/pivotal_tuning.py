"""Pivotal tuning: a pivot code of any method, and a generator that is tuned to draw its picture.

Roich et al. 2022, "Pivotal Tuning for Latent-based Editing of Real Images" (PTI, arXiv 2106.05744,
ACM TOG 42(1)); `training/coaches` of danielroich/PTI. The pivot stays where it is; weights of the
generator move until G(pivot) is the picture. Edits move the pivot as ever, and are drawn by the
tuned generator. The given generator never changes.

The changed weights lie in the context of the inversion, a row for each picture ("tuned." and the
names of `clcae.stylegan2.tuned`), so that whatever edits, draws, stores or measures an inversion
does so with them. `changes_of` and `clcae.stylegan2.delta_file` keep them alone.

What is as in the official code: noise is const while tuning, and a searched pivot's own noise maps
are thrown away; Adam at 3e-4 on all parameters; squared error and LPIPS at full size, both of
weight 1; at most 350 steps, none once LPIPS is .06 or less; every picture starts at the given
generator, or many are tuned into one, a step for each in turn, without an early end; the
regulariser of locality, off by default, with noise off.

Deviations: the pivot may be of any space and have a feature, not of W alone; any of the parameters
may be chosen, but none of the mapping network, to which official codes of W pass no gradient
anyway. Pictures of which the method reads a crop (cars) are compared in that crop. The distance to
samples of the regulariser comes from a fixed seed. The perceptual network may see a smaller
picture (`perceptual_size`), which the official one does not.
"""

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Literal, Self, TypeVar, cast, get_args

import torch
from torch import Tensor, nn
from tqdm import tqdm

from clcae.construction import is_finite
from clcae.data.threads import check_wanted
from clcae.data.transforms import at_input_size
from clcae.frozen.judges import PerceptualNetwork
from clcae.losses.inversion import checked_weights
from clcae.losses.tuning import TERMS
from clcae.methods.interface import Inversion, InversionMethod, Move
from clcae.methods.inversion_file import join, split
from clcae.methods.optimizer.descent import LARGEST_RATE
from clcae.methods.optimizer.search import NOISE
from clcae.methods.optimizer.tuning import Tuner, TuningSettings
from clcae.nn.folding import folded
from clcae.precision import Precision
from clcae.serialization import register
from clcae.stylegan2 import Generator
from clcae.stylegan2.tuned import chosen_names, unchanged, with_changes

FEW = 4  # at once: their pivots are found faster together
TUNED = "tuned."  # prefix of changes in the context of an inversion
PivotNoise = Literal["discarded", "kept"]

Result = TypeVar("Result")


@register("pivotal_tuning")
class PivotalTuning(InversionMethod):
    """Inverts by a pivot of another method and a generator tuned around it.

    Args:
        pivot: the method that finds codes; its generator is the one that is tuned.
        steps: of Adam at most; of many pictures in one generator, rounds. 0 tunes nothing.
        lr: learning rate.
        tuned: what is tuned: presets all, convolutions, to_rgb, styles, gains; "from LAYER"; or
            patterns of parameter names (`clcae.stylegan2.tuned.chosen_names`).
        perceptual: network of the term "perceptual".
        perceptual_size: side to which pictures are scaled for it; None leaves them.
        weights: of `TERMS`; None is 1 for the squared error and, with a network, the perceptual
            distance.
        stop: ends before the step at which the perceptual distance is this or less; None: never.
        together: tune one generator on all pictures of a call of `invert`, in turn; a picture's
            result then depends on the others.
        locality_weights: of `TERMS` between the changed and the given generator; None: no
            regulariser. The official ones, where it is on, are .1 and .1.
        locality_distance: of its codes from the pivot, over all rows; official value.
        locality_samples: for each step.
        noise: whether noise maps that the pivot's search found are kept.

    Raises:
        ValueError: if a number is out of range, `tuned` names nothing, or a term lacks its network.
    """

    def __init__(
        self,
        *,
        pivot: InversionMethod,
        steps: int = 350,
        lr: float = 3e-4,
        tuned: str | Sequence[str] = "all",
        perceptual: nn.Module | None = None,
        perceptual_size: int | None = None,
        weights: Mapping[str, float] | None = None,
        stop: float | None = None,
        together: bool = False,
        locality_weights: Mapping[str, float] | None = None,
        locality_distance: float = 30.0,
        locality_samples: int = 1,
        noise: PivotNoise = "discarded",
    ) -> None:
        super().__init__()
        if isinstance(pivot, PivotalTuning) or not isinstance(pivot, InversionMethod):
            raise ValueError(
                f"pivot is a {type(pivot).__name__}, expected an inversion method that leaves the "
                "generator as it is"
            )
        if steps < 0 or not 0 < lr <= LARGEST_RATE:
            raise ValueError(
                f"{steps} steps with a learning rate of {lr}: expected 0 up, above 0 to "
                f"{LARGEST_RATE:g}"
            )
        if not 0 < locality_distance < math.inf or locality_samples < 1:
            raise ValueError(
                f"locality_samples is {locality_samples} at locality_distance "
                f"{locality_distance}: expected 1 or more, above 0"
            )
        if noise not in get_args(PivotNoise):
            raise ValueError(f"noise is {noise!r}, expected 'discarded' or 'kept'")
        if weights is None:
            weights = dict.fromkeys(TERMS if perceptual is not None else ["pixel"], 1.0)
        self.weights = checked_weights(weights)
        self.locality_weights = checked_weights(locality_weights or {}, of="locality_weights")
        for name, given in (("weights", self.weights), ("locality_weights", self.locality_weights)):
            if not {*given} <= {*TERMS}:
                listed = ", ".join(map(str, given))
                raise ValueError(f"{name} are of {listed}: expected some of {', '.join(TERMS)}")
            if given.get("perceptual") and perceptual is None:
                raise ValueError(f"{name}.perceptual is {given['perceptual']}, without perceptual")
        if not any(self.weights.values()):
            raise ValueError(f"weights are {self.weights}: expected one of {', '.join(TERMS)}")
        if stop is not None and perceptual is None:
            raise ValueError(f"stop is {stop}, a perceptual distance, which needs perceptual")
        for name, number, least in (("stop", stop, 0), ("perceptual_size", perceptual_size, 1)):
            if number is not None and not least <= number < math.inf:
                raise ValueError(f"{name} is {number}, expected {least} or more")
        self.pivot = pivot
        self.outputs, self.output = tuple(pivot.outputs), pivot.output
        self.derived = tuple(pivot.derived)
        self.names = chosen_names(pivot.generator, tuned)
        self.perceptual, self.perceptual_size = perceptual, perceptual_size
        self.steps, self.lr, self.stop, self.together = steps, lr, stop, together
        self.locality_distance, self.locality_samples = locality_distance, locality_samples
        self.noise = noise

    @property
    def generator(self) -> Generator:  # type: ignore[override]
        """The given generator, that of the pivot."""
        return self.pivot.generator

    @property
    def label(self) -> str:
        return f"pivotal tuning of {self.pivot.label}"

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of the images: the pivot's, with the longer side of the generator's pictures."""
        height, width = self.pivot.image_shape
        longer, side = max(height, width), self.generator.resolution
        return height * side // longer, width * side // longer

    @property
    def at_once(self) -> int:
        """All that one generator is tuned on; else few, since it is tuned on one at a time."""
        return self.generator.at_once if self.together else min(self.pivot.at_once, FEW)

    def with_output(self, output: str) -> Self:
        other = super().with_output(output)
        return other._around(self.pivot.with_output(output))

    def with_generator(self, generator: Generator) -> Self:
        return self._around(self.pivot.with_generator(generator))

    def encoder_modules(self) -> Mapping[str, nn.Module]:
        """Modules that training changes: the pivot's."""
        return self.pivot.encoder_modules()

    def for_inference(self, precision: Precision = "float32") -> Self:
        """Returns a copy around the pivot's form for inference; it tunes in float32."""
        other = self._around(self.pivot.for_inference(precision))
        if self.perceptual is not None:
            other.add_module("perceptual", folded(self.perceptual))
        return other

    def form(self) -> Inversion:
        """Returns an inversion of the form that this method's have, without tuning."""
        changes = unchanged(self.generator, self.names)
        return self._with_changes(self._bare(self.pivot.form()), changes)

    def invert(self, images: Tensor) -> Inversion:
        """Finds the pivots, then tunes on picture after picture, or on all together.

        Raises:
            ValueError: if images have another size, or the tuning diverges.
        """
        if images.shape[1:] != (3, *self.image_shape):
            height, width = self.image_shape
            raise ValueError(
                f"images have shape {tuple(images.shape)}, expected [N, 3, {height}, {width}]"
            )
        with torch.inference_mode(False), torch.no_grad():  # gradients, whoever asks
            images = images.clone()
            small = at_input_size(images, self.pivot.image_shape)
            whole = self._bare(self.pivot.invert(small))
            if not len(images):
                return self._with_changes(whole, unchanged(self.generator, self.names))
            pivots = split(whole)
            size = len(pivots) if self.together else 1
            groups = [range(first, first + size) for first in range(0, len(pivots), size)]
            settings, found = self.settings_of_tuning(), list[Inversion]()
            with tqdm(
                total=len(groups) * self.steps,
                desc="tuning",
                unit="step",
                leave=False,
                disable=None,
            ) as bar:

                def on_step() -> None:
                    check_wanted()
                    bar.update()

                for group in groups:
                    of_group = [pivots[index] for index in group]
                    tuner = Tuner(settings, of_group, images[group.start : group.stop])
                    changes = tuner.run(on_step)
                    if not all(map(is_finite, changes.values())):
                        raise ValueError(
                            "the tuning diverged to NaN or infinity at a learning rate of "
                            f"{self.lr}: give a smaller one, and pictures in [-1, 1]"
                        )
                    found.append(self._with_changes(join(of_group), changes))
        return found[0] if len(found) == 1 else join(found)

    def settings_of_tuning(self) -> TuningSettings:
        """Returns the settings of the tuning."""
        pivot, generator = self.pivot, self.generator
        if self.precision != "float32":
            pivot = pivot.with_generator(generator.for_inference("float32"))
        return TuningSettings(
            pivot=pivot,
            names=self.names,
            steps=self.steps,
            lr=self.lr,
            weights=self.weights,
            perceptual=cast("PerceptualNetwork | None", self.perceptual),
            perceptual_size=self.perceptual_size,
            stop=self.stop,
            locality_weights=self.locality_weights,
            locality_distance=self.locality_distance,
            locality_samples=self.locality_samples,
        )

    def mapped(self, inversion: Inversion) -> Inversion:
        return self.pivot.mapped(inversion)

    def completed(self, inversion: Inversion) -> Inversion:
        """Recomputes what the pivot's method derives, with the tuned weights."""
        if not self.derived:
            return inversion
        parts = self._by_generator(inversion, lambda method, part, _: method.completed(part))
        whole = join(parts)
        return replace(whole, context={**inversion.context, **whole.context})

    def edit(self, inversion: Inversion, move: Move) -> Inversion:
        """Edits by the pivot's own rule, with the tuned weights."""
        count = len(inversion.codes)

        def edited(method: InversionMethod, part: Inversion, rows: slice) -> Inversion:
            def of_rows(codes: Tensor) -> Tensor:  # moves may differ from picture to picture
                return move(codes.expand(count, -1, -1))[rows]

            return method.edit(part, move if len(part.codes) == count else of_rows)

        parts = self._by_generator(inversion, edited)
        spaces = [part.space for part in parts]
        space = next((one for one in spaces if one.has_rows), spaces[0])
        joined = join(parts)
        changes = {k: value for k, value in inversion.context.items() if k.startswith(TUNED)}
        return replace(joined, space=space, context={**joined.context, **changes})

    def synthesize(self, inversion: Inversion) -> Tensor:
        return torch.cat(
            self._by_generator(inversion, lambda method, part, _: method.synthesize(part))
        )

    def _by_generator(
        self,
        inversion: Inversion,
        function: Callable[[InversionMethod, Inversion, slice], Result],
    ) -> list[Result]:
        """Calls a function with the pivot's method around each tuned generator.

        It is given the rows of that generator and which they are: one picture, or all where they
        share their changes or have none (codes that came without a picture).
        """
        rest = {key: v for key, v in inversion.context.items() if not key.startswith(TUNED)}
        bare, whole = replace(inversion, context=rest), slice(0, len(inversion.codes))
        changes = changes_of(inversion, 0) if len(inversion.codes) else {}
        if not changes:
            return [function(self.pivot, bare, whole)]
        rows = (
            [(bare, whole)]
            if self._shared(inversion)
            else [(part, slice(index, index + 1)) for index, part in enumerate(split(bare))]
        )
        return [
            function(
                self.pivot.with_generator(
                    with_changes(self.generator, changes_of(inversion, place.start))
                ),
                part,
                place,
            )
            for part, place in rows
        ]

    def _shared(self, inversion: Inversion) -> bool:
        """Whether one row of changes stands for all pictures."""
        return all(
            len(value) == 1 or value.stride(0) == 0
            for key, value in inversion.context.items()
            if key.startswith(TUNED)
        )

    def _bare(self, pivot: Inversion) -> Inversion:
        """Removes the noise maps of the pivot's search, unless they are kept."""
        if self.noise == "kept":
            return pivot
        kept = {key: v for key, v in pivot.context.items() if not key.startswith(NOISE)}
        return replace(pivot, context=kept)

    def _with_changes(self, pivot: Inversion, changes: Mapping[str, Tensor]) -> Inversion:
        """Adds the same changes for every picture; views of one tensor each."""
        method = self.pivot.with_generator(with_changes(self.generator, changes))
        pivot, count = method.completed(pivot), len(pivot.codes)
        rows = {
            TUNED + name: value[None].expand(count, *value.shape) for name, value in changes.items()
        }
        return replace(pivot, context={**pivot.context, **rows})

    def _around(self, pivot: InversionMethod) -> Self:
        other = copy.copy(self)
        other._modules = dict(self._modules)  # a plain copy shares it
        other.add_module("pivot", pivot)
        return other


def changes_of(inversion: Inversion, row: int = 0) -> dict[str, Tensor]:
    """Returns the changed weights of one picture, as `with_changes` and `save_delta` take them."""
    return {
        key.removeprefix(TUNED): value[row]
        for key, value in inversion.context.items()
        if key.startswith(TUNED)
    }
