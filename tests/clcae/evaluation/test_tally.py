"""The evaluation loop: every image, every space, every metric, whatever the batch size."""

import math
from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from clcae.data.sources import TensorImages
from clcae.evaluation.sharded import evaluate
from clcae.evaluation.tally import Measure
from clcae.metrics.frechet import EditingFrechetDistance
from clcae.metrics.identity import IdentitySimilarity
from clcae.metrics.reconstruction import MeanSquaredError, mean_squared_error
from clcae.metrics.ssim import StructuralSimilarity


@pytest.fixture
def source() -> TensorImages:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (7, 3, 16, 12), generator=generator, dtype=torch.uint8)
    return TensorImages(pixels=pixels)


def outputs(images: Tensor) -> Mapping[str, Tensor]:
    return {"W": images * 0.5, "W+": images * 0.8, "F": images * 1.5}


def faces(images: Tensor) -> Tensor:
    """Embedding that finds a face in bright images only."""
    bright = images.mean(dim=(1, 2, 3)) > 0
    return torch.where(bright[:, None], images.flatten(1), torch.nan)


MEASURES = {
    "mse": Measure(MeanSquaredError),
    "ssim": Measure(StructuralSimilarity),
    "id": Measure(lambda: IdentitySimilarity(embedder=faces, embedder_name="pixels")),
}


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_rows_do_not_depend_on_the_batch_size(source: TensorImages, batch_size: int) -> None:
    rows = evaluate(
        outputs,
        source,
        method="scaled",
        measures=MEASURES,
        batch_size=batch_size,
    )
    assert list(rows) == ["W", "W+", "F"]
    images = source.images(range(7))
    bright = (images.mean(dim=(1, 2, 3)) > 0).tolist()
    for space, result in outputs(images).items():
        row = rows[space]
        assert (row.method, row.space, row.num_images) == ("scaled", space, 7)
        expected = float(mean_squared_error(result.clamp(-1, 1), images).mean())
        assert row.metrics["mse"] == pytest.approx(expected, rel=1e-12)
        assert row.skipped == {"id": [f"{i:06d}" for i in range(7) if not bright[i]]}
        assert row.extra["num_counted"] == {"mse": 7, "ssim": 7, "id": sum(bright)}
    assert {"torch", "python", "numpy"} <= rows["W"].versions.keys()


def test_protocol_says_what_the_number_means(source: TensorImages) -> None:
    row = evaluate(outputs, source, method="m", measures=MEASURES, batch_size=4)["W"]
    assert row.protocol["mse"] == {
        "levels": "continuous",
        "scale": "[-1, 1]",
        "direction": "lower",
        "range": "[0, 4]",
        "resolution": "16 x 12",
        "outputs": "clamped to [-1, 1]",
    }


def test_metric_that_judges_no_image_is_nan(source: TensorImages) -> None:
    blind = {
        "id": Measure(
            lambda: IdentitySimilarity(
                embedder=lambda images: torch.full((len(images), 2), torch.nan),
                embedder_name="blind",
            )
        )
    }
    row = evaluate(outputs, source, method="m", measures=blind, batch_size=4)["W"]
    assert math.isnan(row.metrics["id"])
    assert len(row.skipped["id"]) == 7


def test_where_all_have_the_attribute_nobody_is_said_to_be_unknown(source: TensorImages) -> None:
    def metric() -> EditingFrechetDistance:
        return EditingFrechetDistance(
            features=lambda x: x.flatten(1)[:, :2],
            features_name="pixels",
            dimension=2,
            labels=lambda x: torch.ones(len(x)),
            attribute="bright",
        )

    row = evaluate(outputs, source, method="m", measures={"FD": Measure(metric)}, batch_size=4)["W"]
    assert "has 0 outputs and 7 targets" in row.extra["without_value"]["FD"]


def test_nan_output_is_an_error(source: TensorImages) -> None:
    with pytest.raises(ValueError, match="without NaN"):
        evaluate(
            lambda images: {"W": images * torch.nan},
            source,
            method="m",
            measures=MEASURES,
            batch_size=4,
        )


def test_spaces_must_not_change_between_batches(source: TensorImages) -> None:
    with pytest.raises(ValueError, match=r"spaces \['F'\] after \['W'\]"):
        evaluate(
            lambda images: {"W" if len(images) == 4 else "F": images},
            source,
            method="m",
            measures=MEASURES,
            batch_size=4,
        )


def test_batch_size_must_be_positive(source: TensorImages) -> None:
    with pytest.raises(ValueError, match="7 images in batches of 0"):
        evaluate(outputs, source, method="m", measures=MEASURES, batch_size=0)
