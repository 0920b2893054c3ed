"""Encoder-based StyleGAN2 inversion: the library, which knows nothing of training or editing."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from clcae.pretrained.loading import load_generator, load_method

__all__ = ["load_generator", "load_method"]


def __getattr__(name: str) -> Any:
    """Imports the loaders when they are first asked for: a command begins before torch is there."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from clcae.pretrained import loading

    return getattr(loading, name)
