"""A feature of VGG16 and its squared distance: the perceptual loss of in-domain inversion.

Zhu et al. 2020 (arXiv 2004.00049), section 3.1; `PerceptualModel` of genforce/idinvert and its
PyTorch form: block4_conv3 behind its ReLU, pictures in [0, 255] with the colours as BGR, the mean
colour subtracted. `clcae.pretrained.frozen` loads the weights, which are those of Keras: with
torchvision's, whose input is scaled, the distance would be some thousand times smaller.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from clcae.frozen.module import FrozenModule

NUM_LAYERS = 23  # of torchvision's list, up to the ReLU behind block4_conv3
SIDE = 256  # pixels that the pictures are compared at
MEAN = (103.939, 116.779, 123.68)  # of ImageNet, blue first


class VGGFeature(FrozenModule):
    """Computes the feature and mean squared distances of it."""

    mean: Tensor

    def __init__(self) -> None:
        from torchvision.models import vgg16  # slow to import

        super().__init__()
        self.trunk = vgg16(weights=None).features[:NUM_LAYERS]
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    def features(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; resized to 256 by nearest neighbours
    ) -> list[Tensor]:
        """Computes the feature [N, 512, 32, 32]."""
        if images.shape[-2:] != (SIDE, SIDE):
            images = F.interpolate(images, (SIDE, SIDE), mode="nearest")
        return [self.trunk((images.flip(1) + 1) * 127.5 - self.mean)]

    def distance(self, features: Sequence[Tensor], others: Sequence[Tensor]) -> Tensor:
        """Computes mean squared differences [N] between two batches of `features`."""
        (feature,), (other,) = features, others
        return (feature.float() - other.float()).square().mean(dim=(1, 2, 3))
