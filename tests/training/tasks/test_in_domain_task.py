"""The stages of in-domain inversion and of the warm start: losses, phases, resuming, processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small_methods import small_e4e, small_e4e_z_plus, small_in_domain, small_psp
from small_tasks import IMAGES, Small, changed, copies
from two_players import check_resumes_exactly, check_two_processes_equal_one, iteration_of, run

import clcae
from clcae.methods.interface import InversionMethod
from clcae.stylegan2 import Discriminator
from training.task import Phase, Task
from training.tasks.in_domain import InDomainTask
from training.tasks.regression import RegressionTask

ROOT = Path(__file__).resolve().parents[3]
FEW = ["data.num_people=32", "validation.num_people=8", "test.num_people=8"]
WEIGHTS = {"l2": 1.0, "perceptual": 0.7, "adversarial": 0.3}


def make_task(method: Any = None, **settings: Any) -> InDomainTask:
    method = small_in_domain() if method is None else method
    torch.manual_seed(1)
    given: dict[str, Any] = {
        "images": IMAGES,
        "validation_images": IMAGES,
        "judges": Small(),
        "discriminator": Discriminator(resolution=32, channels=[4, 4, 4, 4], group_size=1),
        "weights": WEIGHTS,
    }
    task = InDomainTask(method=method, **{**given, **settings})
    task.prepare()
    return task


def regression(method: InversionMethod, **settings: Any) -> RegressionTask:
    given: dict[str, Any] = {"weights": {"angle": 1.0, "w": 0.5}, "validation_images": IMAGES}
    return RegressionTask(method=method, **{**given, **settings})


def output_of(task: Task, name: str, rows: int = 4) -> tuple[Any, dict[str, torch.Tensor]]:
    (context,) = iteration_of(task, stage="in_domain", batch_size=rows).contexts(0)
    with torch.no_grad():
        batch = task.load_batch(context)
    return task.loss(Phase(name, "encoder"), batch, context), batch


@pytest.mark.parametrize("space", ["W+", "Z+"])
def test_losses_of_both_players(space: Any) -> None:
    """The formulas of the paper, a picture after the other."""
    task = make_task(small_in_domain(space=space), r1_every=1)
    task.encoder.eval()  # pictures do not depend on each other
    output, batch = output_of(task, "encoder")
    expected = dict.fromkeys(WEIGHTS, 0.0)
    dis, judges, method = 0.0, Small(), task.method
    for image in batch["images"].split(1):
        picture = method.reconstruct(image)
        one, other = judges.features(picture), judges.features(image)
        expected["l2"] += float((picture - image).square().mean()) / 4
        expected["perceptual"] += float(judges.distance(one, other)) / 4
        expected["adversarial"] += float(F.softplus(-task.discriminator(picture).detach())) / 4
        real = image.clone().requires_grad_()
        logit = task.discriminator(real)
        (gradient,) = torch.autograd.grad(logit.sum(), real)
        fake = task.discriminator(picture)
        penalty = gradient.square().sum()
        dis += float((F.softplus(-logit) + F.softplus(fake) + 10 / 2 * penalty).detach()) / 4
    assert {name: float(value) for name, value in output.terms.items()} == pytest.approx(
        expected, rel=2e-4
    )
    total = sum(WEIGHTS[name] * value for name, value in expected.items())
    assert float(output.loss) == pytest.approx(total, rel=2e-4)
    output, _ = output_of(task, "discriminator")
    assert float(output.loss) == pytest.approx(dis, rel=2e-4)


def test_the_order_and_the_steps_of_r1() -> None:
    def names(step: int, **settings: Any) -> list[str]:
        return [phase.name for phase in make_task(**settings).phases(step)]

    assert names(0) == names(1) == ["encoder", "discriminator"]
    assert names(0, r1_every=16) == ["encoder", "discriminator", "r1"]
    assert names(1, r1_every=16) == ["encoder", "discriminator"]
    assert names(16, order="discriminator_first", r1_every=16) == ["discriminator", "r1", "encoder"]
    assert names(0, weights={**WEIGHTS, "adversarial": 0.0}) == ["encoder"]


@pytest.mark.parametrize("name", ["discriminator", "encoder"])
def test_a_phase_changes_its_own_player(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    (phase,) = (phase for phase in task.phases(0) if phase.name == name)
    monkeypatch.setattr(task, "phases", lambda step: [phase])
    before = copies(task)
    generator = [value.clone() for value in task.method.generator.state_dict().values()]
    scales = [value.clone() for key, value in task.encoder.named_buffers() if "weight" in key]
    iteration_of(task, stage="in_domain").run(0)
    moved = changed(task, before)
    assert {key.split(".")[0] for key in moved} == {phase.optimizer}
    assert all(map(torch.equal, generator, task.method.generator.state_dict().values()))
    now = [value for key, value in task.encoder.named_buffers() if "weight" in key]
    assert len(now) > 3 and all(map(torch.equal, scales, now))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": small_psp()}, "method is a PSP, expected InDomain"),
        ({"weights": {"l2": 1.0}}, "weights are l2: expected those of l2, perceptual, adversarial"),
        ({"order": "both"}, "order is 'both', expected 'encoder_first' or 'discriminator_first'"),
        ({"start": "w"}, "start is 'w', expected 'samples' or null"),
        (
            {"discriminator": Discriminator(resolution=16, channels=[4, 4, 4])},
            "the discriminator reads pictures of 16 pixels, the method those of 32",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**settings)


def test_samples_are_regressed_on_their_own_codes() -> None:
    method = small_e4e_z_plus()
    task = regression(method, noise="const")
    output, batch = output_of(task, "encoder", rows=6)
    z, generator = batch["z"], method.generator
    angle = w = 0.0
    changes = []
    for rows in z:
        picture = generator.synthesize(generator.map(rows[None])).clamp(-1, 1)
        found = method.invert(picture)
        angle += float(1 - F.cosine_similarity(found.codes[0], rows, dim=1).mean()) / 6
        w += float((method.mapped(found).codes[0] - generator.map(rows)).square().mean()) / 6
        changes.append(int((rows[1:] != rows[:-1]).any(dim=1).sum()))
    assert {*changes} == {0, 1}  # one code, or two of them
    assert float(output.terms["angle"]) == pytest.approx(angle, rel=1e-4)
    assert float(output.terms["w"]) == pytest.approx(w, rel=1e-4)
    assert float(output.loss) == pytest.approx(angle + 0.5 * w, rel=1e-4)
    iteration = iteration_of(task, stage="in_domain")
    before = copies(task)
    iteration.run(0)
    assert {key.split(".")[0] for key in changed(task, before)} == {"encoder"}


def test_regression_of_w_has_no_angles() -> None:
    task = regression(small_e4e(), weights={"angle": 0.0, "w": 1.0}, mixing=0.0)
    output, batch = output_of(task, "encoder")
    assert [*output.terms] == ["w"]
    assert torch.equal(batch["z"], batch["z"][:, :1].expand_as(batch["z"]))
    for settings, message in (
        ({}, r"weights.angle is 1.0, expected 0: the method has codes of W\+"),
        ({"weights": {"w": 1.0}}, "weights are w: expected those of angle, w"),
        ({"mixing": 2.0, "weights": {"angle": 0.0, "w": 1.0}}, "mixing is 2.0, expected a prob"),
    ):
        with pytest.raises(ValueError, match=message):
            regression(small_e4e(), **settings)


@pytest.mark.parametrize(
    ("experiment", "file", "space"),
    [
        ("portraits_in_domain", "in_domain", "W+"),
        ("portraits_in_domain_zplus", "in_domain", "Z+"),
        ("portraits_e4e_zplus", "e4e_z_plus", "Z+"),
    ],
)
def test_a_run_leaves_a_method(tmp_path: Path, experiment: str, file: str, space: str) -> None:
    folder = run(tmp_path / "runs", experiment)
    method = clcae.load_method(folder / f"{file}.safetensors")
    assert method.outputs == (space,)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    assert str(method.invert(images).space) == space
    assert method.reconstruct(images).shape == images.shape
    assert [*folder.glob("*.safetensors")] == [folder / f"{file}.safetensors"]


def test_a_stopped_run_resumes_exactly(tmp_path: Path) -> None:
    settings = ["stages.in_domain.task.r1_every=2"]
    check_resumes_exactly(
        tmp_path, "portraits_in_domain", *settings, stage="in_domain", stopped_after=2
    )


def test_two_processes_equal_one(children: Any, tmp_path: Path) -> None:
    # Minibatch deviation is within a process.
    settings = ["+discriminator.group_size=1"]
    check_two_processes_equal_one(
        children, tmp_path, "portraits_in_domain", *settings, stage="in_domain", betas=True
    )
