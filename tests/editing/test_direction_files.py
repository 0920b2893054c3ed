"""Files of directions: every official form, the native one, and what is refused."""

import io
import json
import pickle
import re
import struct
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from clcae.pretrained.loading import load_generator
from clcae.serialization import save
from clcae.stylegan2 import Generator, LatentSpace
from editing import Direction, directions_named, load_directions, save_directions
from editing.ganspace import FACE_EDITS

ROW = torch.randn(1, 512, generator=torch.Generator().manual_seed(0))
ROW = ROW / ROW.norm()


def pca(count: int = 80, width: int = 512) -> dict[str, Tensor]:
    rng = torch.Generator().manual_seed(1)
    comp = torch.randn(count, 1, width, generator=rng)
    return {
        "comp": comp / comp.norm(dim=2, keepdim=True),
        "mean": torch.randn(1, width, generator=rng),
        "std": 2.0 * 0.97 ** torch.arange(count),
    }


def refused(path: Path, words: str = "") -> None:
    with pytest.raises(ValueError, match=re.escape(path.name)) as caught:
        load_directions(path)
    line = str(caught.value)
    assert words in line, line
    assert "\n" not in line and len(line) < 600 and line.isprintable()


def test_rows_of_e4e(tmp_path: Path) -> None:
    torch.save(ROW, tmp_path / "smile.pt")
    torch.save(ROW.expand(1, 18, 512).contiguous(), tmp_path / "pose.pt")
    smile = load_directions(tmp_path / "smile.pt")["smile"]
    assert torch.equal(smile.vector, ROW)
    assert (smile.unit, smile.strengths, smile.space) == (1.0, (-5.0, 5.0), LatentSpace.W)
    pose = load_directions(tmp_path / "pose.pt")["pose"]
    assert torch.equal(pose.vector, ROW.expand(18, -1))
    codes = torch.zeros(1, 14, 512)
    assert torch.equal(pose.shift(codes, 2.0), smile.shift(codes, 2.0))


def test_what_was_saved_on_a_gpu_comes_to_the_cpu(tmp_path: Path) -> None:
    """The pickle of a saved tensor with the place of its storage rewritten, as cuda:0 writes it."""
    path = tmp_path / "pose.pt"
    torch.save(ROW.expand(1, 18, 512).contiguous(), path)
    moved = tmp_path / "cuda" / "pose.pt"
    moved.parent.mkdir()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(moved, "w") as new:
        for entry in old.infolist():
            data = old.read(entry)
            if entry.filename.endswith("data.pkl"):
                place = b"X\x03\x00\x00\x00cpu"
                assert place in data
                data = data.replace(place, b"X\x06\x00\x00\x00cuda:0")
            new.writestr(entry.filename, data)
    assert load_directions(moved)["pose"].vector.device.type == "cpu"
    assert torch.equal(load_directions(moved)["pose"].vector, load_directions(path)["pose"].vector)


def test_directions_by_name(tmp_path: Path) -> None:
    torch.save({"05_Bangs": ROW[None], "gender": ROW[0]}, tmp_path / "boundaries.pt")
    found = load_directions(tmp_path / "boundaries.pt")
    assert list(found) == ["05_Bangs", "gender"]
    assert all(torch.equal(direction.vector, ROW) for direction in found.values())


@pytest.mark.parametrize("name", ["ffhq_pca.pt", "FFHQ.pt", "other_pca.pt", "cars_pca.pt"])
def test_ganspace(tmp_path: Path, name: str) -> None:
    torch.save(pca(), tmp_path / name)
    found = load_directions(tmp_path / name)
    assert found["pc79"].semantics == "coordinate" and found["pc79"].layers is None
    if name.lower().startswith("ffhq"):
        assert len(found) == 42 + 80
        white = found["white_hair"]
        assert (white.layers, white.default, white.semantics) == ((7, 10), -24, "coordinate")
        assert torch.equal(white.vector, pca()["comp"][57])
        assert white.unit == pytest.approx(2.0 * 0.97**57, rel=1e-5)
        assert found["smile"].layers == (4, 5) and found["show_front_teeth"].strengths[1] == 40
    else:
        assert ("smile" in found, "viewpoint" in found) == (False, name.startswith("cars"))


def test_the_published_table() -> None:
    assert len(FACE_EDITS) == 42
    assert sum(edit.component for edit in FACE_EDITS.values()) == 1324
    assert sum(edit.strength for edit in FACE_EDITS.values()) == 426
    for edit in FACE_EDITS.values():
        assert 0 <= edit.component < 80 and 0 <= edit.layers[0] < edit.layers[1] <= 18


