"""What metrics refuse: images of another shape or range, and values that are not numbers."""

from torch import Tensor

RANGE_TOLERANCE = 1e-3  # a half-precision network misses the ends of the range by so much


def check_images(outputs: Tensor, targets: Tensor) -> None:
    """Refuse images that are not what a metric takes them for.

    Args:
        outputs: Images [N, 3, H, W] in [-1, 1].
        targets: Images of the same shape.

    Raises:
        ValueError: If shapes differ, or a value is NaN or beyond [-1, 1] by more than
            `RANGE_TOLERANCE`. Images in [0, 1] cannot be told from bright ones.
    """
    if outputs.shape != targets.shape or not _are_images(outputs):
        raise ValueError(
            f"outputs {tuple(outputs.shape)} and targets {tuple(targets.shape)}: "
            "expected one shape [N, 3, H, W]"
        )
    check_range(outputs, name="outputs")
    check_range(targets, name="targets")


def check_image_set(images: Tensor) -> None:
    """Refuse images that are not [N, 3, H, W] in [-1, 1], as `check_images` does of pairs."""
    if not _are_images(images):
        raise ValueError(f"images are {tuple(images.shape)}: expected [N, 3, H, W]")
    check_range(images, name="images")


def check_range(images: Tensor, *, name: str) -> None:
    """Refuse values that are not in [-1, 1], or no floating-point numbers. Raises ValueError."""
    if not images.is_floating_point():
        raise ValueError(f"{name} are {images.dtype}: expected floating point in [-1, 1]")
    if images.numel() == 0:
        return
    # NaN makes both ends NaN, and the comparison below fails as it should.
    low, high = images.min().item(), images.max().item()
    if not (low >= -1 - RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
        raise ValueError(f"{name} lie in [{low:.4g}, {high:.4g}]: expected [-1, 1] without NaN")


def _are_images(images: Tensor) -> bool:
    return images.ndim == 4 and images.shape[1] == 3 and min(images.shape[-2:]) > 0


def exact(images: Tensor) -> Tensor:
    """Images as float64, on their own device if it has that type (Apple's has not)."""
    images = images.detach()
    return (images.cpu() if images.device.type == "mps" else images).double()
