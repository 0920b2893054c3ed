"""Inversion files: bit for bit, and whatever strangers put into one is refused in a line."""

import hashlib
import json
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from small_methods import SIDE, small_clcae, small_e4e, write_method
from torch import Tensor

import clcae
from clcae.methods.clcae import CLCAE
from clcae.methods.interface import Inversion
from clcae.methods.inversion_file import (
    Maker,
    Origin,
    check_fit,
    check_origin,
    join,
    load_inversion,
    save_inversion,
    split,
)
from clcae.stylegan2 import LatentSpace, Layer
from clcae.weight_file import weights_digest

IMAGES = torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1)) * 2 - 1
ORIGIN = Origin(
    maker=Maker(source="a.safetensors", class_name="CLCAE", sha256="0" * 64, output="F"),
    picture="anna é.jpg",
    picture_sha256="1" * 64,
    picture_size=(480, 640),
    crop="face",
    quad=((1.5, 0.1), (-0.5, 2.25), (1e-7, 3.0), (4.0, 1 / 3)),
)


@pytest.fixture(scope="module")
def method() -> CLCAE:
    return small_clcae()


@pytest.fixture(scope="module")
def inversion(method: CLCAE) -> Inversion:
    with torch.inference_mode():
        return method.invert(IMAGES)


def tensors_of(inversion: Inversion) -> dict[str, Tensor | None]:
    return {"codes": inversion.codes, "feature": inversion.feature, **inversion.context}


def assert_same(first: Inversion, second: Inversion) -> None:
    assert (first.space, first.layer) == (second.space, second.layer)
    ours, theirs = tensors_of(first), tensors_of(second)
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        other = theirs[key]
        if value is None or other is None:
            assert value is other
        else:
            assert value.dtype == other.dtype and torch.equal(value, other)


@pytest.mark.parametrize("output", ["W", "W+", "F"])
def test_round_trip_bit_for_bit(method: CLCAE, output: str, tmp_path: Path) -> None:
    inversion = split(method.with_output(output).invert(IMAGES))[1]
    path = tmp_path / "new" / "anna.safetensors"
    save_inversion(inversion, path, origin=ORIGIN)
    loaded, origin = load_inversion(path)
    assert origin == ORIGIN
    assert_same(loaded, inversion)
    assert (loaded.feature is None) == (output != "F")
    torch.testing.assert_close(method.synthesize(loaded), method.synthesize(inversion))
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_other_types_and_signed_zeros(tmp_path: Path) -> None:
    codes = torch.tensor([[[-0.0, 1e-45, 3.4e38]]])
    context = {"half": torch.tensor([[1.5]]).half(), "double": torch.tensor([1 / 3]).double()}
    inversion = Inversion(codes=codes, space=LatentSpace.Z_PLUS, context=context)
    save_inversion(inversion, tmp_path / "a.safetensors", origin=ORIGIN)
    loaded, _ = load_inversion(tmp_path / "a.safetensors")
    assert_same(loaded, inversion)
    assert torch.equal(loaded.codes.view(torch.int32), codes.view(torch.int32))


def test_split_and_join_are_inverse(inversion: Inversion) -> None:
    singles = split(inversion)
    assert len(singles) == 3
    assert_same(join(singles), inversion)
    assert_same(singles[2], split(join(singles[1:]))[1])


