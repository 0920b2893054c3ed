"""Pivotal tuning in invert.py and edit.py: the changed weights lie in the inversion files."""

from pathlib import Path

import pytest
import torch
from PIL import Image
from small_methods import tiny_generator, write_method

from clcae.images import read_image, to_uint8
from clcae.methods.inversion_file import load_inversion
from clcae.methods.optimization import Optimization
from clcae.methods.pivotal_tuning import TUNED, PivotalTuning
from clcae.portraits import PortraitImages
from clcae.stylegan2 import Generator
from editing import Direction, edit_inversion, save_directions
from scripts.edit import main as edit
from scripts.invert import main as invert


def tuning(generator: Generator) -> PivotalTuning:
    pivot = Optimization(generator=generator, steps=3, output="W", outputs=["W"])
    return PivotalTuning(pivot=pivot, steps=3, lr=1e-2, tuned="to_rgb").eval()


def test_edits_of_stored_inversions_are_drawn_by_their_own_generators(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, out, generator = tmp_path / "photos", tmp_path / "out", tiny_generator()
    photos.mkdir()
    for index, image in enumerate(PortraitImages(split="test", size=16).images(range(2))):
        Image.fromarray(to_uint8(image).permute(1, 2, 0).numpy()).save(photos / f"{index}.png")
    method = tuning(generator)
    file = str(write_method(method, tmp_path / "tuning.safetensors"))
    assert invert([str(photos), "--method", file, "--out", str(out)]) == 0
    inversion, _ = load_inversion(out / "0.safetensors")
    other, _ = load_inversion(out / "1.safetensors")
    names = [key for key in inversion.context if key.startswith(TUNED)]
    assert len(names) == 4 * 3  # weight, bias and affine of three to-RGB
    assert not any(torch.equal(inversion.context[key], other.context[key]) for key in names)
    held = sum(inversion.context[key].nbytes for key in names) + inversion.codes.nbytes
    assert (out / "0.safetensors").stat().st_size < 1.05 * held + 4096  # the description

    direction = Direction(name="a", vector=torch.ones(1, 10), strengths=(-1, 1))
    save_directions({"a": direction}, tmp_path / "a.safetensors", provenance={})
    given = ["--directions", str(tmp_path / "a.safetensors"), "--edit", "a=0.5"]
    stored = [str(out / "0.safetensors"), str(out / "1.safetensors")]
    edited = tmp_path / "edited"
    assert edit([*stored, "--method", file, *given, "--out", str(edited)]) == 0
    for index, one in enumerate((inversion, other)):
        expected = method.synthesize(edit_inversion(method, one, [(direction, 0.5)]))[0]
        drawn = read_image(edited / f"{index}.png")
        assert (drawn - expected.clamp(-1, 1)).abs().max() < 1.01 / 127.5

    capsys.readouterr()
    changed = tiny_generator()
    changed.synthesis.const.data[0, 0, 0] += 1
    wrong = str(write_method(tuning(changed), tmp_path / "wrong.safetensors"))
    assert edit([stored[0], "--method", wrong, *given, "--out", str(tmp_path / "none")]) == 1
    assert "inverted by another method" in capsys.readouterr().err
