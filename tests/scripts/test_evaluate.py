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
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf
from PIL import Image
from small_methods import SIDE, small_clcae, small_e4e, write_method

import clcae
from clcae.evaluation.protocol import read_protocol
from clcae.evaluation.rows import Row, read_rows
from clcae.images import read_image, to_uint8
from clcae.methods.projection import Projection
from clcae.metrics.consistency import editing_distance
from clcae.metrics.cost import count_operations
from clcae.metrics.reconstruction import mean_squared_error
from clcae.portraits import ATTRIBUTES, PortraitImages
from clcae.pretrained.assets import portraits_judges
from clcae.weight_file import weights_digest
from editing import load_directions, move_of
from scripts.evaluate import CONFIGS, FOLDER, evaluate, report, run
from training.commandline import composed, run_program
from training.errors import UsageError
from training.report import InversionReport

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = str(ROOT / "scripts" / "evaluate.py")
NETWORKS = ("perceptual", "identity", "FD", "KD", "precision", "recall")
MSE = "clcae.metrics.reconstruction.MeanSquaredError"
PIXELS = ["protocol.edits=null", *(f"protocol.measures.{name}=null" for name in NETWORKS)]


@pytest.fixture(scope="module")
def method_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_method(small_clcae(), tmp_path_factory.mktemp("method") / "small.safetensors")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, without weights in torch.hub's."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def config_of(*overrides: str) -> Any:
    cfg = composed(CONFIGS, "evaluate", overrides)
    return OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)


def rows_of(*overrides: str, data: str = "portraits_test") -> list[Row]:
    """In this process, as the command does."""
    config = config_of(f"data={data}", *overrides)
    folder = config["data"]["_target_"] == FOLDER
    if folder and not any("data.size" in each for each in overrides):
        config["data"]["size"] = None
    return evaluate(config, data="folder" if folder else data)


def command(*arguments: str) -> int:
    """The command in this process; its exit status."""
    GlobalHydra.instance().clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HYDRA_FULL_ERROR", "")
        patch.setattr(sys, "argv", [SCRIPT, *arguments])
        with pytest.raises(SystemExit) as ended:
            run_program(run, name="scripts/evaluate.py", configs=CONFIGS, primary="evaluate")
    return int(ended.value.code or 0)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As torchrun gives every process; with more the last digits are others."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def write_portraits(folder: Path, count: int, size: int = SIDE) -> Path:
    folder.mkdir(parents=True)
    images = PortraitImages(split="test", size=size).batch(list(range(count))).images
    for index, image in enumerate(to_uint8(images).permute(0, 2, 3, 1).numpy()):
        Image.fromarray(image).save(folder / f"{index:03d}.png")
    return folder


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
    operations = count_operations(lambda x: method.reconstruct(x, "F"), images[:1]).total
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


def test_every_choice_composes() -> None:
    choices = sorted(path.stem for path in (CONFIGS / "data").glob("*_t*.yaml"))
    assert len(choices) == 6
    for data in choices:
        for protocol in ("clcae", "e4e", "portraits", "sfe", "styleres"):
            config = config_of(f"data={data}", f"protocol={protocol}")
            assert read_protocol(config["protocol"]).measures
            assert config["weights"]["arcface"] == "weights/model_ir_se50.pth"


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
    assert [(row.method, row.space) for row in rows] == [("Projection", "W"), ("Projection", "W+")]
    generator = clcae.load_generator("portraits")
    images = PortraitImages(split="test", num_people=3).images(range(3))
    found = Projection(generator=generator, steps=4).with_output("W")
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
        evaluate({**config_of(*given), "method": {"_target_": MSE}}, data="portraits_test")


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
    row = evaluate(config, data="folder")[0]
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


def test_edits_of_another_generator_leave_the_rest(method_file: Path, here: Path) -> None:
    nulls = [each for each in PIXELS if "edits" not in each]
    rows = rows_of(f"method={method_file}", *nulls, "+data.size=32", "data.num_people=3")
    assert math.isfinite(rows[0].metrics["MSE"]) and math.isnan(rows[0].metrics["LEC smile+"])
    assert "found for another generator" in rows[0].extra["without_value"]["LEC smile+"]


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


def test_folders_that_do_not_match(here: Path) -> None:
    made = write_portraits(here / "made", 4)
    given = write_portraits(here / "given", 4)
    folders = ["reconstructions=made", "originals=given", *PIXELS]
    assert rows_of(*folders)[0].metrics["MSE"] == 0
    (made / "001.png").rename(made / "other.png")
    with pytest.raises(ValueError, match=r"1 of 4 in made .*other.*; 1 of 4 in given .*001"):
        rows_of(*folders)
    (made / "other.png").rename(made / "001.png")
    Image.new("RGB", (8, 8)).save(made / "002.png")
    with pytest.raises(
        ValueError, match=r"002: made/002\.png is 8 x 8 and given/002\.png is 32 x 32"
    ):
        rows_of(*folders)
    Image.new("RGB", (8, 8)).save(given / "002.png")
    with pytest.raises(ValueError, match="pictures are 32 x 32, 8 x 8: expected one size"):
        rows_of(*folders)
    (here / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="empty"):
        rows_of("reconstructions=empty", "originals=given", *PIXELS)


@pytest.mark.parametrize(
    ("arguments", "words", "status"),
    [
        (["protocl=clcae"], ["no key 'protocl'", "did you mean protocol"], 2),
        (["protocol=fid"], ["no protocol 'fid'", "clcae, e4e, portraits, sfe, styleres"], 2),
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
    assert len(names) == 5
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
