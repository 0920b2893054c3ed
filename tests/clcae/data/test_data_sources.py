"""TensorImages."""

from pathlib import Path

import pytest
import torch

from clcae.data.sources import ImageSource, TensorImages


def test_tensor_images() -> None:
    pixels = torch.randint(0, 256, (5, 3, 4, 6), dtype=torch.uint8)
    source = TensorImages(pixels=pixels)
    assert isinstance(source, ImageSource)
    assert len(source) == 5
    images = source.images(torch.tensor([4, 0, 4]))
    assert images.dtype == torch.float32
    assert torch.equal(((images + 1) * 127.5).round().byte(), pixels[[4, 0, 4]])
    assert torch.equal(source.images(range(2)), source.images([0, 1]))
    assert source.images([]).shape == (0, 3, 4, 6)
    assert source.name(3) == "000003"


def test_memory_mapped_file(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (5, 3, 4, 4), dtype=torch.uint8)
    (tmp_path / "a.bin").write_bytes(pixels.numpy().tobytes())
    mapped = torch.from_file(str(tmp_path / "a.bin"), size=pixels.numel(), dtype=torch.uint8)
    source = TensorImages(pixels=mapped.view(5, 3, 4, 4))
    assert torch.equal(source.images([2]), TensorImages(pixels=pixels).images([2]))


@pytest.mark.parametrize("index", [-1, 5])
def test_index_outside(index: int) -> None:
    source = TensorImages(pixels=torch.zeros(5, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(IndexError, match=f"index {index} of 5 images"):
        source.images([0, index])


@pytest.mark.parametrize(
    "pixels",
    [
        torch.zeros(1, 3, 2, 2),
        torch.zeros(3, 2, 2, dtype=torch.uint8),
        torch.zeros(1, 4, 2, 2, dtype=torch.uint8),
        torch.zeros(0, 3, 2, 2, dtype=torch.uint8),
    ],
)
def test_refuses_other_tensors(pixels: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="pixels"):
        TensorImages(pixels=pixels)
