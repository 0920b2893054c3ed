"""evaluate.py measures edits: directions, annotations, and what is said where something lacks."""

import math
from pathlib import Path

import pytest
import torch
from evaluations import CPU, PIXELS, command, config_of, rows_of, write_portraits
from small_methods import small_clcae, write_method

import clcae
from clcae.images import to_uint8
from clcae.portraits import PortraitImages
from clcae.pretrained.assets import portraits_judges
from editing import load_directions, move_of
from scripts.evaluate import evaluate


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
