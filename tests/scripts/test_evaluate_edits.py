"""evaluate.py measures edits: directions, annotations, and what is said where something lacks."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import CPU, PIXELS, command, config_of, rows_of, write_portraits
from official_files import e4e_to_checkpoint
from small_methods import small_clcae, small_e4e, small_styleres, write_directions, write_method

import clcae
from clcae.data.generated import GeneratedCodes
from clcae.evaluation.rows import read_rows
from clcae.images import read_image, to_uint8
from clcae.portraits import PortraitImages
from clcae.pretrained.assets import portraits_judges
from editing import load_directions, move_of
from scripts.evaluate import evaluate, report


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_annotations_say_who_has_an_attribute(here: Path) -> None:
    photos = write_portraits(here / "photos", 24, size=64)
    lines = [f"{index:03d}.jpg {1 if index % 3 else -1} 1" for index in range(23)]  # one is unknown
    (here / "labels.txt").write_text("\n".join(["23", "Smiling Young", *lines]) + "\n")
    entry = {"direction": "smile", "strength": -1.0, "attribute": "Smiling"}
    config = config_of(f"data={photos}", "outputs=F")
    config["protocol"] |= {
        "edits": {"smile-": entry, "lost": {**entry, "direction": "hat"}},
        "labels": "labels.txt",
        "measures": {
            "FD smile-": {"measure": "editing_frechet", "network": "portraits", "edit": "smile-"},
            "FD lost": {"measure": "editing_frechet", "network": "portraits", "edit": "lost"},
        },
    }
    row = evaluate(config, data="folder", device=CPU)[0]
    images = PortraitImages(split="test", size=64).batch(list(range(23))).images
    images = to_uint8(images).float() / 127.5 - 1
    method, judges = clcae.load_method("portraits/clcae"), portraits_judges()
    smile = load_directions("portraits")["smile"]
    smiling = torch.arange(23) % 3 != 0
    with torch.inference_mode():
        inversion = method.invert(images)
        edited = method.synthesize(method.edit(inversion, move_of([(smile, -1.0)]))).clamp(-1, 1)
        sets = [judges.pooled(edited[smiling]), judges.pooled(images[~smiling])]
    mean, covariance = zip(*((x.double().mean(0), x.double().T.cov()) for x in sets), strict=True)
    root = torch.linalg.eigvals(covariance[0] @ covariance[1]).real.clamp(min=0).sqrt().sum()
    trace = covariance[0].trace() + covariance[1].trace()
    expected = (mean[0] - mean[1]).square().sum() + trace - 2 * root
    assert row.metrics["FD smile-"] == pytest.approx(float(expected), rel=1e-3)
    assert row.protocol["FD smile-"]["attribute"] == "without Smiling in labels.txt"
    assert row.skipped["FD smile-"] == ["023.png"]
    assert "no direction is called 'hat'" in row.extra["without_value"]["FD lost"]
    assert len(row.extra["weights"]["labels.txt"]) == 64


def test_what_the_edits_of_faces_lack_is_said(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_portraits(here / "photos", 3, size=64)
    given = ["protocol=sfe", f"data={photos}", "enlarge=true"]
    nulls = ["protocol.measures.MS-SSIM=null", "outputs=W"]
    assert command(*given, *nulls) == 0
    err = capsys.readouterr().err
    assert "without FID smile-, FID glasses+, FID age+: no directions of this generator" in err
    assert command(*given, *nulls, "protocol.directions=portraits") == 0
    err = capsys.readouterr().err
    assert "without FID smile-: nothing says who has 'Smiling': protocol.labels=FILE" in err
    assert "without FID glasses+: no direction is called 'eyeglasses': " in err


def test_edits_of_another_generator_leave_the_rest(here: Path) -> None:
    method_file = write_method(small_clcae(), here / "small.safetensors")
    nulls = [each for each in PIXELS if "edits" not in each]
    rows = rows_of(f"method={method_file}", *nulls, "+data.size=32", "data.num_people=3")
    assert math.isfinite(rows[0].metrics["MSE"]) and math.isnan(rows[0].metrics["LEC smile+"])
    assert "found for another generator" in rows[0].extra["without_value"]["LEC smile+"]


def test_response_and_drift_on_generated_codes(here: Path) -> None:
    """The columns against one code at a time, in plain numpy."""
    rows = rows_of("data.num_codes=6", "protocol=response", "outputs=[W,F]", data="generated")
    method = clcae.load_method("portraits/clcae")
    direction = load_directions("portraits")["yaw"]
    for row in rows:
        own, shares, drifts = method.with_output(row.space), [], []
        for index in range(6):
            z = GeneratedCodes(dimension=method.generator.z_dim).images([index]).flatten(1)
            codes = method.generator.map(z)[:, None].expand(-1, method.generator.num_codes, -1)
            moved = move_of([(direction, 1.0)])(codes)
            pictures = [method.generator.synthesize(w).clamp(-1, 1) for w in (codes, moved)]
            inversions = [own.invert(picture) for picture in pictures]
            before, after = (inversion.codes.double().numpy() for inversion in inversions)
            move = (moved - codes).double().numpy()
            shares.append(((after - before) * move).sum() / (move**2).sum())
            again = own.invert(own.synthesize(inversions[0])).codes.double().numpy()
            drifts.append(np.sqrt(((again - before) ** 2).sum()))
        assert row.metrics["response yaw"] == pytest.approx(np.mean(shares), rel=1e-5)
        assert row.metrics["drift"] == pytest.approx(np.mean(drifts), rel=1e-5)
        assert row.extra["images"] == "generated" and row.num_images == 6
        assert row.protocol["response yaw"]["strength"] == "+1 units of yaw, directions portraits"


def test_an_official_file_responds_without_pictures_and_judges(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(e4e_to_checkpoint(small_e4e()), here / "e4e.pt")
    directions = write_directions(here / "directions.safetensors")
    given = [
        *("method=e4e.pt", "data=generated", "data.num_codes=5", "protocol=response"),
        *(f"protocol.directions={directions}", "protocol.edits.smile.direction=a"),
    ]
    assert command(*given) == 0
    out, err = capsys.readouterr()
    (row,) = read_rows("results.jsonl")
    assert math.isfinite(row.metrics["response smile"]) and row.metrics["drift"] > 0
    assert "5 images of generated" in out
    assert "without response yaw: no direction is called 'yaw': a, b, ab" in err


def test_a_native_file_of_styleres(here: Path) -> None:
    method_file = write_method(small_styleres(), here / "styleres.safetensors")
    directions = write_directions(here / "directions.safetensors")
    given = [f"protocol.directions={directions}", "+data.size=32", "data.num_people=3"]
    config = config_of(f"method={method_file}", *given)
    measures = config["protocol"]["measures"]
    config["protocol"]["measures"] = {name: measures[name] for name in ("MSE", "LEC smile+")}
    config["protocol"]["edits"]["smile+"]["direction"] = "a"
    rows = evaluate(config, data="portraits_test", device=CPU)
    assert [row.space for row in rows] == ["W+", "F"]
    assert all(math.isfinite(row.metrics["LEC smile+"]) for row in rows)
    method = clcae.load_method(method_file)
    images = PortraitImages(split="test", size=32).batch([0, 1, 2]).images
    for row, output in zip(rows, ("W+", "F"), strict=True):
        with torch.inference_mode():
            error = to_uint8(method.reconstruct(images, output)).float() - to_uint8(images).float()
        assert row.metrics["MSE"] == pytest.approx(float((error / 127.5).square().mean()), rel=1e-4)


def test_response_is_not_of_pictures(here: Path) -> None:
    (row,) = rows_of("data.num_people=2", "protocol=response", "outputs=W")
    assert (
        row.extra["without_value"]["response smile"] == "it is of generated codes: data=generated"
    )
    assert math.isfinite(row.metrics["drift"])


def test_true_edits(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With the shipped encoder's W: a table of means, one of the edits, a sheet for each person."""
    given = ["data=portraits_true_edits", "protocol=true_edits", "data.num_people=2", "outputs=W"]
    assert command(*given, "save=sheets") == 0
    row = read_rows(here / "results.jsonl")[0]
    assert len(row.metrics) == 15 * 10 and all(map(math.isfinite, row.metrics.values()))
    assert row.protocol["PSNR changed yaw-"]["edit"] == "yaw -0.5"
    edits = [row.metrics[f"reached {name}"] for name in row.extra["config"]["protocol"]["edits"]]
    assert row.metrics["reached"] == pytest.approx(sum(edits) / 9)
    # Turning the true portrait turns its inversion; a true smile does not reach the codes of W.
    assert row.metrics["ceiling change yaw+"] > 0.3 > 0.1 > row.metrics["ceiling change smile+"]
    out = capsys.readouterr().out
    assert "| W, smile+ |" in out and "2 images of portraits true edits" in out
    assert read_image(here / "sheets" / "W" / "edits" / "00001.png").shape == (3, 9 * 64, 5 * 64)
    assert command(*given) == 0 and "finished before" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["protocol=true_edits"], "it is of true edits: data=portraits_true_edits"),
        (["data=portraits_true_edits"], "the protocol has no true edits: protocol=true_edits"),
        (
            ["data=portraits_true_edits", "protocol=true_edits", "data.edits={yaw-: [-0.25]}"],
            "no edit 'yaw-' of -0.5; there are yaw- -0.25",
        ),
        (
            ["data=portraits_true_edits", "protocol=true_edits", "data.edits=[hair+]"],
            "data.edits has 'hair+': the protocol has smile+, smile-,",
        ),
        (
            ["data=portraits_true_edits", "protocol=true_edits", "data.edits=hair+"],
            "data.edits has 'hair+'",
        ),
    ],
)
def test_true_edits_need_their_data_and_protocol(
    here: Path, capsys: pytest.CaptureFixture[str], given: list[str], said: str
) -> None:
    sizes = ["data.num_people=1", "outputs=W"]
    assert command(*given, *sizes) in (1, 2)
    err = capsys.readouterr().err
    assert said in err and len(err.splitlines()) == 1
    assert not (here / "results.jsonl").exists()  # no row without a value


