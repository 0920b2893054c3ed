"""A training step of CLCAE's second stage written plainly: three whole syntheses.

CLCAE section 3.3 with the squared error alone. Unlike `training.tasks.clcae` it shares nothing: the
generator's own feature and the beginning of G(w+, F) are computed again, and the generator's
weights, which no optimizer touches, have gradients.
"""

import torch
from torch import Tensor

from benchmarks.yardstick.synthesis import Noise, TextbookSynthesis
from clcae.methods.foundation import FoundationInversion


class PlainStep:
    """Trains an encoder under the textbook's synthesis, all of which has gradients."""

    def __init__(
        self,
        *,
        method: FoundationInversion,
        textbook: TextbookSynthesis,  # with the weights of the method's generator
        optimizer: torch.optim.Optimizer,  # of the encoder's parameters
        noise: Noise = "random",
    ) -> None:
        self.method = method
        self.textbook = textbook.requires_grad_(True)
        self.optimizer = optimizer
        self.noise = noise

    def loss(
        self,
        images: Tensor,  # [N, 3, H, W]
    ) -> Tensor:
        """Adds the squared errors of G(w), G(w+) and G(w+, F), []."""
        encoding = self.method.encode(images)
        layer = self.method.layer.index
        own = self.textbook.features(encoding.w_plus, layer, noise=self.noise)
        feature = self.method.feature_of(encoding, own)
        pictures = [
            self.textbook(encoding.w, noise=self.noise),
            self.textbook(encoding.w_plus, noise=self.noise),
            self.textbook(encoding.w_plus, noise=self.noise, replaced=(layer, feature)),
        ]
        total = torch.zeros([], device=images.device)
        for picture in pictures:
            error = self.method.at_input_size(picture) - images
            total = total + error.square().mean()
        return total

    def run(self, images: Tensor) -> float:
        """Takes a step; returns its loss."""
        for module in self.method.encoder_modules().values():
            module.train().requires_grad_(True)
        loss = self.loss(images)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.textbook.zero_grad()
        return loss.item()
