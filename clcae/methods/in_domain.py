"""In-domain inversion: a domain-guided encoder, of W+ or of Z+.

Zhu et al. 2020, "In-Domain GAN Inversion for Real Image Editing" (arXiv 2004.00049, ECCV 2020),
section 3.1, and genforce/idinvert_pytorch. The encoder learns on real pictures through the frozen
generator, in turn with a discriminator, so that its codes stay where the generator draws well.

Of W+ it is the paper's. Of Z+ ("Revisiting Latent Space of GAN Inversion", arXiv 2307.08995, whose
code has no encoder) a row of the encoder is put on the sphere of Z and mapped by the frozen mapping
network, so that every row is a code that the generator may have been trained with.

Known deviations: the generator is StyleGAN2. That of the official release is StyleGAN1 with a
mapping for every layer, and is not supported. The pictures are not clamped: StyleGAN2 ends without
the hyperbolic tangent of the official generator.
"""

from typing import Literal, get_args

import torch
from torch import Tensor

from clcae.encoders.in_domain import DomainGuidedEncoder
from clcae.methods.interface import Inversion, InversionMethod
from clcae.serialization import register
from clcae.stylegan2 import Generator, LatentSpace, normalize_z

EncodedSpace = Literal["W+", "Z+"]


@register("in_domain")
class InDomain(InversionMethod):
    """A domain-guided encoder under a frozen generator.

    Raises:
        ValueError: if the space is another, image_size no power of two, or a width out of range.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        image_size: int = 256,  # a power of two
        width: int = 64,  # channels of the first convolution
        max_width: int = 1024,
        space: EncodedSpace = "W+",  # that of the codes
    ) -> None:
        super().__init__()
        if space not in get_args(EncodedSpace):
            raise ValueError(f"space is {space!r}, expected 'W+' or 'Z+'")
        self.outputs, self.output = (space,), space
        self.generator = generator
        self.encoder = DomainGuidedEncoder(
            num_rows=generator.num_codes,
            dim=generator.w_dim if space == "W+" else generator.z_dim,
            image_size=image_size,
            width=width,
            max_width=max_width,
        )

    @property
    def label(self) -> str:
        return "in-domain" if self.output == "W+" else f"in-domain {self.output}"

    @property
    def image_shape(self) -> tuple[int, int]:
        """(H, W) of the images that `invert` reads."""
        return self.encoder.image_size, self.encoder.image_size

    def invert(self, images: Tensor) -> Inversion:
        """Computes codes of W+; or of Z+, every row on the sphere of radius sqrt(z_dim).

        Raises:
            ValueError: if images have another size.
        """
        codes, space = self.encoder(images), LatentSpace(self.output)
        return Inversion(codes=codes if space.is_mapped else normalize_z(codes), space=space)

    def encode(
        self,
        images: Tensor,  # [N, 3, *image_shape], in [-1, 1]
    ) -> Tensor:
        """Computes codes of W+ [N, L, w_dim], those of Z+ mapped. Raises ValueError as `invert`."""
        return self.mapped(self.invert(images)).codes

    @torch.no_grad()
    def start_at_samples(self, *, num_samples: int = 10_000, seed: int = 0) -> None:
        """Sets mean and deviation of the encoder's rows to those of samples of the space.

        Of Z these are 0 and 1. The official encoder has deviation 1 in W+ too, of which that of a
        StyleGAN2 is far.
        """
        if not LatentSpace(self.output).is_mapped:
            zeros = torch.zeros(self.generator.z_dim)
            self.encoder.set_statistics(zeros, zeros + 1)
            return
        rng = torch.Generator().manual_seed(seed)
        z = torch.randn(num_samples, self.generator.z_dim, generator=rng)
        w = self.generator.map(z.to(self.device)).float()
        self.encoder.set_statistics(w.mean(dim=0), w.std(dim=0))
