"""Training of the embedded StyleGAN2: imitation of the renderer, then the adversarial losses.

A portrait is drawn from 61 standard-normal latents; they are the first columns of z (the others
carry nothing). Two stages that are not part of StyleGAN2 replace most of the adversarial training,
which would take days on two cores. Stage 1, mapping: f(z) is fitted to a fixed rotation of the
latents' scores, so that W is even and each latent has a direction in it. Stage 2, imitation:
G(f(z)) is regressed onto the picture. Both make the shipped generator.

Adversarial, an experiment that goes on from there: the losses of StyleGAN2 (Karras et al. 2020),
non-saturating logistic, lazy R1, style mixing, EMA, optional path length. Deviation: the imitation
loss stays as an anchor on the part of the batch that is not style-mixed, so that the generator
keeps covering the domain.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae.data.sampler import shuffled
from clcae.losses.adversarial import (
    logistic_discriminator,
    logistic_generator,
    path_lengths,
    r1_penalty,
)
from clcae.nn.rows import normal_like
from clcae.ops.compilation import compiled_or_plain
from clcae.portraits import NUM_PLAIN_LATENTS, PortraitImages, scores
from clcae.stylegan2 import Discriminator, Generator
from clcae.stylegan2.generator import style_mixing
from training import distributed
from training.task import Phase, StepContext, StepOutput, Task
from training.tasks.generator_report import GeneratorReport, sample_grid


def reconstruction(images: Tensor, targets: Tensor) -> Tensor:
    """Sums the squared and absolute error, and the absolute error of image gradients."""
    error = images - targets
    edges = error.diff(dim=2).abs().mean() + error.diff(dim=3).abs().mean()
    return error.square().mean() + 0.5 * error.abs().mean() + 0.5 * edges


class GeneratorTask(Task):
    """Base of two stages: batches of latents with their pictures, samples, export."""

    monitor = ("fd", "min")

    def __init__(
        self,
        *,
        new_generator: Generator,  # the one in training, as against the shipped one
        images: PortraitImages,
        report: GeneratorReport,
        start: Generator | None = None,  # whose weights it begins with; None: fresh ones
        compile: bool = False,
    ) -> None:
        self.generator = new_generator
        self.start = start
        self.images = images
        self.report = report
        self.synthesize = compiled_or_plain(self._synthesize, enabled=compile)

    def prepare(self) -> None:
        if self.start is not None:
            self.generator.load_state_dict(self.start.state_dict())

    def _synthesize(self, codes: Tensor) -> Tensor:
        return self.generator.synthesize(codes, noise="random")

    @property
    def device(self) -> torch.device:
        return self.generator.w_average.device

    def averaged(self) -> Mapping[str, nn.Module]:
        return {"generator": self.generator}

    def load_batch(self, context: StepContext) -> dict[str, Tensor]:
        """Loads pictures; their z is their latents, then Gaussian noise."""
        indices = shuffled(len(self.images), context.seed, context.samples)
        z = context.normal("z", self.generator.z_dim)
        latents = self.images.plain_latents(indices)
        z = torch.cat([latents, z[:, latents.shape[1] :]], dim=1)
        return {"images": self.images.images(indices).to(self.device), "z": z.to(self.device)}

    def validate(self) -> Mapping[str, float]:
        return self.report.quick(self.generator)

    def samples(self) -> Tensor:
        return sample_grid(self.generator)

    def finish(self, folder: Path) -> Mapping[str, Any]:
        """Sets the mean latent, measures, and writes the generator with its card."""
        self.generator.update_average()
        return self.report.write(self.generator, folder)


class MappingTask(Task):
    """Fits the mapping network alone to a rotation of the scores of each portrait."""

    def __init__(self, *, new_generator: Generator) -> None:
        self.generator = new_generator
        w_dim = new_generator.w_dim
        count = scores(torch.zeros(1, NUM_PLAIN_LATENTS)).shape[1]
        if count > w_dim or new_generator.z_dim < NUM_PLAIN_LATENTS:
            raise ValueError(
                f"z_dim is {new_generator.z_dim} and w_dim {w_dim}, expected at least "
                f"{NUM_PLAIN_LATENTS} and {count}: a portrait has so many latents and scores"
            )
        drawn = torch.randn(w_dim, count, generator=torch.Generator().manual_seed(0))
        # Rows of variance one, like those of the mapping networks one knows.
        self.rotation = torch.linalg.qr(drawn).Q * math.sqrt(w_dim / count)

    def modules(self) -> Mapping[str, nn.Module]:
        return {"mapping": self.generator.mapping}

    def load_batch(self, context: StepContext) -> tuple[Tensor, Tensor]:
        """Draws z, and computes its target in W."""
        z = context.normal("z", self.generator.z_dim)
        target = scores(z[:, :NUM_PLAIN_LATENTS]) @ self.rotation.T
        device = self.generator.w_average.device
        return z.to(device), target.to(device)

    def loss(self, phase: Phase, batch: tuple[Tensor, Tensor], context: StepContext) -> StepOutput:
        """Computes the mean squared error in W."""
        z, target = batch
        loss = F.mse_loss(self.generator.map(z).float(), target)
        return StepOutput(loss=loss, terms={"mse": loss})


class ImitationTask(GeneratorTask):
    """Trains the generator to draw portraits from their own latents."""

    def modules(self) -> Mapping[str, nn.Module]:
        return {"generator": self.generator}

    def loss(self, phase: Phase, batch: Mapping[str, Tensor], context: StepContext) -> StepOutput:
        """Computes the error of G(f(z)) against the picture of z."""
        images = self.synthesize(self.generator.map(batch["z"])).float()
        loss = reconstruction(images, batch["images"])
        mse = F.mse_loss(images, batch["images"])
        return StepOutput(loss=loss, terms={"reconstruction": loss, "mse": mse})


class AdversarialTask(GeneratorTask):
    """Trains with the StyleGAN2 losses, and imitation of the renderer as an anchor."""

    def __init__(
        self,
        *,
        new_generator: Generator,
        discriminator: Discriminator,
        images: PortraitImages,
        report: GeneratorReport,
        start: Generator | None = None,
        r1_gamma: float = 1.0,
        r1_every: int = 16,  # lazy regularisation, Karras et al. 2020 section 3.1
        path_length_weight: float = 0.0,  # 2 in the paper; 0 leaves it out
        path_length_every: int = 4,
        mixing: float = 0.5,  # part of the batch that mixes two codes, and has no anchor
        anchor: float = 10.0,  # weight of imitation
        discriminator_warmup: int = 200,  # steps in which the discriminator alone learns
        compile: bool = False,
    ) -> None:
        super().__init__(
            new_generator=new_generator, images=images, report=report, start=start, compile=compile
        )
        self.discriminator = discriminator
        self.judge = compiled_or_plain(discriminator.forward, enabled=compile)
        self.r1_gamma, self.r1_every = r1_gamma, r1_every
        self.path_length_weight, self.path_length_every = path_length_weight, path_length_every
        self.mixing, self.anchor = mixing, anchor
        self.discriminator_warmup = discriminator_warmup
        self.path_mean = nn.Module()  # of the path lengths, a buffer that checkpoints hold
        self.path_mean.register_buffer("value", torch.zeros([]))

    def parameters(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """One optimizer for each player."""
        return {
            "discriminator": self.discriminator.parameters(),
            "generator": self.generator.parameters(),
        }

    def modules(self) -> Mapping[str, nn.Module]:
        """Both players, and the running mean of the path lengths."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "path_mean": self.path_mean,
        }

    def phases(self, step: int) -> Sequence[Phase]:
        """Discriminator and generator, each with its regulariser every so many steps."""
        phases = [Phase("discriminator", "discriminator")]
        if step % self.r1_every == 0:
            phases.append(Phase("r1", "discriminator"))
        if step >= self.discriminator_warmup:
            phases.append(Phase("generator", "generator"))
            if self.path_length_weight and step % self.path_length_every == 0:
                phases.append(Phase("path_length", "generator"))
        return phases

    def load_batch(self, context: StepContext) -> dict[str, Tensor]:
        """Loads pictures and z, and draws a second z and crossover for style mixing."""
        batch = super().load_batch(context)
        rng = context.generator("mixing")
        z = torch.randn(context.batch_size, self.generator.z_dim, generator=rng)
        crossover = torch.randint(1, self.generator.num_codes, [context.batch_size], generator=rng)
        batch["other_z"] = z[context.rows].to(self.device)
        batch["crossover"] = crossover[context.rows].to(self.device)
        return batch

    def codes(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, int]:
        """Maps z to W+ codes [N, L, D], the mixed ones last; counts those not mixed."""
        w, other = self.generator.map(batch["z"]), self.generator.map(batch["other_z"])
        kept = round(len(w) * (1.0 - self.mixing))
        crossover = batch["crossover"].clone()
        crossover[:kept] = self.generator.num_codes
        rows = self.generator.num_codes
        return style_mixing(w, other, num_rows=rows, crossover=crossover), kept

    def loss(self, phase: Phase, batch: Mapping[str, Tensor], context: StepContext) -> StepOutput:
        """Computes the loss of one player, or of its regulariser."""
        if phase.name == "discriminator":
            with torch.no_grad():
                fakes = self.synthesize(self.codes(batch)[0])
            real_logits = self.judge(batch["images"]).float()
            fake_logits = self.judge(fakes.float()).float()
            loss = logistic_discriminator(real_logits, fake_logits)
            terms = {"real": real_logits.mean(), "fake": fake_logits.mean()}
            return StepOutput(loss=loss, terms=terms)
        if phase.name == "generator":
            return self._generator_loss(batch)
        with torch.autocast(self.device.type, enabled=False):  # differentiated twice: float32
            return self._r1(batch) if phase.name == "r1" else self._path_length(batch, context)

    def _generator_loss(self, batch: Mapping[str, Tensor]) -> StepOutput:
        codes, kept = self.codes(batch)
        fakes = self.synthesize(codes).float()
        adversarial = logistic_generator(self.judge(fakes).float())
        anchor = reconstruction(fakes[:kept], batch["images"][:kept])
        return StepOutput(
            loss=adversarial + self.anchor * anchor,
            terms={"adversarial": adversarial, "anchor": anchor},
        )

    def _r1(self, batch: Mapping[str, Tensor]) -> StepOutput:
        images = batch["images"].detach().requires_grad_()
        penalty = r1_penalty(self.discriminator(images), images)
        loss = penalty * (self.r1_gamma / 2 * self.r1_every)
        return StepOutput(loss=loss, terms={"penalty": penalty})

    def _path_length(self, batch: Mapping[str, Tensor], context: StepContext) -> StepOutput:
        codes = self.codes(batch)[0][::2]  # half the batch, as the official code does
        images = self.generator.synthesize(codes, noise="random")
        lengths = path_lengths(images, codes, normal_like(images))
        running = self.path_mean.get_buffer("value")
        mean = torch.lerp(running, distributed.average(lengths.detach().mean()), 0.01)
        running.copy_(mean)
        penalty = (lengths - mean).square().mean()
        loss = penalty * (self.path_length_weight * self.path_length_every)
        return StepOutput(loss=loss, terms={"penalty": penalty, "length": lengths.mean()})
