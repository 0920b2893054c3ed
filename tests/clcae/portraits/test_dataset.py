"""The data set: addressed by index, disjoint by split, cached whole."""

import random
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from clcae.data.sources import ImageSource
from clcae.portraits import (
    ATTRIBUTES,
    DETAIL_RATES,
    NUM_LATENTS,
    NUM_PLAIN_LATENTS,
    Group,
    PortraitImages,
    dataset,
    decode,
    group_slice,
    render,
)


def test_lengths_of_the_splits() -> None:
    lengths = {split: len(PortraitImages(split=split)) for split in ("train", "validation", "test")}
    assert lengths == {"train": 65536, "validation": 1024, "test": 2824}
    assert len(PortraitImages(split="test", num_people=5)) == 5


def test_latents_are_the_same_whatever_is_asked() -> None:
    portraits = PortraitImages(split="test")
    whole = portraits.latents(range(100))
    assert whole.shape == (100, NUM_LATENTS)
    assert whole.dtype == torch.float32
    assert torch.equal(portraits.latents([42, 7]), whole[[42, 7]])
    assert torch.equal(
        PortraitImages(split="test", num_people=50).latents(torch.tensor([42])), whole[42:43]
    )


def test_latents_are_pinned() -> None:
    # Drawn once by this code: another value means that every trained asset has lost its data.
    latents = PortraitImages(split="train").latents([0, 65535])
    expected = torch.tensor([[-0.444731, -1.962694, -0.45876], [-0.193271, -0.658991, 1.131598]])
    torch.testing.assert_close(latents[:, [0, 40, 86]], expected, atol=1e-6, rtol=1e-6)


def test_latents_are_standard_normal() -> None:
    latents = PortraitImages(split="train").latents(range(4000))
    # Five standard deviations of the mean and of the variance over 4000 draws.
    assert latents.mean(0).abs().max() < 0.08
    assert (latents.var(0) - 1.0).abs().max() < 0.12
    correlation = torch.corrcoef(latents.T).fill_diagonal_(0.0)
    assert correlation.abs().max() < 0.09


def test_splits_share_no_person() -> None:
    identity = group_slice(Group.IDENTITY)
    rows = [
        PortraitImages(split=s, num_people=1000).latents(range(1000))[:, identity]
        for s in DETAIL_RATES
    ]
    assert torch.cat(rows).unique(dim=0).shape[0] == 3000


def test_labels_are_those_of_the_latents() -> None:
    batch = PortraitImages(split="test").batch(range(8))
    parameters = decode(batch.latents, detail_rate=0.5)
    assert torch.equal(batch.attributes, parameters.attributes)
    assert torch.equal(batch.details, parameters.details)
    torch.testing.assert_close(batch.images, render(parameters))


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_detail_rates(split: dataset.Split) -> None:
    portraits = PortraitImages(split=split)
    parameters = decode(portraits.latents(range(1000)), detail_rate=portraits.detail_rate)
    assert portraits.detail_rate == DETAIL_RATES[split]
    # Four standard deviations of a rate of one half over 1000 draws are 0.063.
    assert (parameters.details.mean(0) - DETAIL_RATES[split]).abs().max() < 0.064
    assert PortraitImages(split=split, detail_rate=1.0, size=16).batch([0]).details.all()


def test_several_pictures_of_each_person() -> None:
    portraits = PortraitImages(split="test", num_people=10, size=16, pictures_per_person=6)
    assert len(portraits) == 60
    batch = portraits.batch(range(54, 60))
    identity = group_slice(Group.IDENTITY)
    assert batch.people.tolist() == [9] * 6
    assert torch.equal(batch.latents[:, identity], batch.latents[:1, identity].expand(6, -1))
    rest = batch.latents[:, identity.stop :]
    assert (rest.sort(0).values.diff(dim=0) > 0.0).all()
    assert torch.equal(batch.latents[:1], PortraitImages(split="test").latents([9]))
    assert batch.attributes.shape == (6, len(ATTRIBUTES))
    fewer = PortraitImages(split="test", pictures_per_person=5)
    assert torch.equal(fewer.latents([9 * 5 + 4]), batch.latents[4:5])


