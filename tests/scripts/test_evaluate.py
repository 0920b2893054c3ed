"""evaluate.py: rows, their protocol, what is stopped, shared and done before, and mistakes."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluations import CPU, PIXELS, SCRIPT, command, config_of, rows_of, write_portraits
from PIL import Image
from small_methods import SIDE, small_clcae, small_e4e, write_method

import clcae
from clcae.evaluation.rows import Row, read_rows
from clcae.images import read_image, to_uint8
from clcae.methods.optimization import Optimization
from clcae.metrics.cost import count_operations
from clcae.metrics.editing import editing_distance
from clcae.metrics.reconstruction import mean_squared_error
from clcae.portraits import ATTRIBUTES, PortraitImages
from clcae.pretrained.assets import portraits_judges
from clcae.weight_file import weights_digest
from editing import load_directions, move_of
from scripts.evaluate import CONFIGS, evaluate, report
from training.errors import UsageError
from training.report import InversionReport

MSE = "clcae.metrics.reconstruction.MeanSquaredError"


@pytest.fixture(scope="module")
def method_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_method(small_clcae(), tmp_path_factory.mktemp("method") / "small.safetensors")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, without weights in torch.hub's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As torchrun gives every process; with more the last digits are others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def values(row: Row) -> dict[str, float]:
    return {name: value for name, value in row.metrics.items() if name != "ms"}


def test_rows_say_what_was_measured_and_how(here: Path) -> None:
    rows = rows_of("data.num_people=16", "batch_size=7", "outputs=[F,W]")
    assert [row.space for row in rows] == ["W", "F"] and read_rows("results.jsonl") == rows
    method: Any = clcae.load_method("portraits/clcae")
    source = PortraitImages(split="test", num_people=16)
    images, judges = source.images(range(16)), portraits_judges()
    with torch.inference_mode():
        made = method.reconstructions(images)["F"].clamp(-1, 1)
    row = rows[1]
    distances = judges.distance(judges.features(made), judges.features(images)).double()
    assert row.metrics["perceptual"] == pytest.approx(float(distances.mean()), rel=1e-5)
    rounded = (to_uint8(made).float() / 127.5 - 1, to_uint8(images).float() / 127.5 - 1)
    expected = float(mean_squared_error(*rounded).mean())
    assert row.metrics["MSE"] == pytest.approx(expected, rel=1e-4)  # a level here or there
    smile = load_directions("portraits")["smile"]
    with torch.inference_mode():
        inversion = method.invert(images)
        edited = method.synthesize(method.edit(inversion, move_of([(smile, 1.0)])))
        again = move_of([(smile, -1.0)])(method.invert(edited).codes)
    consistency = float(editing_distance(again, inversion.codes).mean())
    assert row.metrics["LEC smile+"] == pytest.approx(consistency, rel=1e-5)
    edited = edited.clamp(-1, 1)
    with torch.inference_mode():
        change = (judges.attributes(edited) - judges.attributes(made))[:, ATTRIBUTES.index("smile")]
        kept = torch.cosine_similarity(judges.identity(edited), judges.identity(made))
    assert row.metrics["change smile+"] == pytest.approx(float(change.double().mean()), rel=1e-4)
    assert row.metrics["identity smile+"] == pytest.approx(float(kept.double().mean()), rel=1e-5)
    assert row.metrics["ms"] > 0 and row.protocol["ms"]["batch"] == "1"
    count = sum(parameter.numel() for parameter in method.parameters())
    assert row.metrics["M parameters"] == pytest.approx(count / 1e6)
    operations = count_operations(lambda x: method.reconstruct(x, "F"), images[:1])
    assert 0.1 < row.metrics["GFLOP"] == pytest.approx(operations / 1e9)
    assert row.protocol["FD smile+"]["edit"] == "smile+"
    assert row.protocol["LEC smile+"]["strength"] == "+1 units of smile, directions portraits"
    assert row.protocol["MSE"] == {
        "levels": "uint8",
        "scale": "[-1, 1]",
        "direction": "lower",
        "range": "[0, 4]",
        "resolution": "64 x 64",
        "outputs": "clamped to [-1, 1]",
    }
    extra = row.extra
    assert (row.num_images, extra["images"], extra["left_out"]) == (16, "portraits test", {})
    assert extra["weights"]["method"] == weights_digest(method)
    assert len(extra["weights"]["portraits"]) == 64
    assert extra["config"]["protocol"]["measures"]["SSIM"]["window"] == "gaussian 7"
    assert {"torch", "torchvision", "numpy", "python"} <= row.versions.keys()
    assert not list(here.glob("*.unfinished"))


def test_rows_say_the_same_as_those_of_a_run(here: Path) -> None:
    source = PortraitImages(split="test", num_people=4)
    method: Any = clcae.load_method("portraits/clcae")
    run = InversionReport(method=method, test_images=source, judges=portraits_judges()).rows()
    rows = rows_of("data.num_people=4", "protocol.edits=null")
    assert [row.space for row in rows] == list(run)
    for row in rows:
        for name, value in run[row.space].metrics.items():
            assert row.protocol[name] == run[row.space].protocol[name]
            assert name == "ms" or row.metrics[name] == pytest.approx(value, rel=1e-6)
        assert {"MSE", "PSNR", "SSIM", "perceptual", "identity", "ms"} == {*run[row.space].metrics}


def test_what_is_in_the_results_is_not_measured_again(method_file: Path, here: Path) -> None:
    given = [f"method={method_file}", *PIXELS, "+data.size=32", "data.num_people=6"]
    first = rows_of(*given, "outputs=W")
    both = rows_of(*given, "outputs=[W,F]")
    assert both[0] == first[0] and [row.space for row in both] == ["W", "F"]
    assert read_rows("results.jsonl") == both
    assert rows_of(*given, "outputs=F") == both[1:]
    assert len(read_rows("results.jsonl")) == 2
    assert [row.space for row in rows_of(*given)] == ["W", "W+", "F"]
    assert [row.space for row in read_rows("results.jsonl")] == ["W", "F", "W+"]
    repeated = rows_of(*given, "outputs=W", "again=true")
    assert values(repeated[0]) == values(first[0]) and len(read_rows("results.jsonl")) == 4
    # Other pictures, other names and other protocols are other rows.
    for change in ("data.num_people=7", "name=x", "protocol.measures.MSE.levels=continuous"):
        rows_of(*given, "outputs=W", change)
    assert len(read_rows("results.jsonl")) == 7


def test_rows_of_another_precision_are_others(
    method_file: Path,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("clcae.precision.bfloat16_lacking", lambda device: None)
    given = [f"method={method_file}", *PIXELS, "+data.size=32", "data.num_people=6", "outputs=F"]
    (exact,) = rows_of(*given)
    (near,) = rows_of(*given, "precision=auto")
    assert "computing in bfloat16\n" in capsys.readouterr().err
    assert [row.extra["precision"] for row in (exact, near)] == ["float32", "bfloat16"]
    assert exact.extra["digest"] != near.extra["digest"]
    assert exact.extra["weights"] == near.extra["weights"]
    assert near.protocol["PSNR"] == {**exact.protocol["PSNR"], "precision": "bfloat16"}
    assert 0 < abs(near.metrics["PSNR"] - exact.metrics["PSNR"]) < 0.1
    assert rows_of(*given, "precision=bfloat16") == [near] and rows_of(*given) == [exact]
    assert read_rows("results.jsonl") == [exact, near]
    monkeypatch.setattr("clcae.precision.bfloat16_lacking", lambda device: "it is old")
    assert rows_of(*given, "precision=bfloat16") == [exact]  # computed in float32


@pytest.mark.usefixtures("one_thread")
def test_two_gloo_processes_give_the_table_of_one(here: Path) -> None:
    given = ["data.num_people=12", "batch_size=3", "outputs=[W,F]", "protocol.time=null"]
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    two = subprocess.run(
        [sys.executable, *launcher, SCRIPT, *given, "results=two.jsonl"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert two.returncode == 0, two.stderr
    assert len([line for line in two.stdout.splitlines() if line.startswith("|")]) == 4
    alone, together = rows_of(*given, "results=one.jsonl"), read_rows(here / "two.jsonl")
    assert [row.metrics for row in alone] == [row.metrics for row in together]
    assert [row.skipped for row in alone] == [row.skipped for row in together]
    assert [row.extra["digest"] for row in alone] == [row.extra["digest"] for row in together]
    assert all(math.isfinite(value) for row in alone for value in row.metrics.values())


@pytest.mark.usefixtures("one_thread")
def test_a_killed_command_goes_on_where_it_was(method_file: Path, here: Path) -> None:
    given = [f"method={method_file}", *PIXELS, "+data.size=32", "data.num_people=500"]
    given += ["batch_size=2", "num_parts=20", "save_every=20", "protocol.time=null"]
    with subprocess.Popen(
        [sys.executable, SCRIPT, *given],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        end = time.monotonic() + 60
        while time.monotonic() < end and not list(here.glob("*.unfinished/*/part-002*")):
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
    parts = sorted(here.glob("results.jsonl.unfinished/*/part*"))
    assert 3 <= len(parts) < 20 and not (here / "results.jsonl").exists()
    rows, whole = rows_of(*given), rows_of(*given, "results=whole.jsonl")
    assert read_rows("results.jsonl") == rows and not list(here.glob("*.unfinished"))
    assert [row.metrics for row in rows] == [row.metrics for row in whole]
    assert rows[0].num_images == 500


def test_two_at_once_measure_once(method_file: Path, here: Path) -> None:
    given = [f"method={method_file}", *PIXELS, "+data.size=32", "data.num_people=60"]
    commands = [
        subprocess.Popen(
            [sys.executable, SCRIPT, *given, "protocol.time=null"],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    said = [command.communicate(timeout=120) for command in commands]
    assert [command.returncode for command in commands] == [0, 0], said
    assert [row.space for row in read_rows("results.jsonl")] == ["W", "W+", "F"]
    tables = [[line for line in out.splitlines() if line.startswith("|")] for out, _ in said]
    assert tables[0] == tables[1] and len(tables[0]) == 5
    assert not list(here.glob("*.unfinished"))


def test_a_damaged_part_is_measured_again(method_file: Path, here: Path) -> None:
    given = [f"method={method_file}", *PIXELS, "+data.size=32", "data.num_people=60"]
    given += ["batch_size=2", "num_parts=6", "protocol.time=null"]
    with subprocess.Popen(
        [sys.executable, SCRIPT, *given, "save=kept"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as process:
        end = time.monotonic() + 60
        while time.monotonic() < end and not list(here.glob("*.unfinished/*/part-001*")):
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
    part = sorted(here.glob("results.jsonl.unfinished/*/part-000*"))[0]
    flipped = bytearray(part.read_bytes())
    flipped[-9] ^= 4
    part.write_bytes(flipped)
    leftover = here / "kept" / "W" / ".test" / ".00001.png.0123abcd.partial"
    notes = here / "kept" / "notes.partial"
    for path in (leftover, notes, part.with_name(f".{part.name}.0123abcd.partial")):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    rows, whole = rows_of(*given, "save=kept"), rows_of(*given, "results=whole.jsonl")
    assert [row.metrics for row in rows] == [row.metrics for row in whole]
    assert [path.name for path in here.rglob("*.partial")] == ["notes.partial"]
    assert not list(here.glob("*.unfinished"))


def test_a_folder_of_photographs(
    method_file: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = write_portraits(here / "photos", 5, size=48)
    (photos / "broken.png").write_bytes(b"nothing")
    rows = rows_of(f"method={method_file}", *PIXELS, "save=kept", data=str(photos))
    assert report(rows, "results.jsonl") == 1
    assert "broken.png is left out" in capsys.readouterr().err
    row = rows[-1]
    assert (row.num_images, row.extra["images"]) == (5, "folder photos")
    assert list(row.extra["left_out"]) == ["broken.png"]
    assert row.protocol["MSE"]["resolution"] == "32 x 32"  # as the method reads them
    assert sorted(p.name for p in (here / "kept" / "F").iterdir())[0] == "000.png"
    # The files that were kept say the same.
    again = (
        rows_of("reconstructions=kept/F", f"originals={here}/small", *PIXELS, "name=files")
        if _shrunk(photos, here / "small")
        else []
    )
    assert again[0].metrics["MSE"] == pytest.approx(row.metrics["MSE"], rel=2e-2)
    assert (again[0].method, again[0].space) == ("files", "files") and "ms" not in again[0].metrics
    tiny = write_portraits(here / "tiny", 2, size=16)
    with pytest.raises(ValueError, match=r"of pictures of 16 x 16, too small .* enlarge=true"):
        rows_of(f"method={method_file}", *PIXELS, data=str(tiny))
    tiny_rows = rows_of(f"method={method_file}", *PIXELS, "enlarge=true", data=str(tiny))
    words = tiny_rows[0].protocol["MSE"]["resolution"]
    assert words == "32 x 32, enlarged from 16 x 16"


def _shrunk(photos: Path, folder: Path) -> bool:
    """The pictures as the method read them."""
    folder.mkdir()
    for path in sorted(photos.glob("0*.png")):
        image = torch.nn.functional.interpolate(
            read_image(path)[None], size=(SIDE, SIDE), mode="bicubic", antialias=True
        )[0]
        Image.fromarray(to_uint8(image).permute(1, 2, 0).numpy()).save(folder / path.name)
    return True


def test_other_methods_have_other_outputs(here: Path) -> None:
    path = write_method(small_e4e(), here / "e4e.safetensors")
    rows = rows_of(f"method={path}", *PIXELS, "+data.size=32", "data.num_people=3")
    assert [row.space for row in rows] == ["W+"]


def test_a_method_without_a_file_is_built_around_the_generator(here: Path) -> None:
    given = [*PIXELS, "data.num_people=3", "protocol.time=null", "outputs=[W,W+]"]
    given = ["method=optimization", *given]
    rows = rows_of("method.steps=4", *given, "seed=7")
    assert [(row.method, row.space) for row in rows] == [
        ("Optimization", "W"),
        ("Optimization", "W+"),
    ]
    generator = clcae.load_generator("portraits")
    images = PortraitImages(split="test", num_people=3).images(range(3))
    found = Optimization(generator=generator, steps=4).with_output("W")
    made = found.synthesize(found.invert(images)).clamp(-1, 1)
    rounded = (to_uint8(made).float() / 127.5 - 1, images)
    expected = float(mean_squared_error(*rounded).mean())
    assert rows[0].metrics["MSE"] == pytest.approx(expected, rel=1e-3)
    assert rows[0].extra["seed"] == 7
    again = rows_of("method.steps=4", *given, "seed=7", "generator=portraits", "batch_size=64")
    assert again == rows  # other steps are another method
    more = rows_of("method.steps=5", *given)
    assert more[0].extra["digest"] != rows[0].extra["digest"]
    assert more[0].metrics["MSE"] < rows[0].metrics["MSE"]
    with pytest.raises(UsageError, match="is a MeanSquaredError, expected an inversion method"):
        evaluate(
            {**config_of(*given), "method": {"_target_": MSE}}, data="portraits_test", device=CPU
        )


def test_missing_weights_are_said_once_and_the_rest_goes_on(
    method_file: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"method={method_file}", "protocol=clcae", "+data.size=32", "data.num_people=3"]
    assert command(*given, "enlarge=true") == 0
    err = capsys.readouterr().err.splitlines()
    lines = [line for line in err if line.startswith("evaluate.py: without ")]
    assert [line.split()[2] for line in lines] == ["LPIPS:", "ID:", "FID:"]
    for line in lines:
        assert "there is no file" in line and "put it there" in line
    row = read_rows(here / "results.jsonl")[0]
    costs = ["ms", "GFLOP", "M parameters"]
    assert list(row.metrics) == ["PSNR", "SSIM", "LPIPS", "L2", "ID", "FID", *costs]
    missing = [name for name, value in row.metrics.items() if math.isnan(value)]
    assert missing == ["LPIPS", "ID", "FID"] == list(row.extra["without_value"])
    assert row.extra["weights"]["lpips_alex"] is None
    assert row.protocol["L2"]["resolution"] == "256 x 256, enlarged from 32 x 32"


def test_one_image_has_no_distance_of_sets(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = rows_of("data.num_people=1", "protocol.edits=null", "outputs=W")
    assert report(rows, "results.jsonl") == 0
    assert math.isnan(rows[0].metrics["FD"]) and math.isfinite(rows[0].metrics["MSE"])
    said = capsys.readouterr().err
    assert "no value of FD: " in said and "two or more of each" in said


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["protocl=clcae"], ["no key 'protocl'", "did you mean protocol"], 2),
        (["method=optimization/z", "method.stpes=3"], ["did you mean method.steps"], 2),
        (
            ["protocol=fid"],
            ["no protocol 'fid'", "portraits, response, sfe, styleres"],
            2,
        ),
        (["method=nothing.pt"], ["method=nothing.pt is neither a file nor one of"], 2),
        (["outputs=[Z]"], ["'Z'", "W, W+, F"], 1),
        (["data=folder"], ["data.root is not given"], 2),
        (["data=folder", "data.root=empty"], ["empty", "no picture"], 1),
        (["originals=photos"], ["to be given together"], 2),
        (["data.num_people=1", "protocol.edits=null", "results=empty"], ["empty"], 1),
        (["protocol.pictures=half"], ["protocol.pictures is 'half'"], 1),
        (
            ["protocol=sfe", "data.num_people=2"],
            ["MS-SSIM", "is asked of pictures of 64 x 64", "enlarge=true"],
            1,
        ),
    ],
)
def test_mistakes_are_one_line(
    arguments: list[str],
    words: list[str],
    status: int,
    here: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (here / "empty").mkdir()
    assert command(*arguments) == status
    line = capsys.readouterr().err
    assert len(line.splitlines()) == 1 and line.startswith("evaluate.py: ")
    for word in words:
        assert word in line
    assert not (here / "results.jsonl").exists()


def test_help_teaches_and_names_every_choice(capsys: pytest.CaptureFixture[str]) -> None:
    assert command("--help") == 0
    out = capsys.readouterr().out
    names = [path.stem for path in (CONFIGS / "protocol").glob("*.yaml")]
    assert len(names) == 9
    for word in [*names, "torchrun", "data=PHOTOS", "outputs=[W,F]", "enlarge", "folder"]:
        assert word in out


def test_the_command_prints_the_table(
    method_file: Path, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [f"method={method_file}", *PIXELS, "+data.size=32", "data.num_people=3"]
    assert command(*given, "images=my list") == 0
    out = capsys.readouterr().out
    assert (
        "| MSE ↓ | PSNR ↑ | SSIM ↑ | ms ↓ | GFLOP ↓ | M parameters ↓ |" in out
        and "3 images of my list" in out
    )
    assert command(*given, "images=my list") == 0
    assert "finished before, in results.jsonl (again=true" in capsys.readouterr().out
