"""The papers' full-size experiments: two steps with formula weights in the official layouts."""

import json
import re
from pathlib import Path
from typing import Any

import official
import pytest
import torch
from real_runs import run_training
from torchvision.models import alexnet, vgg16

from clcae.images import write_png

ARCFACE = ("model_ir_se50.pth", "arcface_irse50")
MOCO = ("moco_v2_800ep_pretrain.pth", "moco_v2")
FACES = {
    "generator": ("stylegan2-ffhq-config-f.pt", "rosinality_1024"),
    "networks": [ARCFACE],
    "folders": ("ffhq", "celeba_hq"),
}
CARS = {
    "generator": ("stylegan2-car-config-f.pt", "clcae_512"),
    "networks": [MOCO],
    "folders": ("cars_train", "cars_test"),
}
JUDGE = "nvidia_disc_256"
CASES = {
    "ffhq": FACES,
    "cars": CARS,
    "e4e_ffhq": FACES,
    "e4e_cars": {**CARS, "networks": [MOCO, ARCFACE]},  # its trunk starts from ArcFace
    "styleres_ffhq": {**FACES, "networks": [ARCFACE, ("stylegan2-ffhq-256x256.pkl", JUDGE)]},
    "styleres_cars": CARS,
    "in_domain_ffhq": {**FACES, "networks": [ARCFACE, ("stylegan2-ffhq-256x256.pkl", JUDGE)]},
}
CLCAE = ["+stages.aligner.task.held_out_pairs=4", "stages.clcae.task.checkpoint_activations=true"]
E4E = ["stages.e4e.task.progressive_start=1"]  # W, then the first offset
STYLERES = ["stages.styleres.task.edited=1"]  # the cycle for both pictures
OWN = {"ffhq": CLCAE, "cars": CLCAE, "e4e_ffhq": E4E, "e4e_cars": E4E}
OWN["styleres_ffhq"] = [*STYLERES, "discriminator.which=null"]  # a state dict, no .pkl of three
OWN["styleres_cars"] = STYLERES
OWN["in_domain_ffhq"] = [  # there is no .pkl of both networks: another generator, a state dict
    "generator.source=${paths.weights}/stylegan2-ffhq-config-f.pt",
    "discriminator.which=null",
]
SPACES = {"in": ["W+"], "e4e": ["W+"], "styleres": ["W+", "F"]}


def e4e_file(*, cars: bool) -> dict[str, Any]:
    """The official file of e4e; of cars with the 16 heads and the generator of 512 pixels."""
    checkpoint = official.checkpoint("e4e_1024")
    opts = {"encoder_type": "Encoder4Editing", "dataset_type": "cars_encode" if cars else "ffhq"}
    if not cars:
        return {**checkpoint, "opts": opts}
    lacking = re.compile(r"decoder\..*|encoder\.styles\.1[67]\..*")
    state = checkpoint["state_dict"]
    kept = {key: state[key] for key in state if not lacking.fullmatch(key)}
    generator = official.state_dict("clcae_512")
    kept |= {key: generator[key] for key in generator if key.startswith("decoder.")}
    return {"state_dict": kept, "latent_avg": checkpoint["latent_avg"][:16], "opts": opts}


def weights(folder: Path, experiment: str) -> None:
    """The files that the experiment wants, in their layouts."""
    folder.mkdir()
    case = CASES[experiment]
    name, layout = case["generator"]
    if layout == "rosinality_1024":
        checkpoint = official.checkpoint(layout)
    else:  # the decoder of a CLCAE file is a generator in the same layout
        state = official.state_dict(layout)
        prefix = "decoder."
        decoder = {key.removeprefix(prefix): state[key] for key in state if key.startswith(prefix)}
        checkpoint = {"g_ema": decoder, "latent_avg": torch.zeros(512)}
    torch.save(checkpoint, folder / name)
    for name, layout in case["networks"]:
        torch.save(official.checkpoint(layout), folder / name)
    if experiment.startswith("styleres"):
        name = experiment.partition("_")[2]
        torch.save(e4e_file(cars=name == "cars"), folder / f"e4e_{name}_encode.pt")
    torch.manual_seed(0)
    torch.save(alexnet(weights=None).state_dict(), folder / "alexnet.pth")
    if experiment.startswith("in_domain"):
        features = vgg16(weights=None).features.state_dict()
        state = {f"layer{key}": value for key, value in features.items()}
        torch.save(state, folder / "vgg16.pth")


@pytest.mark.slow
@pytest.mark.parametrize("experiment", sorted(CASES))
def test_two_steps_at_full_size(tmp_path: Path, experiment: str) -> None:
    faces = experiment.endswith("ffhq")
    weights(tmp_path / "weights", experiment)
    for folder in CASES[experiment]["folders"]:
        for index, image in enumerate(official.image(3, 96, 128)):
            path = tmp_path / "data" / folder / f"{index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(image, path)
    said = run_training(
        tmp_path,
        f"+experiment={experiment}",
        f"paths.weights={tmp_path / 'weights'}",
        f"paths.data={tmp_path / 'data'}",
        f"judges.lpips_trunk={tmp_path / 'weights' / 'alexnet.pth'}",
        "trainer.limit_steps=2",
        "trainer.limit_batch_size=2",
        "trainer.threads=2",
        *OWN[experiment],
        timeout=1500,
    )
    print("\n".join(line for line in said.splitlines() if "peak memory" in line))
    folder = tmp_path / f"{experiment}-debug"
    rows = json.loads((folder / "table.json").read_text())
    spaces = SPACES.get(experiment.partition("_")[0], ["W", "W+", "F"])
    assert [row["space"] for row in rows] == spaces
    size = "256 x 256" if faces else "192 x 256"
    assert {row["protocol"]["MSE"]["resolution"] for row in rows} == {size}
    judge = "ArcFace IR-SE50" if faces else "MoCo v2 ResNet-50"
    assert judge in json.dumps(rows[0]["protocol"]["identity"])
