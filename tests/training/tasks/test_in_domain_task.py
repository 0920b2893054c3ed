"""The stages of in-domain inversion and of the warm start: losses, phases, resuming, processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from real_runs import run_training
from small_methods import small_e4e, small_e4e_z_plus, small_in_domain, small_psp
from small_tasks import IMAGES, Small, changed, copies
from toy_runs import checkpoint, identical

import clcae
from clcae.methods.interface import InversionMethod
from clcae.stylegan2 import Discriminator
from training.iteration import Iteration
from training.run import train
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


def iteration_of(task: Task, **settings: Any) -> Iteration:
    optimizers = {
        name: torch.optim.SGD(list(group), lr=1e-3) for name, group in task.parameters().items()
    }
    given = {"batch_size": 4, "accumulate": 1, "clip_norm": None, "precision": "float32"}
    return Iteration(
        task=task,
        optimizers=optimizers,
        stage="in_domain",
        device=torch.device("cpu"),
        seed=0,
        total_steps=100,
        **{**given, **settings},
    )


def output_of(task: Task, name: str, rows: int = 4) -> tuple[Any, dict[str, torch.Tensor]]:
    (context,) = iteration_of(task, batch_size=rows).contexts(0)
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
    iteration_of(task).run(0)
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
    iteration = iteration_of(task)
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


def run(folder: Path, *overrides: str, experiment: str) -> Path:
    """Trains through the real configuration; returns the run folder."""
    paths = [f"paths.runs={folder}", f"paths.cache={folder.parent / 'cache'}"]
    quiet = ["device=cpu", "trainer.threads=1", "trainer.progress=false", "trainer=debug"]
    arguments = [f"+experiment={experiment}", *quiet, *paths, *FEW, *overrides]
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        return Path(train(compose("train", overrides=arguments))["run"])


@pytest.mark.parametrize(
    ("experiment", "file", "space"),
    [
        ("portraits_in_domain", "in_domain", "W+"),
        ("portraits_in_domain_zplus", "in_domain", "Z+"),
        ("portraits_e4e_zplus", "e4e_z_plus", "Z+"),
    ],
)
def test_a_run_leaves_a_method(tmp_path: Path, experiment: str, file: str, space: str) -> None:
    folder = run(tmp_path / "runs", experiment=experiment)
    method = clcae.load_method(folder / f"{file}.safetensors")
    assert method.outputs == (space,)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    assert str(method.invert(images).space) == space
    assert method.reconstruct(images).shape == images.shape
    assert [*folder.glob("*.safetensors")] == [folder / f"{file}.safetensors"]


def test_a_stopped_run_resumes_exactly(tmp_path: Path) -> None:
    steps = ["trainer.limit_steps=4", "trainer.save_every=1", "trainer.keep_last=9"]
    steps += ["stages.in_domain.task.r1_every=2"]
    folder = run(tmp_path / "runs", *steps, experiment="portraits_in_domain")
    whole = checkpoint(folder, stage="in_domain")
    assert {*whole["modules"]} == {*whole["optimizers"]} == {"encoder", "discriminator"}
    stage = folder / "checkpoints" / "in_domain"
    (stage / "finished.json").unlink()
    (stage / "step_00000002.pt").replace(stage / "last.pt")
    run(tmp_path / "runs", *steps, experiment="portraits_in_domain")
    resumed = checkpoint(folder, stage="in_domain")
    for key in ("modules", "ema", "optimizers"):
        assert identical(whole[key], resumed[key]), key


def test_two_processes_equal_one(tmp_path: Path) -> None:
    fixed = [
        "+experiment=portraits_in_domain",
        *FEW,
        "report=null",
        "trainer.precision=float32",
        "trainer.limit_steps=2",
        "trainer.limit_batch_size=8",
        "+discriminator.group_size=1",  # of minibatch deviation, which is within a process
        *(
            f"{prefix}stages.in_domain.optim.{name}.{setting}"
            for name in ("encoder", "discriminator")
            for prefix, setting in (
                ("", "_target_=torch.optim.SGD"),
                ("~", "betas"),
                ("", "lr=1.0e-4"),
                ("++", "momentum=0.9"),
            )
        ),
    ]
    for count in (1, 2):
        run_training(tmp_path / str(count), *fixed, processes=count)
    folders = [tmp_path / count / "portraits_in_domain-debug" for count in "12"]
    one, two = (checkpoint(folder, stage="in_domain") for folder in folders)
    for name in ("encoder", "discriminator"):
        # What SGD keeps in the momentum: the gradients themselves.
        expected, value = (
            torch.cat([part["momentum_buffer"].flatten() for part in state.values()])
            for state in (side["optimizers"][name]["state"] for side in (one, two))
        )
        assert expected.norm() > 0
        assert (value - expected).norm() <= 1e-2 * expected.norm(), name