def test_cache_holds_the_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "new"
    portraits = PortraitImages(split="test", size=16, num_people=300, cache=cache)
    portraits.attributes([0, 1])
    assert not cache.exists()  # nothing is drawn before it is asked for
    images = portraits.images(range(300))
    assert images.shape == (300, 3, 16, 16)
    drawn = portraits.batch([0, 299]).images
    # Bytes are the nearest of 256 levels over [-1, 1].
    torch.testing.assert_close(images[[0, 299]], drawn, atol=0.5 / 127.5, rtol=1e-4)
    monkeypatch.setattr(dataset, "render", None)  # drawn once
    again = PortraitImages(split="test", size=16, num_people=300, cache=cache)
    assert torch.equal(again.images(range(300)), images)
    (path,) = cache.iterdir()
    assert path.name.startswith("portraits_test_16px_300x1_details0.5_")


def test_a_flipped_bit_of_the_cache_is_noticed_and_drawn_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def pictures() -> torch.Tensor:
        return PortraitImages(split="test", size=16, num_people=70, cache=tmp_path).images(
            range(70)
        )

    expected = pictures()
    (path,) = tmp_path.iterdir()
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(5):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        assert torch.equal(pictures(), expected)
        assert "is damaged: drawn again" in capsys.readouterr().err
    path.write_bytes(data[:1000])
    assert torch.equal(pictures(), expected)


def test_what_a_killed_process_left_of_a_cache_goes(tmp_path: Path) -> None:
    ours = tmp_path / ".portraits_test_16px_9x1_details0.5_0123456789ab.npy.0123abcd.partial"
    theirs = [tmp_path / name for name in (".notes.npy.0123abcd.partial", "notes.partial")]
    for path in (ours, *theirs):
        path.touch()
    PortraitImages(split="test", size=16, num_people=3, cache=tmp_path).images([0])
    assert not ours.exists() and all(path.exists() for path in theirs)


def test_cache_names_tell_data_sets_apart() -> None:
    sets = [
        PortraitImages(split="test"),
        PortraitImages(split="validation"),
        PortraitImages(split="test", size=32),
        PortraitImages(split="test", num_people=10),
        PortraitImages(split="test", detail_rate=0.25),
        PortraitImages(split="test", pictures_per_person=2),
    ]
    assert len({portraits._file_name() for portraits in sets}) == len(sets)


def test_interrupted_cache_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    portraits = PortraitImages(split="test", size=16, num_people=300, cache=tmp_path)
    draws: list[int] = []

    def interrupt(*arguments: object, size: int) -> torch.Tensor:
        draws.append(size)
        if len(draws) > 2:
            raise KeyboardInterrupt
        return torch.zeros(64, 3, size, size)

    monkeypatch.setattr(dataset, "render", interrupt)
    with pytest.raises(KeyboardInterrupt):
        portraits.images([0])
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    assert portraits.images([0]).shape == (1, 3, 16, 16)


def test_an_image_source_of_several_pictures_of_a_person(tmp_path: Path) -> None:
    source = PortraitImages(
        split="validation", cache=tmp_path, size=32, num_people=5, pictures_per_person=2
    )
    assert isinstance(source, ImageSource)
    rows = torch.tensor([7, 0, 3])
    portraits = source.batch(rows)
    torch.testing.assert_close(source.images(rows), portraits.images, rtol=0, atol=1.01 / 255)
    torch.testing.assert_close(source.attributes(rows), portraits.attributes)
    assert source.people(rows).tolist() == portraits.people.tolist() == [3, 0, 1]
    assert torch.equal(source.plain_latents(rows), portraits.latents[:, :NUM_PLAIN_LATENTS])
    assert source.name(7) == "validation/00007"


def test_errors_name_the_value() -> None:
    with pytest.raises(ValueError, match=r"'dev'.*train, validation, test"):
        PortraitImages(split="dev")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"num_people is 0; accepted"):
        PortraitImages(split="test", num_people=0)
    with pytest.raises(ValueError, match=r"detail_rate is -0\.1; accepted"):
        PortraitImages(split="test", detail_rate=-0.1)
    with pytest.raises(ValueError, match=r"size is 4; accepted"):
        PortraitImages(split="test", size=4)
    with pytest.raises(ValueError, match=r"pictures_per_person is 0; accepted"):
        PortraitImages(split="test", pictures_per_person=0)
    for index in (2824, -1):
        with pytest.raises(IndexError, match=f"{index}.*2824"):
            PortraitImages(split="test").batch([index])


def test_threads_of_one_process_draw_once_and_are_no_other_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = PortraitImages(split="test", cache=tmp_path, size=16, num_people=200)
    with ThreadPoolExecutor(4) as threads:
        batches = list(threads.map(source.images, [range(200)] * 4))
    assert all(torch.equal(batch, batches[0]) for batch in batches)
    assert "another process" not in capsys.readouterr().err
