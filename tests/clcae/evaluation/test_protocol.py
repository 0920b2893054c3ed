"""The protocols of configs/protocol, and that their rows are those the papers' tables ask for."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from clcae.evaluation.labels import Label
from clcae.evaluation.networks import Answer, JudgingNetwork
from clcae.evaluation.protocol import Protocol, build_measures, read_protocol
from clcae.evaluation.rows import Row
from clcae.evaluation.subject import check_sizes
from clcae.evaluation.tally import RECONSTRUCTION, Tally, unedited_of
from clcae.tables.comparison import MeasuredRow, compare, metric_of, paper_sheet
from clcae.tables.comparison import protocol_fields as fields_of
from clcae.tables.published import read_paper_table

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
NAMES = sorted(path.stem for path in (CONFIGS / "protocol").glob("*.yaml"))
FACES, CARS = "CelebA-HQ test", "Stanford Cars"


def values_of(name: str) -> dict[str, Any]:
    values = OmegaConf.to_container(OmegaConf.load(CONFIGS / "protocol" / f"{name}.yaml"))
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


def stub(_: str) -> JudgingNetwork:
    """A network of eight numbers in the place of any."""

    def pooled(images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)[:, :8]

    answers = {
        "distance": Answer(lambda x, y: (pooled(x) - pooled(y)).square().mean(dim=1)),
        "embed": Answer(pooled),
        "pooled": Answer(pooled, 8),
        "attributes": Answer(pooled),
    }
    return JudgingNetwork(nn.Identity(), answers)


def row_of(protocol: Protocol, shape: tuple[int, int], images: str, without: str = "") -> Row:
    """A row of real pictures of a shape."""
    kept = [spec for spec in protocol.measures if spec.name != without and not spec.edit]
    measures, missing = build_measures(
        Protocol(protocol.title, protocol.pictures, tuple(kept)), stub
    )
    assert not missing
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(3, 3, 16, 16, generator=generator) * 2 - 1
    targets = torch.nn.functional.interpolate(coarse, size=shape, mode="bilinear")
    tally = Tally(measures)
    tally.update({"W+": {RECONSTRUCTION: (targets * 0.9, targets)}}, ["a", "b", "c"])
    return tally.rows(method="m", num_images=3, extra={"images": images})["W+"]


def test_the_protocols_are_found() -> None:
    expected = ["clcae", "e4e", "portraits", "response", "sfe", "styleres", "true_edits"]
    assert [*expected, "true_edits_curve", "true_edits_far"] == NAMES


@pytest.mark.parametrize(
    ("name", "table", "shape", "images", "without", "columns"),
    [
        ("clcae", "clcae", (256, 256), FACES, "", 6),
        ("e4e", "e4e", (256, 256), FACES, "", 4),
        ("styleres", "styleres_table1", (512, 512), FACES, "", 3),
        ("styleres", "styleres_table2", (384, 512), CARS, "", 3),
        ("sfe", "sfe_table1", (1024, 1024), FACES, "", 4),
        ("sfe", "sfe_table2", (384, 512), CARS, "MS-SSIM", 3),
        ("sfe", "hyperstyle_table2", (1024, 1024), FACES, "MS-SSIM", 2),
    ],
)
def test_rows_of_a_protocol_stand_unmarked_in_its_table(
    name: str, table: str, shape: tuple[int, int], images: str, without: str, columns: int
) -> None:
    row = row_of(read_protocol(values_of(name)), shape, images, without)
    assert all(math.isfinite(value) for value in row.metrics.values())
    paper = read_paper_table(CONFIGS / "table" / f"{table}.yaml")
    found = 0
    for column in paper.columns:
        if metric := metric_of(row, column):
            agreement = compare(column, fields_of(row, metric))
            assert not agreement.differs, (column.name, agreement.differs)
            found += 1
    assert found == columns
    sheet = paper_sheet(paper, [MeasuredRow(row, "results.jsonl")])
    marked = [text for mark, text in sheet.footnotes if str(mark).startswith("†")]
    # What the table says nothing of is compared with nothing, whatever the row says.
    assert all("the table states nothing" in text for text in marked), marked


def test_unknown_fields_are_named_in_the_rows() -> None:
    row = row_of(read_protocol(values_of("clcae")), (256, 256), FACES)
    assert row.protocol["LPIPS"]["not known of the paper"] == "resize, levels"
    assert row.protocol["PSNR"]["not known of the paper"] == "resize, quality"
    assert row.protocol["PSNR"]["files of"] == "outputs"
    assert row.protocol["SSIM"]["window"] == "uniform 21x21, sample covariance"
    cars = row_of(read_protocol(values_of("clcae")), (192, 256), CARS)
    assert cars.protocol["PSNR"]["resolution"] == "192 x 256"
    assert cars.protocol["LPIPS"]["resolution"] == "256 x 256"


def test_pictures_that_are_too_small_are_refused() -> None:
    protocol = read_protocol(values_of("sfe"))
    check_sizes(protocol, (1024, 1024), (1024, 1024))
    with pytest.raises(ValueError, match=r"MS-SSIM: 1024 x 1024 is asked of pictures of 512 x 512"):
        check_sizes(protocol, (512, 512), (512, 512))
    with pytest.raises(ValueError, match="enlarge=true"):
        check_sizes(read_protocol(values_of("portraits")), (64, 64), (48, 48))


@pytest.mark.parametrize(
    ("measure", "said"),
    [
        ({"measure": "fid"}, "measure is 'fid': expected mse"),
        ({"measure": "mse", "sizes": 3}, "has no key sizes; there are area, compressed"),
        ({"measure": "mse", "resize": "cubic"}, "resize is 'cubic'"),
        ({"measure": "mse", "size": [1, 2, 3]}, "size is"),
        ({"measure": "perceptual", "network": "inception"}, "expected one of lpips_alex"),
        ({"measure": "identity"}, "network is None: expected one of curricularface"),
        ({"measure": "ssim", "window": "square"}, "window is 'square': expected one of gaussian 7"),
        ({"measure": "consistency"}, "edit is None"),
        ({"measure": "mse", "edit": "smile+"}, "edit is 'smile+'"),
        ("mse", "is 'mse': expected keys"),
    ],
)
def test_mistakes_are_one_line_that_names_the_place(measure: Any, said: str) -> None:
    with pytest.raises(ValueError, match=r"protocol\.measures\.X") as caught:
        read_protocol({"measures": {"X": measure}})
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "table", "columns"),
    [
        ("styleres", "styleres_table1", {"Smile+ FID": set(), "Smile- FID": set()}),
        # The paper's strength is the best of a grid, which one row is not.
        (
            "sfe",
            "sfe_table1",
            {name: {"strength"} for name in ("Smile (-)", "Glasses (+)", "Old (+)")},
        ),
        ("sfe", "sfe_table4", {"Glasses (+)": {"strength"}}),
    ],
)
def test_rows_of_edits_are_those_of_the_tables(
    name: str, table: str, columns: dict[str, set[str]]
) -> None:
    protocol = read_protocol({**values_of(name), "directions": ["a/smile.npy", "age.npy"]})
    images = torch.rand(6, 3, 512, 512, generator=torch.Generator().manual_seed(0)) * 2 - 1
    names = [str(number) for number in range(6)]
    having = {each: float(number % 2) for number, each in enumerate(names[:5])}
    labels = {edit: Label(having, "as labelled") for edit in protocol.edits}
    measures, missing = build_measures(protocol, stub, labels=labels)
    of_edits = {key: each for key, each in measures.items() if each.labels is not None}
    assert not missing and len(of_edits) == len(protocol.edits)
    tally = Tally(of_edits)
    tally.update({"F": dict.fromkeys(protocol.edits, (images * 0.9, images))}, names)
    row = tally.rows(method="m", num_images=6, extra={"images": FACES})["F"]
    assert set(map(tuple, row.skipped.values())) == {("5",)}  # nobody labelled it
    paper = read_paper_table(CONFIGS / "table" / f"{table}.yaml")
    found = {
        column.name: set(compare(column, fields_of(row, metric)).differs)
        for column in paper.columns
        if (metric := metric_of(row, column))
    }
    assert found == columns
    assert "directions smile.npy, age.npy" in row.protocol[next(iter(of_edits))]["strength"]


def test_changes_are_against_the_unedited_reconstruction() -> None:
    protocol = read_protocol(values_of("portraits"))
    label = Label(lambda x: (x.mean(dim=(1, 2, 3)) > 0).float(), "bright", lambda x: x[:, 0, 0, 0])
    measures, missing = build_measures(protocol, stub, labels=dict.fromkeys(protocol.edits, label))
    assert not missing
    assert measures["change smile+"].stream == unedited_of("smile+") != "smile+"
    assert measures["identity glasses+"].stream == unedited_of("glasses+")
    metric = measures["change smile+"].make()
    metric.update(torch.full((2, 3, 4, 4), 0.75), torch.full((2, 3, 4, 4), 0.5))
    assert metric.compute() == 0.25
    by_name = Label({"a": 1.0}, "with smile in labels.txt")  # says who, and not how much
    labels = dict.fromkeys(protocol.edits, by_name)
    measures, missing = build_measures(protocol, stub, labels=labels)
    assert list(missing) == ["change smile+", "change glasses+"]
    assert "do not say how much" in missing["change smile+"]
    assert measures["FD smile+"].labels and measures["identity smile+"].labels is None


def test_edits_and_the_rest() -> None:
    protocol = read_protocol(values_of("portraits"))
    assert {spec.edit for spec in protocol.measures} == {None, "smile+", "glasses+"}
    without = read_protocol({**values_of("portraits"), "edits": None})
    assert all(spec.edit is None for spec in without.measures)
    assert len(without.measures) == len(protocol.measures) - 10
    reasons = dict.fromkeys(protocol.edits, "not of this generator")
    measures, missing = build_measures(protocol, stub, without=reasons)
    assert len(missing) == 10 and len(measures) == len(without.measures)
    edits = {"smile+": protocol_edit()}
    with pytest.raises(ValueError, match=r"has no 'glasses\+': it has smile\+"):
        read_protocol({**values_of("portraits"), "edits": edits})
    with pytest.raises(ValueError, match=r"protocol\.pictures is 'half'"):
        read_protocol({"pictures": "half", "measures": {"X": {"measure": "mse"}}})
    with pytest.raises(ValueError, match="names nothing"):
        read_protocol({"measures": {}})


def protocol_edit() -> dict[str, Any]:
    return {"direction": "smile", "strength": 1.0, "attribute": "smile", "threshold": 0.0}
