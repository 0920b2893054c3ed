"""Codes from elsewhere, in every form that users have them, are edited without a picture."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from small_methods import small_clcae, small_e4e, write_directions, write_method
from torch import Tensor

import clcae
from clcae.images import to_uint8
from clcae.methods.interface import Inversion
from clcae.photographs.codes import read_codes
from clcae.stylegan2 import Generator, LatentSpace
from editing import edit_inversion, load_directions
from scripts.edit import main


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("codes")
    write_method(small_clcae(), folder / "small.safetensors")
    write_directions(folder / "directions.safetensors")
    return folder


@pytest.fixture(scope="module")
def generator(folder: Path) -> Generator:
    return clcae.load_method(folder / "small.safetensors").generator


def random(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(len(shape)))


def edit(folder: Path, *arguments: object, strength: float = 2) -> int:
    given = ["--method", folder / "small.safetensors", "--edit", f"a={strength}"]
    given += ["--directions", folder / "directions.safetensors"]
    return main([*map(str, arguments), *map(str, given)])


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path).convert("RGB")).astype(int)


def expected(folder: Path, codes: Tensor, space: LatentSpace, strength: float = 2) -> np.ndarray:
    method = clcae.load_method(folder / "small.safetensors")
    direction = load_directions(folder / "directions.safetensors")["a"]
    rows = codes.expand(-1, method.generator.num_codes, -1)
    moved = edit_inversion(method, Inversion(codes=rows, space=space), [(direction, strength)])
    with torch.inference_mode():
        return to_uint8(method.synthesize(moved)).permute(0, 2, 3, 1).numpy().astype(int)


def write_forms(folder: Path, codes: Tensor) -> list[Path]:
    """The same codes in every form."""
    folder.mkdir()
    np.save(folder / "npy.npy", codes.numpy())
    np.save(folder / "double.npy", codes.double().numpy())
    np.savez(folder / "one.npz", codes.numpy())
    np.savez_compressed(folder / "named.npz", w=codes.numpy(), seed=np.array(3))
    torch.save(codes, folder / "tensor.pt")
    torch.save(codes.requires_grad_(), folder / "trained.pth")
    torch.save({"latents": codes.detach(), "names": ["a"]}, folder / "dict.pt")
    torch.save({"codes": codes.detach().numpy()}, folder / "array.pt")
    save_file({"x": codes.detach()}, folder / "plain.safetensors", metadata={"format": "pt"})
    return sorted(folder.iterdir())


def test_every_form_holds_the_same(tmp_path: Path, generator: Generator) -> None:
    rows, width = generator.num_codes, generator.w_dim
    for name, codes in (("w", random(3, width)), ("w_plus", random(3, rows, width))):
        for path in write_forms(tmp_path / name, codes):
            found = read_codes(path, generator, space=None)
            space = LatentSpace.W if name == "w" else LatentSpace.W_PLUS
            assert [each.space for each in found] == [space] * 3
            whole = codes.detach()[:, None] if name == "w" else codes.detach()
            given = torch.cat([each.codes for each in found])
            assert torch.equal(given, whole.expand(-1, rows, -1)), path
    assert len(list(tmp_path.glob("*/*"))) == 18


def test_pictures_are_of_the_codes(folder: Path, tmp_path: Path, generator: Generator) -> None:
    codes = random(3, generator.num_codes, generator.w_dim)
    np.save(tmp_path / "codes.npy", codes.numpy())
    np.save(tmp_path / "one.npy", codes[0, :1].numpy())
    out = tmp_path / "out"
    assert edit(folder, tmp_path / "codes.npy", tmp_path / "one.npy", "--strip", "--out", out) == 0
    names = {path.name for path in out.glob("*.png")}
    assert names == {
        *(f"codes-{index}{end}.png" for index in range(3) for end in ("", "-strip")),
        *("one.png", "one-strip.png"),
    }
    wanted = expected(folder, codes, LatentSpace.W_PLUS)
    for index in range(3):
        assert abs(pixels(out / f"codes-{index}.png") - wanted[index]).max() <= 1
    wanted = expected(folder, codes[:1, :1], LatentSpace.W)
    assert abs(pixels(out / "one.png") - wanted[0]).max() <= 1


def test_the_rule_that_needs_a_picture_moves_codes_as_they_are(
    folder: Path, tmp_path: Path, generator: Generator
) -> None:
    codes = random(2, generator.num_codes, generator.w_dim)
    np.save(tmp_path / "codes.npy", codes.numpy())
    out = tmp_path / "out"
    assert edit(folder, tmp_path / "codes.npy", "--rule", "foundation", "--out", out) == 0
    wanted = expected(folder, codes, LatentSpace.W_PLUS)
    assert abs(pixels(out / "codes-1.png") - wanted[1]).max() <= 1


def test_codes_beside_pictures(folder: Path, tmp_path: Path, generator: Generator) -> None:
    np.save(tmp_path / "codes.npy", random(1, generator.num_codes, generator.w_dim).numpy())
    np.save(tmp_path / "flat.npy", random(2, generator.w_dim).numpy())
    side = generator.resolution
    Image.new("RGB", (side, side), "grey").save(tmp_path / "a.png")
    given = [tmp_path / name for name in ("codes.npy", "a.png", "flat.npy")]
    assert edit(folder, *given, "--out", tmp_path / "both") == 0
    assert edit(folder, tmp_path / "a.png", "--out", tmp_path / "alone") == 0
    names = sorted(path.name for path in (tmp_path / "both").glob("*.png"))
    assert names == ["a.png", "codes.png", "flat-0.png", "flat-1.png"]
    difference = pixels(tmp_path / "both/a.png") - pixels(tmp_path / "alone/a.png")
    assert abs(difference).max() <= 1


def test_the_space_is_said_where_it_cannot_be_told(tmp_path: Path, generator: Generator) -> None:
    rows, width = generator.num_codes, generator.w_dim
    path = tmp_path / "a.npy"
    np.save(path, random(rows, width).numpy())
    with pytest.raises(ValueError, match=r"one code with 8 rows.*--space W\+ or --space W"):
        read_codes(path, generator, space=None)
    (one,) = read_codes(path, generator, space=LatentSpace.W_PLUS)
    assert torch.equal(one.codes[0], random(rows, width)) and one.space is LatentSpace.W_PLUS
    many = read_codes(path, generator, space=LatentSpace.W)
    assert len(many) == rows and torch.equal(many[1].codes[0, 3], random(rows, width)[1])
    np.save(path, random(2, generator.z_dim).numpy())
    assert read_codes(path, generator, space=LatentSpace.Z)[0].space is LatentSpace.Z


def test_other_methods(tmp_path: Path, folder: Path) -> None:
    method = small_e4e()
    write_method(method, tmp_path / "e4e.safetensors")
    np.save(tmp_path / "c.npy", random(2, method.generator.num_codes, method.generator.w_dim))
    arguments = [tmp_path / "c.npy", "--method", tmp_path / "e4e.safetensors", "--edit", "a=1"]
    arguments += ["--directions", folder / "directions.safetensors", "--out", tmp_path / "out"]
    assert main([*map(str, arguments)]) == 0
    assert len(list((tmp_path / "out").glob("*.png"))) == 2


def test_mistakes_are_one_line(
    folder: Path, tmp_path: Path, generator: Generator, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, width = generator.num_codes, generator.w_dim
    cases: dict[str, tuple[np.ndarray, str]] = {
        "width": (np.zeros((2, width + 1), np.float32), "expected codes"),
        "rows": (np.zeros((2, rows + 1, width), np.float32), f"expected {rows} rows"),
        "axes": (np.zeros((2, 1, rows, width), np.float32), "expected codes"),
        "none": (np.zeros((0, width), np.float32), "expected codes"),
        "whole": (np.zeros((2, width), np.int64), "floating point"),
        "nan": (np.full((2, width), np.nan, np.float32), "NaN or infinite"),
        "huge": (np.full((2, width), 1e300), "NaN or infinite"),
        "objects": (np.array([{}, None], dtype=object), "holds object"),
    }
    for name, (array, words) in cases.items():
        np.save(tmp_path / f"{name}.npy", array, allow_pickle=True)
        assert edit(folder, tmp_path / f"{name}.npy", "--out", tmp_path / "out") == 1
        said = capsys.readouterr().err
        assert words in said and "Traceback" not in said, (name, said)
    for name, value in {"zero": 0.0, "far": 1e20}.items():  # what the mapping network reads as zero
        np.save(tmp_path / f"{name}.npy", np.full((2, generator.z_dim), value, np.float32))
        given = [tmp_path / f"{name}.npy", "--space", "Z", "--out", tmp_path / "z"]
        assert edit(folder, *given) == 1
        assert "holds rows of Z that are zero" in capsys.readouterr().err
    np.savez(tmp_path / "two.npz", a=np.zeros((1, width)), b=np.zeros((1, width)))
    torch.save({"state": {"a": torch.ones(2)}}, tmp_path / "state.pt")
    (tmp_path / "text.npy").write_text("hello")
    np.save(tmp_path / "good.npy", np.zeros((1, width), np.float32))
    for arguments, words in (
        (["two.npz"], "holds a, b: expected one array of codes"),
        (["state.pt"], "no array"),
        (["text.npy"], "no .npy file"),
        (["good.npy", "--mask", "1,1,5,5"], "need"),
    ):
        given = [tmp_path / arguments[0], *arguments[1:]]
        assert edit(folder, *given, "--out", tmp_path / f"out{len(given)}") == 1
        assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("**/*.png"))
