"""The Inception networks of evaluations: two for FID and KID, one for face identity.

Heusel et al. 2017 (FID) read the pooled features of the TensorFlow graph of 2015-12-05; its port is
torch-fidelity's. StyleRes (the code of StarGAN v2) and CLCAE's `mertric/fid.py` read torchvision's
Inception v3 instead, whose weights and input scale are others: the two give other numbers, and
protocols name them apart. The face network is facenet-pytorch's InceptionResnetV1 (Schroff et al.
2015, trained on VGGFace2). All are filled by `clcae.pretrained.frozen`. Deviation: StarGAN v2
resizes with Pillow, here torch does it with the same filter; a pixel in 100 is a level of 256 off.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from clcae.frozen.module import FrozenModule
from clcae.images import from_uint8, to_uint8

SIZE = 299
FACE_SIZE = 160


class TFInception(FrozenModule):
    """Computes the pooled features of the Inception network that defines FID and KID.

    Args:
        extractor: torch-fidelity's network, from uint8 images to a tuple with the features; resizes
            to 299 pixels as TensorFlow 1 did.
    """

    name = "Inception v3 of TensorFlow, 2015-12-05 (torch-fidelity), pool 2048, at 299, uint8"
    dimension = 2048

    def __init__(self, *, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor = extractor
        self.eval().requires_grad_(False)

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]
    ) -> Tensor:
        """Returns features [N, 2048] of the images rounded to 256 levels."""
        features: Tensor = self.extractor(to_uint8(images))[0]
        return features


class TorchvisionInception(FrozenModule):
    """Computes the pooled features of torchvision's Inception v3, as StarGAN v2 and StyleRes do."""

    name = "Inception v3 of torchvision, pool 2048, at 299 bilinear, uint8, mean/std of ImageNet"
    dimension = 2048
    mean: Tensor
    deviation: Tensor

    def __init__(self) -> None:
        super().__init__()
        from torchvision.models import inception_v3  # slow to import

        trunk = inception_v3(
            weights=None, aux_logits=False, transform_input=False, init_weights=False
        )
        trunk.fc = nn.Identity()
        self.trunk = trunk
        for key, values in (("mean", (0.485, 0.456, 0.406)), ("deviation", (0.229, 0.224, 0.225))):
            self.register_buffer(key, Tensor(values)[:, None, None], persistent=False)
        self.eval().requires_grad_(False)

    def forward(
        self,
        images: Tensor,  # [N, 3, H, W], in [-1, 1]; any shape is squeezed to a square
    ) -> Tensor:
        """Returns features [N, 2048]."""
        features: Tensor = self.trunk(self.resized(images))
        return features

    def resized(self, images: Tensor) -> Tensor:
        """Resizes images to [N, 3, 299, 299] and normalises them as the network expects."""
        saved = from_uint8(to_uint8(images))
        for size in ((images.shape[-2], SIZE), (SIZE, SIZE)):  # Pillow rounds after either axis
            if saved.shape[-2:] != size:
                saved = F.interpolate(saved, size=size, mode="bilinear", antialias=True)
                saved = from_uint8(to_uint8(saved))
        return ((saved + 1) / 2 - self.mean) / self.deviation


class FaceNet(FrozenModule):
    """Embeds faces of 160 pixels by facenet-pytorch's InceptionResnetV1."""

    name = "InceptionResnetV1 of facenet-pytorch (VGGFace2)"
    size = FACE_SIZE
    embedding_dim = 512

    def __init__(self, *, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.eval().requires_grad_(False)

    def forward(
        self,
        faces: Tensor,  # [N, 3, 160, 160], in [-1, 1]
    ) -> Tensor:
        """Returns embeddings [N, 512] of unit length. Raises ValueError at another shape."""
        if faces.ndim != 4 or faces.shape[1:] != (3, FACE_SIZE, FACE_SIZE):
            raise ValueError(
                f"faces have shape {tuple(faces.shape)}, this embedder reads "
                f"[N, 3, {FACE_SIZE}, {FACE_SIZE}]"
            )
        embeddings: Tensor = self.network(faces * (127.5 / 128))  # (level - 127.5) / 128
        return embeddings
