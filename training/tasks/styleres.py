"""Training of StyleRes: E1 and E2 around a frozen e4e and a frozen generator.

"StyleRes: Transforming the Residuals for Real Image Editing with StyleGAN" (arXiv 2212.14359, CVPR
2023), section 3.3; its training code was never published. Half of the pictures take the path
without an edit: x' is to equal x. The others take the cycle: their codes move towards a sampled
code of W, which gives x'_i; that goes through e4e again, the same move is subtracted, and the
outcome x'' is to equal x. An image discriminator tells x from x' and x'_i. The regulariser acts on
the output of E2 in every synthesis of the step.

What the paper leaves open is taken from the lab's later training code, as far as that is public:
e4e and the generator's own feature are computed without gradients, also in the way back, so that
the cycle's gradients reach E1 and E2 through x'' alone. Neither tells the norm of the regulariser
(`clcae.losses.residual`) or the noise of the generator in training; its constant maps are used, as
the released code does for inversion.

Known deviations: the perceptual distance is that of the judges; the discriminator's R1 is lazy
(`r1_every`); its pictures of cars are padded to squares with black, as those that the generator
learnt from.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clcae.data.sources import ImageSource
from clcae.data.transforms import at_input_size
from clcae.encoders.styleres import Injection
from clcae.frozen.judges import Judges
from clcae.losses.adversarial import logistic_discriminator, logistic_generator, r1_penalty
from clcae.losses.inversion import reconstruction_rows, weighted_sum
from clcae.losses.residual import REGULARIZERS, Regularizer, edit_towards
from clcae.methods.e4e import E4E
from clcae.methods.styleres import StyleRes
from clcae.stylegan2 import Discriminator
from training.task import Phase, StepContext, StepOutput
from training.tasks.encoder import EncoderTask

RECONSTRUCTION = ("l2", "perceptual", "identity")
CYCLE = tuple(f"cycle_{term}" for term in RECONSTRUCTION)
TERMS = (*RECONSTRUCTION, *CYCLE, "adversarial", "feature")
Cycled = Literal["edited", "all"]


class StyleResTask(EncoderTask):
    """Trains E1 and E2, in turn with a discriminator of images.

    Args:
        method: the method; its e4e becomes a copy of `e4e`.
        e4e: a trained e4e, of an earlier stage or of a file.
        discriminator: of images; it has no phases if the weight of "adversarial" is 0.
        weights: of TERMS: "l2", "perceptual" and "identity" of x', the same of x'' as "cycle_l2"
            and so on, "adversarial", and "feature" of the regulariser. If those of the cycle are
            all 0, the way back is left out.
        edited: probability that a picture is edited; 0 leaves out the cycle with its edits.
        alpha: range of the edit's strength, of which 10 goes all the way to the sampled code.
        cycled: pictures whose way back is taken: "edited", or "all", in which case those without an
            edit go through e4e twice (the lab's code).
        regularizer: "norm" of the paper or "absolute" of the lab's code.
        r1_gamma: weight of R1, which is taken every `r1_every` steps and times as strongly.

    Raises:
        ValueError: if the method or the e4e is another, the method has nothing to train, the
            discriminator reads another size, weights are not those of TERMS, or a number or name is
            out of range.
    """

    name = "styleres"
    method: StyleRes

    def __init__(
        self,
        *,
        method: StyleRes,
        e4e: E4E,
        images: ImageSource,
        validation_images: ImageSource,
        judges: Judges,
        discriminator: Discriminator,
        weights: Mapping[str, float],
        edited: float = 0.5,
        alpha: Sequence[float] = (4.0, 5.0),
        cycled: Cycled = "edited",
        regularizer: Regularizer = "norm",
        r1_gamma: float = 10.0,
        r1_every: int = 16,
        flip: bool = True,
    ) -> None:
        if not isinstance(method, StyleRes):
            raise ValueError(f"method is a {type(method).__name__}, expected StyleRes")
        if not isinstance(e4e, E4E):
            raise ValueError(f"e4e is a {type(e4e).__name__}, expected E4E")
        if {*weights} != {*TERMS}:
            given = ", ".join(map(str, weights)) or "empty"
            raise ValueError(f"weights are {given}: expected those of {', '.join(TERMS)}")
        if not 0.0 <= edited <= 1.0:
            raise ValueError(f"edited is {edited}, expected a probability")
        if len(alpha) != 2 or not 0.0 <= alpha[0] <= alpha[1]:
            raise ValueError(f"alpha is {[*alpha]}, expected a range of two numbers from 0 up")
        if cycled not in ("edited", "all"):
            raise ValueError(f"cycled is {cycled!r}, expected 'edited' or 'all'")
        if regularizer not in REGULARIZERS:
            raise ValueError(f"regularizer is {regularizer!r}, expected 'norm' or 'absolute'")
        if r1_gamma < 0 or r1_every < 1:
            raise ValueError(
                f"r1_gamma is {r1_gamma} and r1_every {r1_every}, expected at least 0 and 1"
            )
        side, reads = max(method.image_shape), 4 << len(discriminator.blocks)
        if reads != side:
            raise ValueError(
                f"the discriminator reads pictures of {reads} pixels, the method those of {side}"
            )
        super().__init__(
            method=method, images=images, validation_images=validation_images, flip=flip
        )
        if not any(True for _ in self.encoder.parameters()):
            raise ValueError("the method has neither E1 nor E2: there is nothing to train")
        self.e4e = e4e
        self.judges = judges
        self.discriminator = discriminator
        self.weights = dict(weights)
        self.edited = edited
        self.alpha = (float(alpha[0]), float(alpha[1]))
        self.cycled = cycled
        self.regularizer = REGULARIZERS[regularizer]
        self.r1_gamma, self.r1_every = r1_gamma, r1_every
        self.adversarial = bool(self.weights["adversarial"])
        self.has_cycle = any(self.weights[name] for name in CYCLE)

    def prepare(self) -> None:
        """Copies the trained e4e into the method."""
        self.method.start_from(self.e4e)

    def modules(self) -> Mapping[str, nn.Module]:
        """Both players."""
        return {"encoder": self.encoder, "discriminator": self.discriminator}

    def parameters(self) -> Mapping[str, Iterable[nn.Parameter]]:
        """One optimizer for each player."""
        return {name: module.parameters() for name, module in self.modules().items()}

    def averaged(self) -> Mapping[str, nn.Module]:
        return {"encoder": self.encoder}

    def phases(self, step: int) -> Sequence[Phase]:
        """The discriminator, every so often its R1, then E1 and E2."""
        phases = [Phase("encoder", "encoder")]
        if self.adversarial and step % self.r1_every == 0:
            phases.insert(0, Phase("r1", "discriminator"))
        if self.adversarial:
            phases.insert(0, Phase("discriminator", "discriminator"))
        return phases

    def load_batch(self, context: StepContext) -> dict[str, Tensor]:
        """Loads images; computes "codes" and "skip" of e4e, the "edit" [N, L, D] and "alpha" [N].

        An alpha of 0 is no edit.
        """
        images = super().load_batch(context)
        codes, skip = self.method.encode_with_skip(images)
        z = context.normal("z", self.method.generator.z_dim).to(images)
        drawn = torch.rand(2, context.batch_size, generator=context.generator("alpha"))
        coins, shares = drawn[:, context.rows].to(images)
        low, high = self.alpha
        alpha = (low + (high - low) * shares) * (coins < self.edited)
        edit = edit_towards(codes, self.method.generator.map(z), alpha)
        return {"images": images, "codes": codes, "skip": skip, "edit": edit, "alpha": alpha}

    def loss(self, phase: Phase, batch: Mapping[str, Tensor], context: StepContext) -> StepOutput:
        """Computes the loss of one player, or R1."""
        if phase.name == "encoder":
            return self._encoder_loss(batch)
        if phase.name == "discriminator":
            with torch.no_grad():
                fakes, _ = self.pictures(batch["codes"], batch["skip"], batch["edit"])
            real = self.logits(batch["images"]).float()
            fake = self.logits(fakes).float()
            loss = logistic_discriminator(real, fake)
            return StepOutput(loss=loss, terms={"real": real.mean(), "fake": fake.mean()})
        with torch.autocast(self.method.device.type, enabled=False):  # differentiated twice
            images = batch["images"].detach().requires_grad_()
            penalty = r1_penalty(self.logits(images), images)
        loss = penalty * (self.r1_gamma / 2 * self.r1_every)
        return StepOutput(loss=loss, terms={"penalty": penalty})

    def pictures(
        self,
        codes: Tensor,  # [N, L, D], of e4e
        skip: Tensor,  # [N, S, h, w], of e4e
        edit: Tensor,  # [N, L, D]
    ) -> tuple[Tensor, Injection]:
        """Synthesizes edited codes with the residual of the unedited ones.

        Returns:
            The pictures [N, 3, H, W] in the shape of the input, and what was added to the feature.
        """
        moved = codes + edit
        with torch.no_grad():
            own = self.method.begin(codes).feature
            prefix = self.method.begin(moved)
        residual = self.method.residual(skip, own)
        injection = self.method.transform(prefix.feature, residual)
        picture = self.method.finish(prefix, moved, injection)
        return at_input_size(picture, self.method.image_shape), injection

    def way_back(
        self,
        pictures: Tensor,  # [N, 3, H, W], edited
        edit: Tensor,  # [N, L, D], the move that gave them
    ) -> tuple[Tensor, Injection]:
        """Inverts edited pictures and subtracts the edit; returns what `pictures` does."""
        with torch.no_grad():
            codes, skip = self.method.encode_with_skip(pictures.detach().float())
        return self.pictures(codes, skip, -edit)

    def logits(self, images: Tensor) -> Tensor:
        """Computes what the discriminator says of images [N, 3, H, W], made square: [N, 1]."""
        height, width = images.shape[-2:]
        across, down = max(height - width, 0), max(width - height, 0)
        margins = (across // 2, across - across // 2, down // 2, down - down // 2)
        if across or down:
            images = F.pad(images, margins, value=-1.0)
        logits: Tensor = self.discriminator(images)
        return logits

    def _encoder_loss(self, batch: Mapping[str, Tensor]) -> StepOutput:
        images, edit, still = batch["images"], batch["edit"], batch["alpha"] == 0
        first, injection = self.pictures(batch["codes"], batch["skip"], edit)
        terms: dict[str, Tensor] = {"feature": self.regularizer(injection.delta)}
        judged, targets = [first[still]], [images[still]]
        names = [*RECONSTRUCTION]
        cycled = torch.ones_like(still) if self.cycled == "all" else ~still
        if self.has_cycle:
            names += CYCLE
            if bool(cycled.any()):
                second, back = self.way_back(first[cycled], edit[cycled])
                share = cycled.float().mean()  # so that a row counts as much in any micro batch
                terms["feature"] = terms["feature"] + share * self.regularizer(back.delta)
                judged.append(second)
                targets.append(images[cycled])
        terms |= self._reconstruction(judged, targets, names, of=len(images))
        if self.adversarial:
            terms["adversarial"] = logistic_generator(self.logits(first).float())
        loss = weighted_sum(terms, self.weights)
        return StepOutput(loss=loss, terms=terms)

    def _reconstruction(
        self, judged: Sequence[Tensor], targets: Sequence[Tensor], names: Sequence[str], *, of: int
    ) -> dict[str, Tensor]:
        """Sums the terms of x', then of x'', each over its own pictures, divided by the batch.

        The judges see all pictures at once.
        """
        counts = [len(part) for part in judged]
        if not sum(counts):
            return {name: targets[0].new_zeros([]) for name in names}
        rows = reconstruction_rows(torch.cat([*judged]), torch.cat([*targets]), self.judges)
        counts += [0] * (2 - len(counts))
        terms: dict[str, Tensor] = {}
        for kind, values in rows.items():
            direct, back = values.split(counts)
            terms[kind] = direct.sum() / of
            terms[f"cycle_{kind}"] = back.sum() / of
        return {name: terms[name] for name in names}