def test_ganspace_of_numpy(tmp_path: Path) -> None:
    arrays = {key: value.numpy() for key, value in pca(6, 8).items()}
    np.savez(tmp_path / "a.npz", **arrays)
    names = {"comp": "lat_comp", "mean": "lat_mean", "std": "lat_stdev"}
    np.savez_compressed(
        tmp_path / "b.npz",
        act_comp=np.zeros((2, 3)),
        **{names[key]: value for key, value in arrays.items()},
    )
    torch.save(pca(6, 8), tmp_path / "c.pt")
    codes = torch.randn(2, 10, 8, generator=torch.Generator().manual_seed(2))
    shifts = [
        load_directions(tmp_path / name)["pc5"].shift(codes, -3.0)
        for name in ("a.npz", "b.npz", "c.pt")
    ]
    assert torch.equal(shifts[0], shifts[1]) and torch.equal(shifts[0], shifts[2])


def test_factors(tmp_path: Path) -> None:
    vectors = torch.linalg.qr(torch.randn(8, 8, generator=torch.Generator().manual_seed(2)))[0]
    torch.save({"ckpt": "stylegan2-ffhq-config-f.pt", "eigvec": vectors}, tmp_path / "factor.pt")
    found = load_directions(tmp_path / "factor.pt")
    assert list(found) == [f"sefa{index}" for index in range(8)]
    assert torch.equal(found["sefa3"].vector[0], vectors[:, 3])


@pytest.mark.parametrize(
    ("stem", "name", "space"),
    [
        ("stylegan_ffhq_smile_boundary", "smile", "Z"),
        ("stylegan_ffhq_smile_w_boundary", "smile", "W"),
        ("pggan_celebahq_age_c_gender_boundary", "age_c_gender", "Z"),
        ("stylegan_ffhq_age_c_gender_eyeglasses_boundary", "age_c_gender_eyeglasses", "Z"),
        ("stylegan_ffhq_age_c_gender_w_boundary", "age_c_gender", "W"),
        ("mine", "mine", "W"),
    ],
)
def test_boundaries_of_interfacegan(tmp_path: Path, stem: str, name: str, space: str) -> None:
    path = tmp_path / f"{stem}.npy"
    np.save(path, ROW.double().numpy())
    assert path.stat().st_size == 4224  # as the official files
    found = load_directions(path)
    assert list(found) == [name] and found[name].space == space
    assert torch.equal(found[name].vector, ROW)
    assert load_directions(path, space=LatentSpace.W_PLUS)[name].space == "W+"


def native(folder: Path) -> Path:
    path = folder / "all.safetensors"
    directions = [
        Direction(
            name="smile",
            vector=ROW,
            layers=(2, 5),
            unit=1.25,
            strengths=(-2, 3.5),
            default=2.0,
            meaning="one standard deviation of smile",
            provenance={"samples": 50_000, "leak": {"age": 0.1}},
        ),
        Direction(name="rows", vector=ROW.expand(18, -1) * 2, space=LatentSpace.W_PLUS),
        Direction(name="pc", vector=ROW, semantics="coordinate", center=-ROW),
    ]
    save_directions({d.name: d for d in directions}, path, provenance={"command": "a test"})
    return path


def test_native_round_trip(tmp_path: Path) -> None:
    found = load_directions(native(tmp_path))
    assert list(found) == ["smile", "rows", "pc"]
    smile = found["smile"]
    assert (smile.layers, smile.unit, smile.strengths, smile.default) == (
        (2, 5),
        1.25,
        (-2, 3.5),
        2,
    )
    assert smile.provenance == {"samples": 50_000, "leak": {"age": 0.1}}
    assert smile.meaning == "one standard deviation of smile" and smile.semantics == "increment"
    assert torch.equal(smile.vector, ROW)
    assert found["rows"].space is LatentSpace.W_PLUS and found["rows"].vector.shape == (18, 512)
    center = found["pc"].center
    assert center is not None and torch.equal(center, -ROW)
    with pytest.raises(ValueError, match="no directions to write"):
        save_directions({}, tmp_path / "none.safetensors", provenance={})
    twice = {"a": smile, "b": smile}
    with pytest.raises(ValueError, match="share a name: smile, smile"):
        save_directions(twice, tmp_path / "none.safetensors", provenance={})


