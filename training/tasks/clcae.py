"""Stage 2: the CLCAE encoder under a frozen generator, aligner and judges (CLCAE section 3.3)."""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from clcae.aligner import Aligner
from clcae.data.sources import ImageSource
from clcae.frozen.judges import Judges, trunk_of
from clcae.losses.inversion import (
    AlignmentTarget,
    alignment_term,
    checked_weights,
    feature_term,
    reconstruction_terms,
    weighted_sum,
)
from clcae.methods.foundation import FoundationInversion
from clcae.stylegan2.synthesis import NoiseMode
from training.task import Phase, StepContext, StepOutput
from training.tasks.encoder import EncoderTask


class CLCAETask(EncoderTask):
    """Trains foundation w, W+ and F together, on three reconstructions of every image."""

    name = "clcae"
    method: FoundationInversion

    def __init__(
        self,
        *,
        method: FoundationInversion,
        images: ImageSource,
        validation_images: ImageSource,
        judges: Judges,
        aligner: Aligner | None = None,
        weights: Mapping[str, float],  # l2, perceptual, identity, feature, alignment
        alignment_target: AlignmentTarget = "output",  # the code's choice; the paper's is "input"
        start: Literal["aligner", "identity", "random"],  # weights to begin with
        flip: bool = True,
        noise: NoiseMode = "random",
        feature_ramp: float = 0.0,  # part of the steps over which F is blended in, from 0 to 1
        checkpoint_activations: bool = False,  # syntheses again in the backward pass: less memory
    ) -> None:
        if not isinstance(method, FoundationInversion):
            kind = type(method).__name__
            raise ValueError(f"method is a {kind}, expected CLCAE or OfficialCLCAE")
        super().__init__(
            method=method, images=images, validation_images=validation_images, flip=flip
        )
        self.judges = judges
        self.aligner = aligner
        self.weights = checked_weights(weights)
        self.alignment_target = alignment_target
        self.start = start
        self.noise: NoiseMode = noise
        self.feature_ramp = feature_ramp
        self.checkpoint_activations = checkpoint_activations
        if weights.get("alignment") and aligner is None:
            raise ValueError("weights.alignment is not 0, which needs an aligner; got None")
        if start == "aligner" and aligner is None:
            raise ValueError("start='aligner' needs an aligner, got None")

    def prepare(self) -> None:
        """Sets the average image, and the start weights of the trunk and the foundation head."""
        self.method.update_average_image()
        if self.start == "aligner":
            assert self.aligner is not None
            self.method.start_from(self.aligner.image_tower)
        elif self.start == "identity":
            trunk = trunk_of(self.judges)
            self.method.pyramid.trunk.load_state_dict(trunk.state_dict())

    def loss(self, phase: Phase, batch: Tensor, context: StepContext) -> StepOutput:
        """Computes the weighted sum of all terms on the three pictures."""
        encoding = self.method.encode(batch)
        pictures, feature, own = self.method.pictures(
            encoding,
            noise=self.noise,
            feature_scale=self.feature_scale(context.progress),
            checkpoint_activations=self.checkpoint_activations,
        )
        by_output = reconstruction_terms(pictures, batch, self.judges)
        terms = {kind: torch.stack([*each.values()]).sum() for kind, each in by_output.items()}
        terms["feature"] = feature_term(feature.float(), own.float())
        if self.weights.get("alignment"):
            assert self.aligner is not None
            images = batch if self.alignment_target == "input" else pictures["W"].float()
            terms["alignment"] = alignment_term(images, encoding.w, self.aligner)
        loss = weighted_sum(terms, self.weights)
        shown = {f"l2/{output}": term for output, term in by_output["l2"].items()}
        return StepOutput(loss=loss, terms={**terms, **shown})

    def feature_scale(self, progress: float) -> float:
        """Returns the share of F that the generator goes on with, in [0, 1].

        The official code raises it from 0 within every epoch, and validates at whatever it is then;
        here it is raised once, over the steps of the stage. Validation and inference use all of F.
        """
        return min(1.0, progress / self.feature_ramp) if self.feature_ramp else 1.0
