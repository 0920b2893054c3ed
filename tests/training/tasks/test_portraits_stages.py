"""The stages that make the shipped files, three tiny steps each, through the real command."""

from pathlib import Path

import pytest
from real_runs import run_training

from clcae.frozen.portraits import AttributeRegressor, IdentityEmbedder
from clcae.serialization import load, read_metadata
from clcae.stylegan2 import Generator


def run(folder: Path, experiment: str, *arguments: str) -> Path:
    """Runs an experiment; returns the run folder."""
    run_training(folder, f"+experiment={experiment}", *arguments)
    return folder / f"{experiment}-debug"


@pytest.mark.parametrize(
    ("name", "judge"), [("identity", IdentityEmbedder), ("attributes", AttributeRegressor)]
)
def test_a_judge_comes_with_its_card(tmp_path: Path, name: str, judge: type) -> None:
    few = ["data.num_people=4", "data.pictures_per_person=4"]
    few += ["validation.num_people=8", "validation.pictures_per_person=4"]
    folder = run(tmp_path, f"portraits_{name}", *few, "test_sets=null")
    path = folder / f"{name}.safetensors"
    load(path, expected=judge)
    assert read_metadata(path).provenance["command"].endswith(f"portraits_{name}")
    assert "| figure | validation |" in (folder / f"{name}.md").read_text()


@pytest.mark.parametrize(
    ("experiment", "own", "phases"),
    [
        (
            "portraits_generator",
            ["stages.imitation.task.compile=false"],
            ["mapping/mse", "generator/reconstruction"],
        ),
        (
            "portraits_adversarial",
            [
                "stages.adversarial.task.compile=false",
                "+stages.adversarial.task.discriminator_warmup=1",
                "+stages.adversarial.task.path_length_weight=2.0",
                "+stages.adversarial.task.path_length_every=2",
            ],
            ["r1/penalty", "path_length/penalty", "generator/adversarial"],
        ),
    ],
)
def test_the_generator_comes_with_its_card(
    tmp_path: Path, experiment: str, own: list[str], phases: list[str]
) -> None:
    few = [
        "+data.num_people=16",
        "+plain_train_images.num_people=16",
        "generator_report.held_out_images.num_people=8",
        "generator_report.plain_images.num_people=4",
        "+generator_report.num_projected=2",
        "+generator_report.projection_steps=2",
    ]
    folder = run(tmp_path, experiment, *few, *own)
    generator = load(folder / "generator.safetensors", expected=Generator)
    assert generator.w_average.abs().sum() > 0
    card = (folder / "generator.md").read_text()
    assert "PSNR of W+ projections" in card
    assert f"+experiment={experiment}" in card
    for name in ("samples.png", "projections.png"):
        assert (folder / name).stat().st_size > 0
    log = (folder / "metrics.jsonl").read_text()
    for phase in phases:
        assert phase in log
