"""optimization/NAME for any generator file, in invert.py and edit.py."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from small_methods import small_e4e, tiny_generator, write_method
from torchvision.models import alexnet, vgg16

from clcae.encoders.base_code import BaseCodeEncoder
from clcae.images import to_uint8
from clcae.methods.inversion_file import load_inversion
from clcae.methods.optimization import Optimization
from clcae.methods.pivotal_tuning import PivotalTuning, changes_of
from clcae.portraits import PortraitImages
from clcae.serialization import save
from clcae.stylegan2 import Generator, LatentSpace
from editing import Direction, save_directions
from scripts.edit import main as edit
from scripts.invert import main as invert
from training.untrained import FROM_ENCODERS, load_or_build, names

PLAIN = ["w", "w_f", "w_plus", "w_plus_f", "z", "z_f", "z_plus", "z_plus_f"]
TUNED = ["w", "w_gains", "w_many_paper", "w_paper"]
PAPERS = ["w_paper", "w_plus_f_paper", "z_plus_f_paper", "z_plus_paper"]


@pytest.fixture
def generator_file(tmp_path: Path) -> Path:
    save(tiny_generator(), tmp_path / "generator.safetensors", provenance={})
    return tmp_path / "generator.safetensors"


def write_pictures(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for index, image in enumerate(PortraitImages(split="test", size=16).images(range(count))):
        Image.fromarray(to_uint8(image).permute(1, 2, 0).numpy()).save(folder / f"{index}.png")


def test_every_name_builds_around_a_generator(generator_file: Path) -> None:
    searched = [f"optimization/{name}" for name in sorted([*PLAIN, *PAPERS])]
    assert names() == [
        *(*FROM_ENCODERS, "optimization"),
        *(*searched, "pivotal_tuning", *(f"pivotal_tuning/{name}" for name in TUNED)),
    ]
    for name in PLAIN:
        method = load_or_build(f"optimization/{name}", generator=str(generator_file))
        space = name.removesuffix("_f").replace("_plus", "+").upper()
        output = f"F/{space}" if name.endswith("_f") else space
        assert isinstance(method, Optimization) and method.outputs == (output,) == (method.output,)
        assert method.generator.resolution == 16
    for name in ("w", "w_gains"):
        method = load_or_build(f"pivotal_tuning/{name}", generator=str(generator_file))
        assert isinstance(method, PivotalTuning) and method.generator.resolution == 16
    assert load_or_build("optimization/w").generator.resolution == 64  # the portraits'
    for name in ("${g} (1).safetensors", "ffhq", "null"):  # which Hydra takes for something else
        other = generator_file.rename(generator_file.with_name(name))
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(other.parent)
            built = load_or_build("optimization/w", generator=name)
        assert built.generator.resolution == 16
        generator_file = other


def test_the_papers_values_run(tmp_path: Path) -> None:
    """Two steps of each around a generator of 64 pixels, with trunks of LPIPS at random."""
    torch.manual_seed(0)
    sizes = {"channels": [8, 8, 6, 6, 4], "z_dim": 8, "w_dim": 10, "mapping_layers": 2}
    generator = Generator(resolution=64, **sizes)
    save(generator, tmp_path / "generator.safetensors", provenance={})
    torch.save(alexnet(weights=None).state_dict(), tmp_path / "alex.pth")
    torch.save(vgg16(weights=None).state_dict(), tmp_path / "vgg.pth")
    base_code = BaseCodeEncoder(image_size=128, widths=(4, 4, 4), out_channels=6)
    save(base_code, tmp_path / "base_code.safetensors", provenance={})
    images = PortraitImages(split="test").images(range(2))
    search = [f"perceptual.trunk={tmp_path / 'vgg.pth'}", "perceptual_size=32", "steps=2"]
    tune = [f"perceptual.trunk={tmp_path / 'alex.pth'}", "steps=2"]
    tune += [f"pivot.{setting}" for setting in search]
    for name in names():
        if not name.endswith("_paper"):
            continue
        settings = search if name.startswith("optimization") else tune
        if "_f_" in name:
            settings = [*search, f"base_code.source={tmp_path / 'base_code.safetensors'}"]
        if "w_plus_f" in name:
            settings = [*settings, "normal_samples=500"]
        method = load_or_build(
            name, generator=str(tmp_path / "generator.safetensors"), settings=settings
        )
        inversion = method.invert(images)
        pictures = method.synthesize(inversion)
        assert pictures.shape == images.shape and bool(pictures.isfinite().all()), name
        assert isinstance(method, PivotalTuning) == bool(changes_of(inversion)), name


def test_settings_are_those_of_the_class(generator_file: Path) -> None:
    settings = ["steps=7", "lr=0.02", "noise=free", "weights.pixel=2"]
    method = load_or_build("optimization/z", generator=str(generator_file), settings=settings)
    assert isinstance(method, Optimization) and (method.steps, method.lr) == (7, 0.02)
    assert method.noise == "free" and method.weights == {"pixel": 2}
    settings = ["steps=3", "pivot.steps=4", "tuned=to_rgb"]
    tuning = load_or_build("pivotal_tuning/w", generator=str(generator_file), settings=settings)
    assert isinstance(tuning, PivotalTuning) and isinstance(tuning.pivot, Optimization)
    assert (tuning.steps, tuning.pivot.steps) == (3, 4)
    assert tuning.names and all("to_rgb" in name for name in tuning.names)


def test_an_encoder_of_ones_own_begins_the_search(tmp_path: Path) -> None:
    file = write_method(small_e4e(), tmp_path / "e4e.safetensors")
    save(small_e4e().generator, tmp_path / "its.safetensors", provenance={})
    settings = [f"encoder.source={file}", "steps=2"]
    method = load_or_build(
        "in_domain_search_portraits",
        generator=str(tmp_path / "its.safetensors"),
        settings=settings,
    )
    assert isinstance(method, Optimization) and method.start == "encoder"
    assert method.encoder is not None and method.encoder.outputs == small_e4e().outputs


def test_a_picture_is_inverted_once_and_edited(
    generator_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out = tmp_path / "photos", tmp_path / "out"
    search = ["--method", "optimization/z_plus_f", "--set", "steps=20"]
    method = [*search, "--generator", str(generator_file)]
    write_pictures(photos, 1)
    assert invert([str(photos), *method, "--out", str(out)]) == 0
    before = (out / "0.safetensors").stat().st_mtime_ns
    write_pictures(photos, 2)
    assert invert([str(photos), *method, "--out", str(out)]) == 0
    assert "1 done" in capsys.readouterr().out and (out / "1.safetensors").is_file()
    assert (out / "0.safetensors").stat().st_mtime_ns == before
    inversion, origin = load_inversion(out / "0.safetensors")
    assert inversion.space is LatentSpace.Z_PLUS and str(inversion.layer) == "16x16/0"
    assert (origin.maker.source, origin.maker.output) == ("optimization/z_plus_f", "F/Z+")
    rng = torch.Generator().manual_seed(7)
    direction = Direction(
        name="a", vector=torch.randn(1, 8, generator=rng), space=LatentSpace.Z, strengths=(-1, 1)
    )
    save_directions({"a": direction}, tmp_path / "a.safetensors", provenance={})
    given = [*method, "--directions", str(tmp_path / "a.safetensors"), "--edit", "a=1"]
    edited = tmp_path / "edited"
    assert edit([str(out / "0.safetensors"), *given, "--out", str(edited)]) == 0
    assert (edited / "0.png").read_bytes() != (out / "0.png").read_bytes()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--method", "optimization/z_minus"], "no method optimization/z_minus; there are"),
        (["--method", "optimization/w", "--generator", "none.pkl"], "no file none.pkl, expected"),
        (
            ["--method", "FILE", "--generator", "g.pkl"],
            "--generator is for optimization, pivotal_tuning and searches from enc",
        ),
        (["--method", "FILE", "--set", "steps=3"], "--set is for optimization, pivotal_tuning"),
        (
            ["--method", "optimization/w", "--set", "stpes=3"],
            "unexpected keyword argument 'stpes'; it takes generator, steps, lr",
        ),
        (["--method", "optimization/w", "--set", "steps=abc"], "method.steps is 'abc', expected"),
        (["--method", "optimization/w", "--set", "steps"], "--set steps: expected KEY=VALUE"),
        (["--method", "optimization/w", "--set", "lr=["], "--set lr=[: cannot be read"),
        (["--method", "optimization/w", "--output", "W+"], "output is 'W+', Optimization has W"),
    ],
)
def test_mistakes(
    arguments: list[str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pictures(tmp_path / "photos", 1)
    file = str(write_method(small_e4e(), tmp_path / "e4e.safetensors"))
    given = [file if argument == "FILE" else argument for argument in arguments]
    assert invert([str(tmp_path / "photos"), *given, "--out", str(tmp_path / "out")]) == 1
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