def test_a_direction_that_lacks_is_said_once(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["data=portraits_true_edits", "protocol=true_edits", "data.num_people=1", "outputs=W"]
    config = config_of(*given)
    edits = config["protocol"]["edits"]
    config["protocol"]["edits"] = {
        "smile+": edits["smile+"],
        "yaw+": {**edits["yaw+"], "direction": "lost"},
    }
    (row,) = evaluate(config, data="portraits_true_edits", device=CPU)
    said = next(line for line in capsys.readouterr().err.splitlines() if "lost" in line)
    assert "without PSNR changed, perceptual changed," in said and "changed yaw+" not in said
    assert math.isfinite(row.metrics["reached smile+"])


TRUE = ["data=portraits_true_edits", "protocol=true_edits", "data.num_people=1", "outputs=W"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["data.edits={smile+: 0.5}"], "data.edits.smile+ is 0.5, expected a list"),
        (["data.edits=5"], "data.edits is 5, expected a list or keys with values or null"),
        (["batch_size=0"], "batch_size is 0, expected at least 1"),
        (["batch_size=x"], "batch_size is 'x', expected a whole number or null"),
        (["data=generated", "data.num_codes=2"], "it is of true edits: data=portraits_true_edits"),
    ],
)
def test_mistakes_about_true_edits_are_one_line(
    here: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    of_data = any(one.startswith("data=") for one in arguments)
    given = [one for one in TRUE if not (of_data and one.startswith("data"))]
    assert command(*given, *arguments) > 0
    assert message in (line := capsys.readouterr().err) and line.count("\n") == 1
    assert not (here / "results.jsonl").exists()


def test_true_edits_move_the_attribute_that_is_judged(here: Path) -> None:
    config = config_of(*TRUE, "data.edits=[smile+]")
    smile = config["protocol"]["edits"]["smile+"]
    config["protocol"]["edits"] = {"smile+": {**smile, "attribute": "age"}}
    with pytest.raises(ValueError, match=r"attribute is 'age': this true edit moves smile"):
        evaluate(config, data="portraits_true_edits", device=CPU)
    # An edit of a strength beside it is not measured here.
    other = {"direction": "age", "strength": 1.0, "attribute": "age"}
    config["protocol"]["edits"] = {"smile+": smile, "age+": other}
    row = evaluate(config, data="portraits_true_edits", device=CPU)[0]
    assert row.method == "portraits/clcae" and "reached smile+" in row.metrics
    assert "reached age+" not in row.metrics


def test_true_edits_among_others_are_left_out(here: Path) -> None:
    config = config_of("data.num_people=2", *PIXELS, "protocol.time=null", "outputs=W")
    true = {"direction": "smile", "attribute": "smile", "amount": 0.5}
    config["protocol"]["edits"] = {"smile+": true}
    config["protocol"]["measures"] = {
        "MSE": {"measure": "mse"},
        "reached": {"measure": "true_reached", "network": "portraits"},
    }
    (row,) = evaluate(config, data="portraits_test", device=CPU)
    assert row.extra["without_value"]["reached smile+"] == (
        "it is of true edits: data=portraits_true_edits"
    )
    assert report([row], "results.jsonl", edits=["smile+"]) == 0
