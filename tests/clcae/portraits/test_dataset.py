"""The data set: addressed by index, disjoint by split, cached whole."""

from pathlib import Path

import pytest
import torch

from clcae.portraits import (
    ATTRIBUTES,
    DETAIL_RATES,
    NUM_LATENTS,
    Group,
    PortraitDataset,
    dataset,
    decode,
    group_slice,
    render,
)


def test_lengths_of_the_splits() -> None:
    lengths = {split: len(PortraitDataset(split)) for split in ("train", "validation", "test")}
    assert lengths == {"train": 65536, "validation": 1024, "test": 2824}
    assert len(PortraitDataset("test", length=5)) == 5


def test_latents_are_the_same_whatever_is_asked() -> None:
    portraits = PortraitDataset("test")
    whole = portraits.latents(range(100))
    assert whole.shape == (100, NUM_LATENTS)
    assert whole.dtype == torch.float32
    assert torch.equal(portraits.latents([42, 7]), whole[[42, 7]])
    assert torch.equal(PortraitDataset("test", length=50).latents(torch.tensor([42])), whole[42:43])


def test_latents_are_pinned() -> None:
    # Drawn once by this code: another value means that every trained asset has lost its data.
    latents = PortraitDataset("train").latents([0, 65535])
    expected = torch.tensor([[-0.444731, -1.962694, -0.45876], [-0.193271, -0.658991, 1.131598]])
    torch.testing.assert_close(latents[:, [0, 40, 86]], expected, atol=1e-6, rtol=1e-6)


def test_latents_are_standard_normal() -> None:
    latents = PortraitDataset("train").latents(range(4000))
    # Five standard deviations of the mean and of the variance over 4000 draws.
    assert latents.mean(0).abs().max() < 0.08
    assert (latents.var(0) - 1.0).abs().max() < 0.12
    correlation = torch.corrcoef(latents.T).fill_diagonal_(0.0)
    assert correlation.abs().max() < 0.09


def test_splits_share_no_person() -> None:
    identity = group_slice(Group.IDENTITY)
    rows = [PortraitDataset(s, length=1000).latents(range(1000))[:, identity] for s in DETAIL_RATES]
    assert torch.cat(rows).unique(dim=0).shape[0] == 3000


def test_labels_are_those_of_the_latents() -> None:
    batch = PortraitDataset("test").batch(range(8))
    parameters = decode(batch.latents, detail_rate=0.5)
    assert torch.equal(batch.attributes, parameters.attributes)
    assert torch.equal(batch.details, parameters.details)
    torch.testing.assert_close(batch.images, render(parameters))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_detail_rates(split: dataset.Split) -> None:
    portraits = PortraitDataset(split)
    parameters = decode(portraits.latents(range(1000)), detail_rate=portraits.detail_rate)
    assert portraits.detail_rate == DETAIL_RATES[split]
    # Four standard deviations of a rate of one half over 1000 draws are 0.063.
    assert (parameters.details.mean(0) - DETAIL_RATES[split]).abs().max() < 0.064
    assert PortraitDataset(split, detail_rate=1.0, size=16).batch([0]).details.all()


def test_several_pictures_of_each_person() -> None:
    portraits = PortraitDataset("test", length=10, size=16, pictures_per_person=6)
    assert len(portraits) == 60
    batch = portraits.batch(range(54, 60))
    identity = group_slice(Group.IDENTITY)
    assert batch.people.tolist() == [9] * 6
    assert torch.equal(batch.latents[:, identity], batch.latents[:1, identity].expand(6, -1))
    rest = batch.latents[:, identity.stop :]
    assert (rest.sort(0).values.diff(dim=0) > 0.0).all()
    assert torch.equal(batch.latents[:1], PortraitDataset("test").latents([9]))
    assert batch.attributes.shape == (6, len(ATTRIBUTES))
    fewer = PortraitDataset("test", pictures_per_person=5)
    assert torch.equal(fewer.latents([9 * 5 + 4]), batch.latents[4:5])


def test_cache_holds_the_pictures(tmp_path: Path) -> None:
    portraits = PortraitDataset("test", size=16, length=300)
    calls: list[tuple[int, int]] = []
    cached = portraits.cached(tmp_path / "new", progress=lambda *call: calls.append(call))
    assert cached.dtype == torch.uint8
    assert cached.shape == (300, 3, 16, 16)
    assert calls[0] == (64, 300) and calls[-1] == (300, 300) and len(calls) == 5
    images = portraits.batch([0, 299]).images
    # Bytes are the nearest of 256 levels over [-1, 1].
    torch.testing.assert_close(cached[[0, 299]] / 127.5 - 1.0, images, atol=0.5 / 127.5, rtol=1e-4)
    again = portraits.cached(tmp_path / "new", progress=lambda *call: calls.append(call))
    assert torch.equal(again, cached)
    assert len(calls) == 5
    names = [path.name for path in (tmp_path / "new").iterdir()]
    assert len(names) == 1
    assert names[0].startswith("portraits_test_16px_300x1_details0.5_")


def test_cache_names_tell_data_sets_apart() -> None:
    sets = [
        PortraitDataset("test"),
        PortraitDataset("validation"),
        PortraitDataset("test", size=32),
        PortraitDataset("test", length=10),
        PortraitDataset("test", detail_rate=0.25),
        PortraitDataset("test", pictures_per_person=2),
    ]
    assert len({portraits._file_name() for portraits in sets}) == len(sets)


def test_interrupted_cache_leaves_nothing(tmp_path: Path) -> None:
    portraits = PortraitDataset("test", size=16, length=300)

    def interrupt(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        portraits.cached(tmp_path, progress=interrupt)
    assert list(tmp_path.iterdir()) == []
    assert portraits.cached(tmp_path).shape == (300, 3, 16, 16)


def test_errors_name_the_value() -> None:
    with pytest.raises(ValueError, match=r"'dev'.*train, validation, test"):
        PortraitDataset("dev")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"length is 0; accepted"):
        PortraitDataset("test", length=0)
    with pytest.raises(ValueError, match=r"detail_rate is -0\.1; accepted"):
        PortraitDataset("test", detail_rate=-0.1)
    with pytest.raises(ValueError, match=r"size is 4; accepted"):
        PortraitDataset("test", size=4)
    with pytest.raises(ValueError, match=r"pictures_per_person is 0; accepted"):
        PortraitDataset("test", pictures_per_person=0)
    for index in (2824, -1):
        with pytest.raises(IndexError, match=f"{index}.*2824"):
            PortraitDataset("test").batch([index])
