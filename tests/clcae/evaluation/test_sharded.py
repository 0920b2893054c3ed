"""A pass in parts: shared, stopped and continued, it gives what one pass gives, digit for digit."""

import gc
import os
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from clcae.data.folder import ImageFolder
from clcae.data.sources import TensorImages
from clcae.evaluation.sharded import EvaluationPass, evaluate
from clcae.evaluation.states import (
    ABANDONED,
    Part,
    collect_unfinished,
    read_part,
    remove_finished,
    write_part,
)
from clcae.evaluation.tally import RECONSTRUCTION, Measure, Observations, Tally
from clcae.files import locked
from clcae.images import read_image
from clcae.metrics.editing import EditingConsistency
from clcae.metrics.frechet import EditingFrechetDistance, FrechetDistance
from clcae.metrics.identity import IdentitySimilarity
from clcae.metrics.kernel import KernelDistance
from clcae.metrics.manifold import Precision
from clcae.metrics.metric import Metric
from clcae.metrics.reconstruction import MeanSquaredError
from clcae.metrics.ssim import StructuralSimilarity

COUNT = 61


def features(images: Tensor) -> Tensor:
    return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def faces(images: Tensor) -> Tensor:
    """An embedding that finds a face in bright images only."""
    bright = images.mean(dim=(1, 2, 3)) > 0
    return torch.where(bright[:, None], features(images), torch.nan)


def of_sets(kind: Callable[..., Metric]) -> Measure:
    return Measure(lambda: kind(features=features, features_name="means", dimension=12))


MEASURES = {
    "MSE": Measure(MeanSquaredError),
    "SSIM": Measure(StructuralSimilarity),
    "ID": Measure(
        lambda: IdentitySimilarity(embedder=faces, embedder_name="f"), reason="no face was found"
    ),
    "FD": of_sets(FrechetDistance),
    "KD": of_sets(KernelDistance),
    "precision": of_sets(Precision),
    "FD edited": Measure(
        lambda: EditingFrechetDistance(
            features=features,
            features_name="means",
            dimension=12,
            labels=lambda x: (x.mean(dim=(1, 2, 3)) > 0).float(),
            attribute="bright",
        )
    ),
    "LEC": Measure(lambda: EditingConsistency(edit="e"), preparation=None, stream="codes"),
}


def observe(images: Tensor) -> Observations:
    codes = images.flatten(1)[:, None, :5]
    return {
        space: {RECONSTRUCTION: (images * factor, images), "codes": (codes * factor, codes)}
        for space, factor in {"W": 0.5, "W+": 0.8, "F": 1.2}.items()
    }


@pytest.fixture(scope="module")
def source() -> TensorImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (COUNT, 3, 16, 12), generator=generator, dtype=torch.uint8)
    return TensorImages(pixels=pixels)


def evaluation(source: TensorImages, folder: Path, **changes: object) -> EvaluationPass:
    given = {
        "source": source,
        "observe": observe,
        "measures": MEASURES,
        "batch_size": 4,
        "folder": folder,
        "num_parts": 3,
        "save_every": 8,
    }
    return EvaluationPass(**{**given, **changes})  # type: ignore[arg-type]


def bytes_of_tensors() -> int:
    """Of all that are alive, each storage once; a compiler's fake ones have none."""
    tensors = [entry for entry in gc.get_objects() if type(entry) is Tensor]
    storages = [tensor.untyped_storage() for tensor in tensors]
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def values(part: Part) -> dict[str, dict[str, float]]:
    rows = part.tally.rows(method="m", num_images=part.num_images)
    return {space: dict(row.metrics) for space, row in rows.items()}


def test_processes_and_stops_change_no_digit(source: TensorImages, tmp_path: Path) -> None:
    alone = evaluation(source, tmp_path / "one")
    alone.run()
    expected = alone.merged()
    assert expected.num_images == COUNT and len(values(expected)["W"]) == len(MEASURES)
    shared = evaluation(source, tmp_path / "two")
    for rank in (1, 0):
        shared.run(rank=rank, world_size=2)
    assert values(shared.merged()) == values(expected)
    assert shared.merged().tally.skipped == expected.tally.skipped

    left = 7  # batches until it is stopped, in the middle of a part that was saved before

    def stopping(images: Tensor) -> Observations:
        nonlocal left
        left -= 1
        if left < 0:
            raise KeyboardInterrupt
        return observe(images)

    stopped = evaluation(source, tmp_path / "three", observe=stopping)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    with pytest.raises(ValueError, match="is not finished"):
        stopped.merged()
    seen: list[int] = []
    done: list[int] = []

    def counting(images: Tensor) -> Observations:
        seen.append(len(images))
        return observe(images)

    again = evaluation(source, tmp_path / "three", observe=counting)
    again.run(progress=done.append)
    assert values(again.merged()) == values(expected)
    assert sum(seen) < COUNT - 20 and sum(done) == COUNT
    again.run()
    assert sum(seen) < COUNT - 20  # nothing was left to do
    again.states.clear()
    assert not (tmp_path / "three").exists()


