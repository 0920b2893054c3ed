"""The commands edit codes of Z and Z+ by walks on the sphere, and find directions there."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from evaluations import CPU, config_of
from PIL import Image
from small_methods import small_e4e, write_method

import clcae
from clcae.images import read_image, to_uint8
from clcae.pretrained.rosinality import export_rosinality
from clcae.stylegan2 import Generator, LatentSpace, normalize_z, walk
from editing import Direction, load_directions, save_directions
from scripts.directions import main as directions_main
from scripts.edit import main as edit_main
from scripts.edit_quality import _edited
from scripts.evaluate import evaluate

ROWS, WIDTH = 8, 12  # of the small methods' Z+


def random(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("space", ["Z", "Z+"])
def test_edit_walks_from_codes_of_a_file(tmp_path: Path, space: str) -> None:
    """Codes and a boundary as F/Z+ stores them; a boundary of Z says its space by its name."""
    method = small_e4e()
    write_method(method, tmp_path / "e4e.safetensors")
    plus = space == "Z+"
    codes = random(1, 2, ROWS, WIDTH) if plus else random(1, 2, WIDTH)
    boundary = random(2, 1, ROWS, WIDTH) if plus else random(2, 1, WIDTH)
    boundary = boundary / boundary.norm(dim=-1, keepdim=True)
    np.save(tmp_path / "codes.npy", codes.numpy())
    name = "mine.npy" if plus else "stylegan_ffhq_age_boundary.npy"
    np.save(tmp_path / name, boundary.double().numpy())
    arguments = [tmp_path / "codes.npy", "--space", space, "--method", tmp_path / "e4e.safetensors"]
    arguments += ["--directions", tmp_path / name, "--out", tmp_path / "out", "--strip"]
    arguments += ["--edit", "mine=9" if plus else "age=9", "--strengths", "-9,0,9"]
    arguments += ["--directions-space", space] if plus else []
    assert edit_main([*map(str, arguments)]) == 0
    rows = codes if plus else codes[:, None].expand(-1, ROWS, -1)
    by = boundary if plus else boundary[None]
    moved = walk(rows, (9 * by).expand_as(rows))
    with torch.inference_mode():
        wanted = to_uint8(method.generator.synthesize(method.generator.map(moved))).int()
    for index in range(2):
        found = torch.from_numpy(np.array(Image.open(tmp_path / f"out/codes-{index}.png"))).int()
        assert (found.permute(2, 0, 1) - wanted[index]).abs().max() <= 1
        assert (tmp_path / f"out/codes-{index}-strip.png").exists()


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    network = Generator(resolution=16, z_dim=6, w_dim=8, mapping_layers=2, channels=[6, 5, 4])
    network.update_average(num_samples=500)
    path = tmp_path_factory.mktemp("generator") / "small.pt"
    export_rosinality(network, path)
    return path


@pytest.mark.parametrize("space", ["Z", "Z+"])
def test_boundaries_from_scores(tmp_path: Path, generator: Path, space: str) -> None:
    common = ["--generator", str(generator), "--space", space]
    folder, out = tmp_path / "samples", tmp_path / "found.safetensors"
    arguments = ["sample", *common, "--num-samples", "90", "--out", str(folder)]
    assert directions_main(arguments) == 0
    codes = np.load(folder / "codes.npy")
    assert codes.shape == ((90, 6, 6) if space == "Z+" else (90, 6))
    np.testing.assert_allclose((codes**2).mean(axis=-1), 1, atol=1e-5)
    np.save(tmp_path / "score.npy", codes[..., 0].reshape(90, -1).sum(axis=1))
    given = ["--codes", folder / "codes.npy", "--scores", tmp_path / "score.npy", "--out", out]
    assert directions_main(["interfacegan", *common, "--share", "0.5", *map(str, given)]) == 0
    found = load_directions(out)["score"]
    assert found.space == space and found.vector.shape == ((6, 6) if space == "Z+" else (1, 6))
    assert (found.vector[:, 0] > 0.2).all()
    strips = ["show", str(out), "--strips", str(tmp_path / "strips"), "--people", "3"]
    assert directions_main([*strips, "--generator", str(generator), "--strengths=-4,0,4"]) == 0
    height, _ = read_image(tmp_path / "strips" / "score.png").shape[1:]
    assert 3 * 128 < height < 4 * 128  # Z has no mean code to show


def test_components_of_z_and_none_of_sefa(
    tmp_path: Path, generator: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "pca.safetensors"
    arguments = ["--generator", str(generator), "--components", "3", "--space", "Z"]
    assert directions_main(["ganspace", *arguments, "--num-samples", "900", "--out", str(out)]) == 0
    found = load_directions(out)
    assert list(found) == ["pc0", "pc1", "pc2"] and found["pc0"].space is LatentSpace.Z
    assert found["pc0"].unit == 1 and found["pc0"].vector.norm() == pytest.approx(1)
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        directions_main(["sefa", *arguments, "--out", str(tmp_path / "sefa.safetensors")])
    assert caught.value.code == 2
    assert "argument --space: invalid choice: 'Z'" in capsys.readouterr().err


def test_an_official_file_becomes_a_native_one_that_says_its_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "hair_boundary.npy", random(3, 1, 18, 512).numpy())
    out = tmp_path / "hair.safetensors"
    arguments = ["import", str(tmp_path / "hair_boundary.npy"), "--space", "Z+", "--out", str(out)]
    assert directions_main(arguments) == 0
    found = load_directions(out)["hair_boundary"]
    assert found.space is LatentSpace.Z_PLUS and torch.equal(found.vector, random(3, 18, 512))
    printed = capsys.readouterr().out
    assert "hair_boundary  Z+" in printed and f"written: {out}" in printed
    assert directions_main(["import", "none.npy", "--out", str(out)]) == 1
    assert "none.npy: no such file" in capsys.readouterr().err


def test_evaluation_compares_true_edits_of_z(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Directions of Z, of which shares are walked: half of a strength is no half of the sum."""
    monkeypatch.chdir(tmp_path)
    width = clcae.load_generator("portraits").z_dim
    smile = Direction(
        name="smile", vector=-random(4, 1, width), space=LatentSpace.Z, strengths=(-4.0, 4.0)
    )
    save_directions({"smile": smile}, "z.safetensors", provenance={})
    given = ["method=optimization", "method.steps=3", "outputs=Z+"]
    true = ["data=portraits_true_edits", "protocol=true_edits", "data.num_people=1"]
    config = config_of(*given, *true, "protocol.directions=z.safetensors", "data.edits=[smile+]")
    config["protocol"]["edits"] = {"smile+": config["protocol"]["edits"]["smile+"]}
    (row,) = evaluate(config, data="portraits_true_edits", device=CPU)
    assert math.isfinite(row.metrics["PSNR changed"]) and row.metrics["change"] != 0
    config = config_of(*given, "data.num_people=2", "protocol.directions=z.safetensors")
    measures = config["protocol"]["measures"]
    config["protocol"] |= {"measures": {"LEC smile+": measures["LEC smile+"]}}
    (row,) = evaluate(config, data="portraits_test", device=CPU)
    assert row.metrics["LEC smile+"] > 0


@torch.no_grad()
def test_quality_of_edits_of_w_is_measured_on_mapped_codes() -> None:
    method = small_e4e()
    codes = normalize_z(random(5, 2, ROWS, WIDTH))
    inversion = clcae.methods.interface.Inversion(codes=codes, space=LatentSpace.Z_PLUS)
    of_w = Direction(name="of W", vector=random(6, 1, method.generator.w_dim))
    edited = _edited(method, inversion, 2.0, direction=of_w)
    wanted = method.generator.map(codes) + 2 * of_w.vector
    torch.testing.assert_close(edited.codes, wanted)
    assert edited.space is LatentSpace.W_PLUS
