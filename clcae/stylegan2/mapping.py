"""The mapping network f: Z -> W.

Karras et al. 2019, section 2; `Generator.style` of stylegan2-pytorch, `MappingNetwork` of
stylegan2-ada-pytorch (unconditional).
"""

from itertools import pairwise

from torch import Tensor, nn

from clcae.construction import require_positive
from clcae.nn.equalized import EqualizedLinear
from clcae.stylegan2.latents import normalize_z


class MappingNetwork(nn.Module):
    """Multilayer perceptron on normalised z, with a reduced learning rate."""

    def __init__(
        self,
        *,
        z_dim: int,
        w_dim: int,
        num_layers: int,
        hidden_dim: int | None = None,  # None: as wide as w
        lr_multiplier: float,
    ) -> None:
        super().__init__()
        require_positive(mapping_layers=num_layers, mapping_lr_multiplier=lr_multiplier)
        self.lr_multiplier = lr_multiplier
        hidden = w_dim if hidden_dim is None else hidden_dim
        widths = [z_dim, *[hidden] * (num_layers - 1), w_dim]
        self.layers = nn.ModuleList(
            EqualizedLinear(
                in_features=fan_in,
                out_features=fan_out,
                lr_multiplier=lr_multiplier,
                activation="lrelu",
            )
            for fan_in, fan_out in pairwise(widths)
        )

    def forward(self, z: Tensor) -> Tensor:
        """Maps [..., z_dim] to [..., w_dim]; rows of Z+ are mapped one by one."""
        x = normalize_z(z)
        for layer in self.layers:
            x = layer(x)
        return x