def rewritten(path: Path, change: object, vector: Tensor | None = None) -> Path:
    """The native file with its description changed, or a tensor of it."""
    with safe_open(path, framework="pt") as file:
        described = json.loads(file.metadata()["clcae"])
        del described["description_sha256"]  # the file may be any that was once written
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    if callable(change):
        change(described)
    if vector is not None:
        tensors["vector_0"] = vector
    out = path.with_name("changed.safetensors")
    save_file(tensors, out, metadata={"clcae": json.dumps(described)})
    return out


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("name", "a=b", "'='"),
        ("name", "rows", "two directions are called 'rows'"),
        ("name", 3, "another form"),
        ("shape", [1, 511], "do not fit"),
        ("shape", [1, 1 << 20], "another form or size"),
        ("shape", [1, 512, 1], "another form"),
        ("shape", [True, 512], "another form"),
        ("space", "X", "not a valid LatentSpace"),
        ("layers", [5, 2], "layers 5 to 2"),
        ("layers", "25", "another form"),
        ("unit", float("nan"), "finite"),
        ("unit", "1", "another form"),
        ("strengths", [1.0], "another form"),
        ("strengths", None, "another form"),
        ("strengths", [-float("inf"), 1.0], "finite"),
        ("semantics", "nothing", "unknown"),
        ("semantics", ["coordinate"], "unknown"),
        ("provenance", [], "another form"),
    ],
)
def test_hostile_descriptions(tmp_path: Path, field: str, value: object, words: str) -> None:
    def change(described: dict) -> None:
        described["settings"]["entries"][0][field] = value

    refused(rewritten(native(tmp_path), change), words)


def test_hostile_entries_and_weights(tmp_path: Path) -> None:
    path = native(tmp_path)
    for entries in (None, [], [None], {"a": 1}, [{}], "ab", 5):
        refused(rewritten(path, lambda d, e=entries: d["settings"].update(entries=e)))
    with_nan = ROW.clone()
    with_nan[0, 3] = float("nan")
    refused(rewritten(path, None, with_nan), "sha256")
    other = tmp_path / "generator.safetensors"
    save(Generator(resolution=8, z_dim=4, w_dim=4, channels=[4, 3]), other, provenance={})
    refused(other, "expected DirectionSet")


