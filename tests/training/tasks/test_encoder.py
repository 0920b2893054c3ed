"""Any inversion method trains through EncoderTask: a method, a loss and a config are enough."""

import json
from pathlib import Path
from typing import Literal

import pytest
import torch
from hydra import compose, initialize_config_dir
from small_methods import small_official
from tiny_encoder import TinyEncoder

import clcae
from clcae.aligner import Aligner
from clcae.data.sources import TensorImages
from clcae.images import read_image
from clcae.portraits import PortraitImages
from clcae.pretrained.assets import portraits_judges
from training.run import train
from training.tasks.clcae import CLCAETask

ROOT = Path(__file__).resolve().parents[3]
FEW = ["data.num_people=16", "validation.num_people=8", "test.num_people=8"]


def run(folder: Path, *overrides: str) -> Path:
    """Trains the tiny encoder through the real configuration; returns the run folder."""
    here = f"hydra.searchpath=[file://{ROOT / 'tests' / 'training' / 'configs'}]"
    paths = [f"paths.runs={folder}", f"paths.cache={folder / 'cache'}"]
    quiet = ["device=cpu", "trainer.threads=1", "trainer.progress=false"]
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        arguments = [here, "+experiment=tiny_encoder", *paths, *quiet, *FEW, *overrides]
        cfg = compose("train", overrides=arguments)
    return Path(train(cfg)["run"])


def test_a_new_encoder_needs_a_method_a_loss_and_a_config(tmp_path: Path) -> None:
    folder = run(tmp_path)
    (row,) = json.loads((folder / "table.json").read_text())
    assert (row["method"], row["space"], row["num_images"]) == ("TinyEncoder", "W+", 8)
    assert set(row["metrics"]) == {"MSE", "PSNR", "SSIM", "perceptual", "identity", "ms"}
    assert "| TinyEncoder | W+ |" in (folder / "table.md").read_text()
    grids = [folder / "grid.png", *(folder / "samples").rglob("*.png")]
    assert len(grids) > 1 and all(read_image(grid).shape[0] == 3 for grid in grids)

    method = clcae.load_method(folder / "tiny.safetensors")
    assert type(method) is TinyEncoder
    images = PortraitImages(split="test", num_people=8, cache=tmp_path / "cache")
    pictures = method.reconstruct(images.images(torch.arange(8))).clamp(-1, 1)
    error = (pictures - images.images(torch.arange(8))).square().mean()
    assert abs(float(error) - row["metrics"]["MSE"]) < 2e-3  # there it is of 8-bit pictures

    checkpoint = torch.load(folder / "checkpoints" / "encoder" / "last.pt", weights_only=True)
    assert all(key.startswith("network.") for key in checkpoint["modules"]["encoder"])


def test_training_brings_the_pictures_nearer(tmp_path: Path) -> None:
    error = {}
    for steps in (1, 30):
        folder = run(tmp_path, f"run=steps{steps}", f"stages.encoder.trainer.steps={steps}")
        (row,) = json.loads((folder / "table.json").read_text())
        error[steps] = row["metrics"]["MSE"]
    assert error[30] < error[1]


@pytest.mark.parametrize("start", ["aligner", "identity", "random"])
def test_clcae_starts_from_what_it_is_told(start: Literal["aligner", "identity", "random"]) -> None:
    method, judges = small_official(), portraits_judges()
    aligner = Aligner(
        image_size=32, w_dim=20, dim=20, stem_channels=6, stages=[[8, 1], [12, 1]], stem_stride=1
    )
    trunk, head = aligner.image_tower.trunk, aligner.image_tower.head
    source = TensorImages(pixels=torch.zeros(4, 3, 32, 32, dtype=torch.uint8))
    if start == "identity":  # a trunk as small as this encoder's
        judges.identity.trunk = trunk
    method.average_image.zero_()
    before = [value.clone() for value in method.state_dict().values()]
    task = CLCAETask(
        method=method,
        images=source,
        validation_images=source,
        judges=judges,
        aligner=aligner,
        weights={},
        start=start,
    )
    assert all(map(torch.equal, before, method.state_dict().values()))  # building copies nothing
    task.prepare()
    pairs = {"trunk": (method.pyramid.trunk, trunk), "head": (method.foundation, head)}
    copied = {
        name
        for name, (ours, theirs) in pairs.items()
        if all(map(torch.equal, ours.state_dict().values(), theirs.state_dict().values()))
    }
    assert copied == {"aligner": {"trunk", "head"}, "identity": {"trunk"}, "random": set()}[start]
    assert method.average_image.abs().sum() > 0