def test_what_is_not_saved(inversion: Inversion, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    single = split(inversion)[0]
    for wrong, words in (
        (inversion, "expected that of one picture"),
        (replace(single, codes=single.codes * float("nan")), "no finite"),
        (replace(single, context={"w": torch.tensor([1])}), "no finite floating-point"),
    ):
        with pytest.raises(ValueError, match=words):
            save_inversion(wrong, path, origin=ORIGIN)
    assert not list(tmp_path.iterdir())


def test_another_method_or_output_is_told(method: CLCAE) -> None:
    maker = Maker("clcae.safetensors", "CLCAE", weights_digest(method), "F")
    check_origin(replace(ORIGIN, maker=replace(maker, source="its old name")), maker)
    with pytest.raises(ValueError, match=r"another method, the CLCAE of a\.safetensors"):
        check_origin(ORIGIN, maker)
    other = replace(ORIGIN, maker=replace(maker, output="W"))
    with pytest.raises(ValueError, match=r"output W, asked for is F: give --output W"):
        check_origin(other, maker)


def test_the_digest_is_of_the_weights(method: CLCAE, tmp_path: Path) -> None:
    loaded = clcae.load_method(write_method(method, tmp_path / "a.safetensors"))
    assert weights_digest(loaded) == weights_digest(method) != weights_digest(small_clcae(seed=1))


def test_forms_that_do_not_fit(method: CLCAE, inversion: Inversion) -> None:
    like = method.invert(torch.zeros(1, 3, SIDE, SIDE))
    single = split(inversion)[0]
    check_fit(single, like)
    context = dict(single.context)
    own = context.pop("own")
    for wrong, words in (
        (replace(single, codes=single.codes[:, :, :5]), r"codes is \[8, 5\]"),
        (replace(single, codes=single.codes.double()), "torch.float64, expected"),
        (replace(single, feature=torch.zeros(1, 8, 64, 64)), r"feature is \[8, 64, 64\]"),
        (replace(single, context=context), "context.own is absent, expected"),
        (replace(single, context={**context, "own": own, "x": own}), "context.x is .* absent"),
        (replace(single, space=LatentSpace.W), "an inversion in W "),
        (replace(single, layer=Layer(1)), "8x8/0"),
        (small_e4e().invert(IMAGES[:1]), "this method's are in W"),
    ):
        with pytest.raises(ValueError, match=words) as refused:
            check_fit(wrong, like)
        assert "\n" not in str(refused.value)


def write(
    path: Path, tensors: dict[str, Tensor], change: Callable[[dict[str, Any]], None] | None = None
) -> None:
    """A file as the format's description has it, sound but for what `change` does."""
    digest = hashlib.sha256()
    for key in sorted(tensors):
        value = tensors[key]
        digest.update(f"{key} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.contiguous().numpy().tobytes())
    description: dict[str, Any] = {
        "format_version": 1,
        "space": "W+",
        "layer": "8x8/1" if "feature" in tensors else None,
        "origin": {
            "maker": {"source": "m", "class_name": "CLCAE", "sha256": "a", "output": "F"},
            "picture": "p",
            "picture_sha256": "b",
            "picture_size": [4, 4],
            "crop": "centre",
            "quad": [[0, 0], [0, 1], [1, 1], [1, 0]],
        },
        "sha256": digest.hexdigest(),
    }
    if change:
        change(description)
    save_file(tensors, path, metadata={"clcae_inversion": json.dumps(description)})


CODES = {"codes": torch.zeros(1, 8, 20)}


def refused(path: Path) -> str:
    with pytest.raises(ValueError) as caught:
        load_inversion(path)
    message = str(caught.value)
    assert "\n" not in message and str(path) in message and len(message) < 600
    return message


@pytest.mark.parametrize(
    ("tensors", "words"),
    [
        ({"feature": torch.zeros(1, 2, 4, 4)}, "has no codes"),
        ({"codes": torch.zeros(2, 8, 20)}, "expected that of one picture"),
        ({"codes": torch.zeros(1, 20)}, "expected that of one picture"),
        ({"codes": torch.zeros(1, 0, 20)}, "no finite"),
        ({"codes": torch.full((1, 8, 20), float("nan"))}, "no finite"),
        ({"codes": torch.full((1, 8, 20), float("inf"))}, "no finite"),
        ({"codes": torch.zeros(1, 8, 20, dtype=torch.int64)}, "no finite floating-point"),
        ({**CODES, "feature": torch.zeros(1, 2, 4)}, "expected that of one picture"),
        ({**CODES, "context.own": torch.zeros(3, 2)}, "expected that of one picture"),
        ({**CODES, "context.own": torch.tensor(1.0)}, "expected that of one picture"),
        ({**CODES, "weights": torch.zeros(1, 2)}, "'weights', which belongs to no inversion"),
    ],
)
def test_hostile_tensors(tensors: dict[str, Tensor], words: str, tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", tensors)
    assert words in refused(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d.pop("space"),
        lambda d: d.update(space="Q"),
        lambda d: d.update(space=["W"]),
        lambda d: d.update(layer="16x16/1"),  # without a feature
        lambda d: d.update(layer="../etc"),
        lambda d: d.update(layer=7.5),
        lambda d: d.update(layer=10**9),  # the side of its feature has so many digits
        lambda d: d.update(layer=10**30),
        lambda d: d.update(format_version=2),
        lambda d: d.update(origin="x"),
        lambda d: d.update(more=1),
        lambda d: d["origin"].pop("quad"),
        lambda d: d["origin"].update(quad=[[1, 2, 3]]),
        lambda d: d["origin"].update(quad=5),
        lambda d: d["origin"].update(picture_size=[10**400, "x"]),
        lambda d: d["origin"].update(picture=3),
        lambda d: d["origin"].update(picture="a\nb"),
        lambda d: d["origin"].update(more=3),
        lambda d: d["origin"]["maker"].update(sha256=None),
        lambda d: d["origin"]["maker"].pop("output"),
        lambda d: d["origin"].update(maker=[]),
        lambda d: d["origin"].update(quad=[[0, 0], [0, 1], [1, 1], [1, float("nan")]]),
        lambda d: d["origin"].update(quad=[[0, 0], [0, 1], [1, 1], [1, float("inf")]]),
        lambda d: d["origin"].update(quad=[[0, 0], [0, 1], [1, 1], [1, "0"]]),
        lambda d: d["origin"].update(quad=[[0, 0], [0, 1], [1, 1], [1, True]]),
        lambda d: d["origin"].update(quad=[[0, 0], [0, 1], [1, 1]]),
        lambda d: d["origin"].update(picture_size=[4, -5]),
        lambda d: d["origin"].update(picture_size=[4, 0]),
        lambda d: d["origin"].update(picture_size=[4, 4.5]),
        lambda d: d["origin"].update(picture_size=["4", 4]),
        lambda d: d["origin"].update(picture_size=[4, 4, 4]),
        lambda d: d["origin"].update(crop="a crop"),
        lambda d: d.update(description_sha256="0" * 64),
        lambda d: d.update(description_sha256=[]),
    ],
)
def test_hostile_descriptions(change: Callable[[dict[str, Any]], None], tmp_path: Path) -> None:
    write(tmp_path / "a.safetensors", CODES)
    load_inversion(tmp_path / "a.safetensors")
    write(tmp_path / "a.safetensors", CODES, change)
    message = refused(tmp_path / "a.safetensors")
    assert "description is damaged" in message or "format version" in message


def test_a_changed_description_is_noticed(inversion: Inversion, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_inversion(split(inversion)[0], path, origin=ORIGIN)
    data = path.read_bytes()
    for old, new in ((b"anna", b"anne"), (b"480, 640", b"481, 640"), (b"[1.5,", b"[1.6,")):
        assert data.count(old) == 1
        path.write_bytes(data.replace(old, new))
        assert "description does not match its sha256" in refused(path)


def test_files_that_are_none(tmp_path: Path, method: CLCAE) -> None:
    path = tmp_path / "a.safetensors"
    write(path, CODES)
    whole = path.read_bytes()
    for cut in (0, 5, 100, len(whole) - 1):
        path.write_bytes(whole[:cut])
        assert "not a readable safetensors file" in refused(path)
    path.write_bytes(whole[:-3] + b"\1\2\3")
    assert "do not match their sha256" in refused(path)
    path.write_bytes(struct.pack("<Q", 1 << 60) + whole[8:])
    assert "not a readable safetensors file" in refused(path)
    header = json.dumps({"codes": {"dtype": "F32", "shape": [1, 1 << 40], "data_offsets": [0, 8]}})
    path.write_bytes(struct.pack("<Q", len(header)) + header.encode() + bytes(8))
    assert "not a readable safetensors file" in refused(path)
    write_method(method, path)
    assert "none that scripts/invert.py wrote" in refused(path)
    nested = "[" * 100_000 + "]" * 100_000
    save_file(CODES, path, metadata={"clcae_inversion": nested})
    assert "description is damaged" in refused(path)
    with path.open("r+b") as file:
        file.truncate(2 << 30)  # sparse
    assert "too large for an inversion" in refused(path)
    with pytest.raises(FileNotFoundError, match=r"none\.safetensors: no such file"):
        load_inversion(tmp_path / "none.safetensors")
