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

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from clcae.data.sources import ImageSource
from clcae.data.transforms import at_input_size
from clcae.encoders.styleres import Injection
from clcae.frozen.judges import Judges
from clcae.losses.inversion import reconstruction_rows
from clcae.losses.residual import REGULARIZERS, Regularizer, edit_towards
from clcae.methods.e4e import E4E
from clcae.methods.styleres import StyleRes
from clcae.stylegan2 import Discriminator
from clcae.stylegan2.synthesis import Prefix
from training.task import StepContext
from training.tasks.adversarial import AdversarialEncoderTask, check_side

RECONSTRUCTION = ("l2", "perceptual", "identity")
CYCLE = tuple(f"cycle_{term}" for term in RECONSTRUCTION)
TERMS = (*RECONSTRUCTION, *CYCLE, "adversarial", "feature")
Cycled = Literal["edited", "all"]


class StyleResTask(AdversarialEncoderTask):
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
        ValueError: if the method or the e4e is another, the e4e is not trained, the method has
            nothing to train, the discriminator reads another size, weights are not those of TERMS,
            or a number or name is out of range.
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
        norms = [part for part in e4e.encoder.modules() if isinstance(part, _BatchNorm)]
        if not any(part.running_mean.any() for part in norms if part.running_mean is not None):
            raise ValueError("e4e has seen no picture, expected a trained one: method@e4e=FILE")
        if not 0.0 <= edited <= 1.0:
            raise ValueError(f"edited is {edited}, expected a probability")
        if len(alpha) != 2 or not 0.0 <= alpha[0] <= alpha[1] < math.inf:
            raise ValueError(f"alpha is {[*alpha]}, expected a range of two numbers from 0 up")
        if cycled not in ("edited", "all"):
            raise ValueError(f"cycled is {cycled!r}, expected 'edited' or 'all'")
        if regularizer not in REGULARIZERS:
            raise ValueError(f"regularizer is {regularizer!r}, expected 'norm' or 'absolute'")
        check_side(discriminator, max(method.image_shape))
        super().__init__(
            method=method,
            images=images,
            validation_images=validation_images,
            flip=flip,
            terms=TERMS,
            discriminator=discriminator,
            weights=weights,
            r1_gamma=r1_gamma,
            r1_every=r1_every,
        )
        if not any(True for _ in self.encoder.parameters()):
            raise ValueError("the method has neither E1 nor E2: there is nothing to train")
        self.e4e = e4e
        self.judges = judges
        self.edited = edited
        self.alpha = (float(alpha[0]), float(alpha[1]))
        self.cycled = cycled
        self.regularizer = REGULARIZERS[regularizer]
        self.has_cycle = any(self.weights[name] for name in CYCLE)

    def prepare(self) -> None:
        """Copies the trained e4e into the method."""
        self.method.start_from(self.e4e)

    def load_batch(self, context: StepContext) -> dict[str, Tensor]:
        """Loads images and draws their edits; computes all that no gradient passes through.

        Beside what `start` returns: "images", "edit" [N, L, D] and its "alpha" [N], of which 0 is
        no edit.
        """
        images = super().load_batch(context)
        codes, skip = self.method.encode_with_skip(images)
        z = context.normal("z", self.method.generator.z_dim).to(images)
        drawn = torch.rand(2, context.batch_size, generator=context.generator("alpha"))
        coins, shares = drawn[:, context.rows].to(images)
        low, high = self.alpha
        alpha = (low + (high - low) * shares) * (coins < self.edited)
        edit = edit_towards(codes, self.method.generator.map(z), alpha)
        return {"images": images, "edit": edit, "alpha": alpha, **self.start(codes, skip, edit)}

    def reals(self, batch: Mapping[str, Tensor]) -> Tensor:
        """The images [N, 3, H, W]."""
        return batch["images"]

    def fakes(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Their reconstructions and edits, x' and x'_i [N, 3, H, W]."""
        return self.pictures(batch)[0]

    @torch.no_grad()
    def start(
        self,
        codes: Tensor,  # [N, L, D], of e4e
        skip: Tensor,  # [N, S, h, w], of e4e
        edit: Tensor,  # [N, L, D]
    ) -> dict[str, Tensor]:
        """Begins the synthesis of edited codes.

        Returns:
            "skip" and the generator's "own" feature of the codes, which E1 reads; the "moved"
            codes [N, L, D], and their "feature" and "rgb" at the layer of the residual.
        """
        moved = codes + edit
        own, prefix = self.method.begin(codes).feature, self.method.begin(moved)
        assert prefix.rgb is not None
        started = {"own": own, "moved": moved, "feature": prefix.feature, "rgb": prefix.rgb}
        return {"skip": skip, **started}

    def pictures(self, started: Mapping[str, Tensor]) -> tuple[Tensor, Injection]:
        """Synthesizes edited codes with the residual of the unedited ones.

        Args:
            started: what `start` returned.

        Returns:
            The pictures [N, 3, H, W] in the shape of the input, and what was added to the feature.
        """
        residual = self.method.residual(started["skip"], started["own"])
        injection = self.method.transform(started["feature"], residual)
        prefix = Prefix(self.method.layer, started["feature"], started["rgb"])
        picture = self.method.finish(prefix, started["moved"], injection)
        return at_input_size(picture, self.method.image_shape), injection

    def way_back(
        self,
        pictures: Tensor,  # [N, 3, H, W], edited
        edit: Tensor,  # [N, L, D], the move that gave them
    ) -> tuple[Tensor, Injection]:
        """Inverts edited pictures and subtracts the edit; returns what `pictures` does."""
        with torch.no_grad():
            codes, skip = self.method.encode_with_skip(pictures.detach().float())
        return self.pictures(self.start(codes, skip, -edit))

    def logits(self, images: Tensor) -> Tensor:
        """Computes what the discriminator says of images [N, 3, H, W], made square: [N, 1]."""
        height, width = images.shape[-2:]
        across, down = max(height - width, 0), max(width - height, 0)
        margins = (across // 2, across - across // 2, down // 2, down - down // 2)
        if across or down:
            images = F.pad(images, margins, value=-1.0)
        logits: Tensor = self.discriminator(images)
        return logits

    def encoder_terms(
        self, batch: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, Mapping[str, Tensor]]:
        """Computes the terms of x' and x'' and the regulariser; x' and x'_i are to fool."""
        images, edit, still = batch["images"], batch["edit"], batch["alpha"] == 0
        first, injection = self.pictures(batch)
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
        return terms | self._reconstruction(judged, targets, names, of=len(images)), first, {}

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
