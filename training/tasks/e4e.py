"""Training of e4e, pSp and an encoder of W (Tov et al. 2021; Richardson et al. 2021).

Distortion: squared error, perceptual distance and identity. Editability (e4e section 4): offsets
are switched on one after another, their norms are penalised, and a latent discriminator compares
the rows with codes of W. Matches the official training/coach.py at 99ea505.

Known deviations: weights are averaged over training (`trainer.ema`); the pools see training
batches alone, not those of validation; fakes are measured with the mean of W added, as the official
code has it since f0a8223, after its files were trained. Without progressive stages the official
code drops the penalty of offsets; here its weight decides.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from clcae.data.sources import ImageSource
from clcae.data.transforms import at_input_size
from clcae.frozen.judges import Judges
from clcae.losses.inversion import reconstruction_terms
from clcae.losses.latent import offset_norms
from clcae.methods.e4e import E4E, PSP
from clcae.methods.e4e_z_plus import E4EZPlus
from clcae.nn.gather import gather_rows
from clcae.nn.latent_discriminator import LatentDiscriminator, LatentPool
from clcae.nn.trunk import Trunk
from clcae.stylegan2.synthesis import NoiseMode
from training.task import StepContext
from training.tasks.adversarial import AdversarialEncoderTask

TERMS = ("l2", "perceptual", "identity", "delta", "adversarial")


class E4ETask(AdversarialEncoderTask):
    """Trains an encoder of W+ or W, in turn with a latent discriminator.

    Args:
        name: the exported file is NAME.safetensors.
        method: e4e, of W+ or Z+, or pSp; every row of pSp counts as one whose offset is switched
            on.
        discriminator: of rows of W; it has no phases if the weight of "adversarial" is 0. Rows of
            Z+ are codes of W by construction, and it has little to say of them.
        weights: of TERMS; "delta" is that of the norms of offsets, of Z+ after the mapping: a small
            angle in Z may be a long way in W.
        progressive_start: step at which the first offset is switched on; None, as pSp needs it:
            all from the beginning.
        progressive_every: steps from one offset to the next.
        pool_size: codes in the pool of reals, and in that of fakes.
        r1_gamma: weight of R1, which is taken every `r1_every` steps and times as strongly.
        start: the trunk with whose weights the encoder begins; None: random ones.

    Raises:
        ValueError: if the method is another, pSp has stages, the discriminator reads codes of
            another width, weights are not those of TERMS, the name is a path, or a number is out
            of range.
    """

    method: E4E | E4EZPlus | PSP

    def __init__(
        self,
        *,
        name: str = "e4e",
        method: E4E | E4EZPlus | PSP,
        images: ImageSource,
        validation_images: ImageSource,
        judges: Judges,
        discriminator: LatentDiscriminator,
        weights: Mapping[str, float],
        progressive_start: int | None,
        progressive_every: int = 1,
        pool_size: int = 50,
        r1_gamma: float = 10.0,
        r1_every: int = 16,
        start: Trunk | None = None,
        flip: bool = True,
        noise: NoiseMode = "random",
    ) -> None:
        if not isinstance(method, E4E | E4EZPlus | PSP):
            raise ValueError(f"method is a {type(method).__name__}, expected E4E, E4EZPlus or PSP")
        if isinstance(method, PSP) and progressive_start is not None:
            raise ValueError(
                f"progressive_start is {progressive_start}, expected null: pSp has no offsets"
            )
        w_dim = method.generator.w_dim
        if discriminator.w_dim != w_dim:
            raise ValueError(
                f"discriminator.w_dim is {discriminator.w_dim}, codes of the generator have {w_dim}"
            )
        for key, number, least in (
            ("progressive_start", progressive_start or 0, 0),
            ("progressive_every", progressive_every, 1),
            ("pool_size", pool_size, 1),
        ):
            if number < least:
                raise ValueError(f"{key} is {number}, expected at least {least}")
        if Path(f"{name}.safetensors").name != f"{name}.safetensors":
            raise ValueError(f"name is {name!r}, expected a plain file name")
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
        self.name = name
        self.judges = judges
        self.progressive_start = progressive_start
        self.progressive_every = progressive_every
        self.real_pool = LatentPool(size=pool_size, w_dim=w_dim)
        self.fake_pool = LatentPool(size=pool_size, w_dim=w_dim)
        self.start = start
        self.noise: NoiseMode = noise
        self.last_stage = method.encoder.stage

    def prepare(self) -> None:
        """Sets the start weights of the trunk."""
        if self.start is not None:
            self.method.encoder.pyramid.trunk.load_state_dict(self.start.state_dict())

    def modules(self) -> Mapping[str, nn.Module]:
        """Both players and the pools."""
        pools = {"real_pool": self.real_pool, "fake_pool": self.fake_pool}
        return {**super().modules(), **pools}

    def stage(self, step: int) -> int:
        """Returns the last row that has its offset in this step, in [0, L - 1]."""
        if self.progressive_start is None:
            return self.last_stage
        past = step - self.progressive_start
        return min(max(past // self.progressive_every + 1, 0), self.last_stage)

    def load_batch(self, context: StepContext) -> dict[str, Tensor]:
        """Loads images; "real" and "fake" rows of W [N, w_dim] for the discriminator.

        Sets the encoder's stage, and exchanges codes with the pools.
        """
        self.method.encoder.stage = self.stage(context.step)
        batch = {"images": super().load_batch(context)}
        if self.adversarial:
            z = context.normal("z", self.method.generator.z_dim).to(self.method.device)
            batch["real"] = self._pooled(self.real_pool, self.method.generator.map(z), context)
            # In train mode: it counts in the running statistics, as in the official code.
            codes = self.method.encode(batch["images"])
            rows = torch.randint(
                self.method.encoder.stage + 1,
                [context.batch_size],
                generator=context.generator("rows"),
            )[context.rows]
            fakes = codes[torch.arange(len(codes)), rows.to(codes.device)]
            batch["fake"] = self._pooled(self.fake_pool, fakes, context)
        return batch

    def _pooled(self, pool: LatentPool, codes: Tensor, context: StepContext) -> Tensor:
        """Exchanges codes with a pool that is the same on every rank, in the order of the batch."""
        rng = context.generator("real pool" if pool is self.real_pool else "fake pool")
        swapped = torch.rand(context.batch_size, generator=rng) < 0.5
        places = torch.randint(pool.size, [context.batch_size], generator=rng)
        own, count = context.rows, len(codes)
        first = own.start - context.rank * count  # of this micro batch on rank 0
        of_all = slice(first, first + context.world_size * count)
        given = pool.exchange(gather_rows(codes.float()), swapped[of_all], places[of_all])
        return given[own.start - first : own.stop - first]

    def reals(self, batch: Mapping[str, Tensor]) -> Tensor:
        """Codes of W [N, w_dim], some of earlier steps."""
        return batch["real"]

    def fakes(self, batch: Mapping[str, Tensor]) -> Tensor:
        """One row of every image's codes [N, w_dim], some of earlier steps."""
        return batch["fake"]

    def encoder_terms(
        self, batch: Mapping[str, Tensor]
    ) -> tuple[dict[str, Tensor], Tensor, Mapping[str, Tensor]]:
        """Computes reconstruction and norms of offsets; all rows of the stage are to fool."""
        images, stage = batch["images"], self.method.encoder.stage
        codes = self.method.encode(images)
        picture = self.method.generator.synthesize(codes, noise=self.noise)
        pictures = {self.method.output: at_input_size(picture, images.shape[-2:])}
        by_output = reconstruction_terms(pictures, images, self.judges)
        terms = {kind: term for kind, each in by_output.items() for term in each.values()}
        terms["delta"] = offset_norms(codes.float(), stage)
        return terms, codes[:, : stage + 1], {"stage": codes.new_tensor(float(stage))}

    def finish(self, folder: Path) -> Mapping[str, Any]:
        """Writes NAME.safetensors, which uses all offsets whatever stage was reached."""
        self.method.encoder.stage = self.last_stage
        return super().finish(folder)
