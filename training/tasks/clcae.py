"""Stage 2: the CLCAE encoder under a frozen generator, aligner and judges (CLCAE section 3.3)."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from clcae.aligner import Aligner
from clcae.data.sampler import shuffled
from clcae.data.sources import ImageSource
from clcae.frozen.judges import Judges, trunk_of
from clcae.images import labelled_grid
from clcae.losses import alignment_term, feature_term, reconstruction_terms, weighted_sum
from clcae.losses.inversion import AlignmentTarget
from clcae.methods.foundation import FoundationInversion
from clcae.serialization import save
from clcae.stylegan2.synthesis import NoiseMode
from training.task import Phase, StepContext, StepOutput, Task

VALIDATED = 256  # images
SHOWN = 8
BATCH = 64


class CLCAETask(Task):
    """Foundation w, W+ and F trained together on three pictures of every image."""

    monitor = ("mse_F", "min")

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
        start: Literal["aligner", "identity", "random"] = "aligner",  # of the trunk
        flip: bool = True,
        noise: NoiseMode = "random",
        feature_ramp: float = 0.0,  # part of the steps over which F is blended in, from 0 to 1
        checkpoint_activations: bool = False,  # syntheses again in the backward pass: less memory
    ) -> None:
        self.method = method
        self.images = images
        self.validation_images = validation_images
        self.judges = judges
        self.aligner = aligner
        self.weights = dict(weights)
        self.alignment_target = alignment_target
        self.flip = flip
        self.noise: NoiseMode = noise
        self.feature_ramp = feature_ramp
        self.checkpoint_activations = checkpoint_activations
        self.encoder = nn.ModuleDict(method.encoder_modules())
        if weights.get("alignment") and aligner is None:
            raise ValueError("weights.alignment is not 0, which needs an aligner; got None")
        method.update_average_image()
        self._start_trunk(start)

    def _start_trunk(self, start: str) -> None:
        if start == "random":
            return
        if start == "aligner":
            if self.aligner is None:
                raise ValueError("start='aligner' needs an aligner, got None")
            source: nn.Module = self.aligner.image_tower.trunk
        else:
            source = trunk_of(self.judges)
        self.method.pyramid.trunk.load_state_dict(source.state_dict())

    def parameters(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """The encoder alone; the generator gets no gradient."""
        return {"encoder": self.encoder.parameters()}

    def modules(self) -> Mapping[str, nn.Module]:
        """The encoder."""
        return {"encoder": self.encoder}

    def averaged(self) -> Mapping[str, nn.Module]:
        """The encoder."""
        return {"encoder": self.encoder}

    def load_batch(self, context: StepContext) -> Tensor:
        """Shuffled images, flipped at random."""
        images = self.images.images(shuffled(len(self.images), context.seed, context.samples))
        if self.flip:  # drawn for the whole batch, so that it does not matter who computes a row
            coins = torch.rand(context.batch_size, generator=context.generator("flip"))
            flipped = (coins[context.rows] < 0.5)[:, None, None, None]
            images = torch.where(flipped, images.flip(-1), images)
        return images.to(self.method.average_image.device)

    def loss(self, phase: Phase, batch: Tensor, context: StepContext) -> StepOutput:
        """All terms on the three pictures."""
        encoding = self.method.encode(batch)
        pictures, feature, own = self.method.pictures(
            encoding,
            noise=self.noise,
            feature_scale=self.feature_scale(context.progress),
            checkpoint_activations=self.checkpoint_activations,
        )
        by_output = reconstruction_terms(pictures, batch, self.judges)
        terms = {
            kind: torch.stack(
                [value for name, value in by_output.items() if name.startswith(kind)]
            ).sum()
            for kind in ("l2", "perceptual", "identity")
        }
        terms["feature"] = feature_term(feature.float(), own.float())
        if self.weights.get("alignment"):
            assert self.aligner is not None
            images = batch if self.alignment_target == "input" else pictures["W"].float()
            terms["alignment"] = alignment_term(images, encoding.w, self.aligner)
        loss = weighted_sum(terms, self.weights)
        shown = {name: by_output[name] for name in ("l2/W", "l2/W+", "l2/F")}
        return StepOutput(loss=loss, terms={**terms, **shown})

    def feature_scale(self, progress: float) -> float:
        """How much of F the generator goes on with; validation and inference have all of it.

        The official code raises it from 0 within every epoch, and validates at whatever it is then;
        here it is raised once, over the steps of the stage.
        """
        return min(1.0, progress / self.feature_ramp) if self.feature_ramp else 1.0

    def validate(self) -> Mapping[str, float]:
        """Mean squared error of every output on validation images."""
        total: dict[str, float] = {}
        count = min(VALIDATED, len(self.validation_images))
        for part in torch.arange(count).split(min(BATCH, self.method.generator.at_once)):
            images = self.validation_images.images(part).to(self.method.average_image.device)
            for name, picture in self.method.reconstructions(images).items():
                error = (picture.float().clamp(-1, 1) - images).square().mean(dim=(1, 2, 3))
                total[name] = total.get(name, 0.0) + float(error.sum())
        return {f"mse_{name}": value / count for name, value in total.items()}

    def samples(self) -> Tensor:
        """input | W | W+ | F of the first validation images."""
        indices = torch.arange(min(SHOWN, len(self.validation_images)))
        images = self.validation_images.images(indices).to(self.method.average_image.device)
        columns = {"input": images, **self.method.reconstructions(images)}
        shown = {name: column.float().clamp(-1, 1).cpu() for name, column in columns.items()}
        return labelled_grid(shown, scale=2)

    def finish(self, folder: Path) -> Mapping[str, Any]:
        """Writes clcae.safetensors: encoder, generator and averages in one file."""
        figures = dict(self.validate())
        save(self.method, folder / "clcae.safetensors", provenance={"stage": 2, **figures})
        return figures