class Command:
    """Pickles as a call that touches a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


def test_nothing_in_a_file_is_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    array = np.empty(1, dtype=object)
    array[0] = Command(canary)
    np.save(tmp_path / "smile_boundary.npy", array, allow_pickle=True)
    np.savez(tmp_path / "a.npz", lat_comp=array, lat_mean=array, lat_stdev=array)
    torch.save({"eigvec": Command(canary)}, tmp_path / "factor.pt")
    (tmp_path / "pose.pt").write_bytes(pickle.dumps(Command(canary)))
    (tmp_path / "pose.npz").write_bytes(pickle.dumps(Command(canary)))
    for path in tmp_path.glob("*.*"):
        refused(path)
    assert not canary.exists()


def npy(shape: str, code: str = "<f4", data: bytes = b"") -> bytes:
    header = f"{{'descr': {code!r}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    "data",
    [
        npy("(1, 4611686018427387904)"),
        npy("(1099511627776, 1099511627775)"),
        npy("(1, 4)", data=bytes(8)),
        npy("(1, 4)", data=bytes(24)),
        npy("(-1, 4)", data=bytes(16)),
        npy("[1, 4]", data=bytes(16)),
        npy("(1, 4)", "|O", data=bytes(32)),
        npy("(1, 4)", "<U4", data=bytes(64)),
        npy("(1, 4)", "<f3", data=bytes(12)),
        npy("(((((((((((", data=bytes(16)),
        npy("__import__('os').getpid()"),
        npy("(1, 4)", data=bytes(16)),  # a zero vector
        npy("(1, 4)", data=np.float32([1, 2, np.nan, 3]).tobytes()),
        npy("(4, 4, 4)", data=bytes(256)),
        npy("(0, 4)"),
        npy("()", data=bytes(4)),
        b"\x93NUMPY",
        b"\x93NUMPY\x01\x00\xff",
        b"\x93NUMPY\x02\x00\xff\xff\xff\xff",
        b"\x93NUMPY\x03\x00",
    ],
)
def test_damaged_boundaries(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "smile.npy"
    path.write_bytes(data)
    refused(path)


def test_archives_that_grow(tmp_path: Path) -> None:
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        zeros = npy("(1, 1, 80000000)", data=bytes(320_000_000))
        archive.writestr("lat_comp.npy", zeros)
    assert path.stat().st_size < 1_000_000
    refused(path, "larger than")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"mean": 1, "comp": 2, "std": 3}, "is a int"),
        ({**pca(4, 8), "std": torch.ones(5)}, "expected [1, D], [K, D] and [K]"),
        ({**pca(4, 8), "std": torch.zeros(4)}, "not positive"),
        ({**pca(4, 8), "mean": torch.zeros(1, 7)}, "comp (4, 1, 8) and mean (1, 7)"),
        ({**pca(4, 8), "comp": torch.full((4, 1, 8), torch.inf)}, "infinity"),
        ({"eigvec": torch.zeros(8)}, "eigvec has shape (8,)"),
        ({"g_ema": {"a": torch.zeros(1)}}, "g_ema is a dict"),
        ({}, "holds 0 entries"),
        (torch.zeros(3, 18, 512), "smile has shape (3, 18, 512)"),
        (torch.ones(1, 512, dtype=torch.int64), "floating point"),
        ([1, 2], "smile is a list"),
        ({f"a{i}": torch.ones(1, 65536).expand(1, 65536) for i in range(3)}, ""),
    ],
)
def test_other_contents(tmp_path: Path, content: object, words: str) -> None:
    path = tmp_path / "smile.pt"
    torch.save(content, path)
    if words:
        refused(path, words)
    else:
        assert len(load_directions(path)) == 3


def test_tensors_that_share_memory_do_not_fill_it(tmp_path: Path) -> None:
    shared = torch.ones(1, 65536)
    torch.save({f"a{index}": shared for index in range(2000)}, tmp_path / "many.pt")
    refused(tmp_path / "many.pt", "share memory")


def test_an_array_under_many_names_is_not_copied(tmp_path: Path) -> None:
    array = np.ones((1, 1 << 16), np.float32)
    tracemalloc.start()
    for name, content in (
        ("many.pt", {f"a{index}": array for index in range(20_000)}),
        (
            "pca.pt",
            {
                **dict.fromkeys(("mean", "comp", "std"), array),
                **dict.fromkeys(range(20_000), array),
            },
        ),
    ):
        torch.save(content, tmp_path / name)
        refused(tmp_path / name, "share memory")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 64 << 20


def test_a_name_found_in_w_and_in_z_gives_both(tmp_path: Path) -> None:
    files = []
    for number, space in enumerate(["W", "W", "Z"]):
        vector = torch.eye(8)[number : number + 1]
        direction = Direction(name="smile", vector=vector, space=LatentSpace(space))
        files.append(str(tmp_path / f"{number}.safetensors"))
        save_directions({"smile": direction}, files[-1], provenance={"command": "a test"})
    first, w, z = files
    assert [d.space for d in directions_named("smile", [z])] == [LatentSpace.Z]
    found = {d.space: d.vector for d in directions_named("smile", [first, z, w])}
    assert {*found} == {LatentSpace.W, LatentSpace.Z}
    assert found[LatentSpace.W][0, 1] == 1 and found[LatentSpace.Z][0, 2] == 1  # the last of each
    with pytest.raises(ValueError, match="no direction is called 'age': smile"):
        directions_named("age", files)


def test_the_shipped_directions_of_z_are_of_the_shipped_generator() -> None:
    shipped = load_directions("portraits/directions_z")
    assert {*shipped} == {*load_directions("portraits")}
    for direction in shipped.values():
        assert direction.space is LatentSpace.Z and direction.semantics == "increment"
        direction.check(load_generator("portraits"))
    with pytest.raises(FileNotFoundError, match="no shipped file is called 'nothing'"):
        load_directions("portraits/nothing")


def test_a_folder_called_portraits_is_not_taken_for_the_shipped_directions(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped = load_directions("portraits")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "portraits").mkdir()
    assert load_directions("portraits").keys() == shipped.keys()
    (tmp_path / "portraits").rmdir()
    torch.save({"mine": ROW}, tmp_path / "portraits")  # a file is, as it always was
    assert [*load_directions("portraits")] == ["mine"]


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"none\.pt: no such file; expected directions"):
        load_directions(tmp_path / "none.pt")
    for name, data in (
        ("a.pt", b""),
        ("b.pt", b"<html>"),
        ("c.npz", b"PK\x03\x04"),
        ("d.safetensors", b"x" * 99),
        ("e.pt", io.BytesIO(b"\x80\x02.").getvalue()),
    ):
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name)
    np.savez(tmp_path / "f.npz", mean=np.zeros((1, 3)))
    refused(tmp_path / "f.npz", "has no lat_comp nor comp (found: mean)")