def test_it_agrees_with_the_pass_in_memory(source: TensorImages, tmp_path: Path) -> None:
    names = ["MSE", "SSIM", "ID", "FD", "KD", "precision"]
    measures = {name: MEASURES[name] for name in names}
    whole = evaluation(source, tmp_path, batch_size=7, measures=measures)
    whole.run()
    rows = evaluate(
        lambda images: {space: pair[RECONSTRUCTION][0] for space, pair in observe(images).items()},
        source,
        method="m",
        measures=measures,
        batch_size=61,
    )
    made = whole.merged().tally.rows(method="m", num_images=COUNT)
    for space, row in rows.items():
        for name in names:
            assert made[space].metrics[name] == pytest.approx(row.metrics[name], rel=1e-6)
            assert made[space].protocol[name] == row.protocol[name]
        assert made[space].skipped["ID"] == row.skipped["ID"]
        assert row.extra["reasons"] == {"ID": "no face was found"}


def test_what_cannot_be_read_is_left_out_by_name(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for index in range(9):
        Image.new("RGB", (12, 12), (index * 20, 50, 90)).save(photos / f"{index}.png")
    (photos / "4.png").write_bytes(b"nothing")
    (photos / "7.png").write_bytes((photos / "3.png").read_bytes()[:45])
    source = ImageFolder(root=photos, size=12)
    part = evaluation(source, tmp_path / "states", batch_size=2)  # type: ignore[arg-type]
    part.run()
    merged = part.merged()
    assert merged.num_images == 7 and sorted(merged.left_out) == ["4.png", "7.png"]
    assert all("cannot be read" in reason for reason in merged.left_out.values())
    for file in photos.iterdir():
        file.write_bytes(b"nothing")
    none = evaluation(source, tmp_path / "none")  # type: ignore[arg-type]
    none.run()
    with pytest.raises(ValueError, match=r"none of 9 pictures can be read: 0\.png: "):
        none.merged()


def test_reconstructions_are_kept(source: TensorImages, tmp_path: Path) -> None:
    kept = evaluation(source, tmp_path / "states", pictures=tmp_path / "pictures")
    kept.run()
    folders = sorted(path.name for path in (tmp_path / "pictures").iterdir())
    assert folders == ["F", "W", "W+"]
    for index in (0, 60):
        picture = read_image(tmp_path / "pictures" / "W+" / f"{index:06d}.png")
        expected = source.images([index])[0] * 0.8
        assert (picture - expected).abs().max() <= 1 / 254
    assert len(list((tmp_path / "pictures" / "F").iterdir())) == COUNT


def test_names_that_differ_in_their_ending_keep_it(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "b.png"):
        Image.new("RGB", (12, 12), (90, 50, 90)).save(tmp_path / name)
    source = ImageFolder(root=tmp_path, size=12)
    kept = evaluation(source, tmp_path / "s", pictures=tmp_path / "out")  # type: ignore[arg-type]
    kept.run()
    names = sorted(path.name for path in (tmp_path / "out" / "W").iterdir())
    assert names == ["a.jpg.png", "a.png.png", "b.png"]


def test_a_picture_that_is_not_finite_is_named(source: TensorImages, tmp_path: Path) -> None:
    def broken(images: Tensor) -> Observations:
        pictures = images.clone()
        pictures[1] = torch.nan
        return {"W": {RECONSTRUCTION: (pictures, images)}}

    measures = {"MSE": MEASURES["MSE"]}
    with pytest.raises(ValueError, match=r"pictures of W .* without NaN, not so: 000001"):
        evaluation(source, tmp_path, observe=broken, measures=measures).run()


def test_one_image_has_no_distance_of_sets_and_says_so() -> None:
    single = TensorImages(pixels=torch.zeros(1, 3, 16, 12, dtype=torch.uint8))
    measures = {"MSE": MEASURES["MSE"], "FD": MEASURES["FD"]}
    row = evaluate(lambda x: {"W": x}, single, method="m", measures=measures, batch_size=1)["W"]
    assert row.metrics["MSE"] == 0 and row.metrics["FD"] != row.metrics["FD"]
    assert "it needs two or more" in row.extra["without_value"]["FD"]


def test_states_come_back_and_damage_is_told(source: TensorImages, tmp_path: Path) -> None:
    tally = Tally(MEASURES)
    for start in range(0, 20, 4):
        batch = range(start, start + 4)
        tally.update(observe(source.images(batch)), [source.name(i) for i in batch])
    part = Part(tally=tally, batches=1, num_images=20, left_out={"ä": "reason"})
    write_part(part, tmp_path / "part.safetensors")
    back = read_part(tmp_path / "part.safetensors", MEASURES)
    assert (back.batches, back.num_images, back.left_out) == (1, 20, {"ä": "reason"})
    assert back.tally.skipped == tally.skipped and back.tally.shapes == tally.shapes
    for space, metrics in values(back).items():
        for name, value in metrics.items():
            assert value == pytest.approx(values(part)[space][name], rel=1e-12), name
    data = (tmp_path / "part.safetensors").read_bytes()
    for damaged in (data[:200], b"", data.replace(b"num_images", b"num_imagex")):
        (tmp_path / "part.safetensors").write_bytes(damaged)
        with pytest.raises(ValueError, match="a damaged part of an evaluation") as caught:
            read_part(tmp_path / "part.safetensors", MEASURES)
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_of_a_part_is_noticed_and_measured_again(
    source: TensorImages, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = evaluation(source, tmp_path / "a")
    whole.run()
    expected, path = values(whole.merged()), tmp_path / "a" / "part-001.safetensors"
    data, rng = path.read_bytes(), random.Random(0)
    for _ in range(200):
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        with pytest.raises(ValueError, match="a damaged part of an evaluation"):
            read_part(path, MEASURES)
    whole.run()
    assert values(whole.merged()) == expected
    assert "part-001.safetensors: a damaged part" in caplog.text and "measured again" in caplog.text


def test_parts_that_nobody_continues_go_and_nothing_else(tmp_path: Path) -> None:
    root = tmp_path / "rows.jsonl.unfinished"
    old, new, theirs, locked_one = (root / (digit * 16) for digit in "0123")
    for folder in (old, new, theirs, locked_one, root / "notes"):
        folder.mkdir(parents=True)
        (folder / "part-000.safetensors").touch()
        (folder / ".part-001.safetensors.0123abcd.partial").touch()
    (theirs / "notes.txt").touch()
    past = time.time() - ABANDONED - 60
    for path in [*root.rglob("*")]:
        if new not in (path, path.parent):
            os.utime(path, (past, past))
    with locked(locked_one) as held:
        assert held
        collect_unfinished(root)
    assert sorted(path.name for path in root.iterdir()) == ["1" * 16, "2" * 16, "3" * 16, "notes"]


def test_states_of_a_finished_pass_go_unless_a_process_has_them(tmp_path: Path) -> None:
    one, other = (tmp_path / "r.jsonl.unfinished" / name for name in ("1" * 16, "2" * 16))
    for folder in (one, other):
        folder.mkdir(parents=True)
        (folder / "part-000.safetensors").touch()
    with locked(other):
        remove_finished(one)
        remove_finished(other)
        assert not one.exists() and other.exists()
    remove_finished(other)
    assert not list(tmp_path.iterdir())
    remove_finished(other)  # there is none


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    class Endless(TensorImages):
        def __len__(self) -> int:
            return 4000

        def images(self, indices: Sequence[int] | Tensor) -> Tensor:
            return super().images([0] * len(indices))

    source = Endless(pixels=torch.zeros(1, 3, 16, 12, dtype=torch.uint8))
    asked, held = [], []

    def watched(images: Tensor) -> Observations:
        asked.append(len(images))
        if len(asked) % 5 == 0:
            held.append(bytes_of_tensors())
        return {"W": {RECONSTRUCTION: (images, images)}}

    measures = {"MSE": MEASURES["MSE"], "FD": MEASURES["FD"]}
    whole = evaluation(source, tmp_path, observe=watched, measures=measures, batch_size=100)
    whole.run()
    sizes = [path.stat().st_size for path in tmp_path.iterdir()]
    assert len(sizes) == 3 and sum(asked) == 4000
    # Read ahead by threads, so that some batches more or fewer lie there.
    assert max(held[4:]) < max(held[1:4]) + 4 * 100 * 3 * 16 * 12 * 4
    # 8 bytes an image, and moments of 12 dimensions twice.
    assert max(sizes) < 8 * 1400 + 2 * 8 * (12 * 12 + 12) + 4000


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"num_parts": 0}, {"save_every": 0}])
def test_nothing_to_evaluate(source: TensorImages, tmp_path: Path, wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="nothing to evaluate"):
        evaluation(source, tmp_path, **wrong)
