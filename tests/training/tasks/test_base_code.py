"""The stage of the base-code encoder: its loss, its parameters, a tiny run of the command."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from small_methods import Halves, tiny_generator
from torch import Tensor
from two_players import run

from clcae.encoders.base_code import BaseCodeEncoder
from clcae.pretrained.loading import load_base_code
from clcae.serialization import read_metadata
from clcae.stylegan2 import Layer, truncate
from training.iteration import Iteration
from training.task import Phase
from training.tasks.base_code import BaseCodeTask


def make_task(**settings: Any) -> BaseCodeTask:
    torch.manual_seed(3)
    given: dict[str, Any] = {
        "encoder": BaseCodeEncoder(image_size=16, widths=[5], out_channels=8),
        "generator": tiny_generator(),
        "layer": "8x8/0",
        "perceptual": Halves(),
        "perceptual_size": 8,
        "weights": {"l2": 1.0, "perceptual": 10.0},
        "truncation": 0.7,
        "truncated_rows": 4,
        "held_out": 5,
    }
    return BaseCodeTask(**{**given, **settings})


def iteration_of(task: BaseCodeTask) -> Iteration:
    return Iteration(
        task=task,
        optimizers={"encoder": torch.optim.SGD(task.encoder.parameters(), lr=1e-2)},
        stage="base_code",
        device=torch.device("cpu"),
        seed=0,
        total_steps=100,
        batch_size=6,
        accumulate=1,
        clip_norm=None,
        precision="float32",
    )


def test_the_loss_is_that_of_pictures_made_of_the_base_code() -> None:
    task = make_task()
    (context,) = iteration_of(task).contexts(0)
    batch = task.load_batch(context)
    generator, halves = task.generator, Halves()
    z = context.normal("z", 8)
    codes = truncate(
        generator.map(z)[:, None].expand(-1, 6, -1), generator.w_average, 0.7, num_rows=4
    )
    torch.testing.assert_close(batch["codes"], codes)
    torch.testing.assert_close(batch["images"], generator.synthesize(codes))
    feature = task.encoder(batch["images"])
    made = generator.synthesize(codes, at=(Layer(1), lambda own: feature), keep_skip=False)

    def scaled(images: Tensor) -> list[Tensor]:
        return halves.features(
            torch.nn.functional.interpolate(images, size=(8, 8), mode="bicubic", antialias=True)
        )

    l2 = (made - batch["images"]).square().mean()
    perceptual = halves.distance(scaled(made), scaled(batch["images"])).mean()
    output = task.loss(Phase("encoder", "encoder"), batch, context)
    torch.testing.assert_close(output.terms["l2"], l2)
    torch.testing.assert_close(output.loss, l2 + 10 * perceptual)
    output.loss.backward()
    assert all(parameter.grad is not None for parameter in task.encoder.parameters())
    assert all(parameter.grad is None for parameter in generator.parameters())


@torch.no_grad()
def test_validation_is_of_samples_that_no_step_draws() -> None:
    task = make_task()
    task.encoder.eval()
    first = task.validate()
    assert first == task.validate() and first["l2"] > 0
    assert task.samples().ndim == 3


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(
        ValueError, match=r"gives features \(8, 8, 8\), the generator's layer 16x16/0"
    ):
        make_task(layer="16x16/0")
    for settings in ({"truncation": math.nan}, {"held_out": 0}):
        with pytest.raises(ValueError, match=r"truncation is .* and held_out .*: expected"):
            make_task(**settings)
    with pytest.raises(ValueError, match=r"weights are \['l2'\]: expected those of l2, perceptual"):
        make_task(weights={"l2": 1.0})


def test_the_experiment_leaves_an_encoder(tmp_path: Path) -> None:
    path = (
        run(tmp_path / "runs", "portraits_base_code", "+stages.base_code.task.held_out=8")
        / "base_code.safetensors"
    )
    assert load_base_code(path).out_shape == (128, 16, 16)
    assert read_metadata(path).provenance["layer"] == "16x16/0"
