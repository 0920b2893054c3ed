"""Portraits as an image source agree with the data set they are drawn from."""

from pathlib import Path

import torch

from clcae.data.sources import ImageSource
from clcae.portraits import NUM_PLAIN_LATENTS, PortraitDataset, PortraitImages


def test_pictures_labels_and_people(tmp_path: Path) -> None:
    source = PortraitImages(
        split="validation", cache=tmp_path, size=32, num_people=5, pictures_per_person=2
    )
    assert isinstance(source, ImageSource)
    assert (len(source), source.num_people) == (10, 5)
    rows = torch.tensor([7, 0, 3])
    portraits = PortraitDataset("validation", size=32, length=5, pictures_per_person=2).batch(rows)
    torch.testing.assert_close(source.images(rows), portraits.images, rtol=0, atol=1.01 / 255)
    torch.testing.assert_close(source.attributes(rows), portraits.attributes)
    assert source.people(rows).tolist() == portraits.people.tolist() == [3, 0, 1]
    assert torch.equal(source.plain_latents(rows), portraits.latents[:, :NUM_PLAIN_LATENTS])
    assert source.name(7) == "validation/00007"


def test_nothing_is_drawn_before_it_is_asked_for(tmp_path: Path) -> None:
    source = PortraitImages(split="test", cache=tmp_path / "cache", num_people=3)
    source.attributes([0, 1])
    assert not (tmp_path / "cache").exists()
    source.images([2])
    assert len(list((tmp_path / "cache").iterdir())) == 1
