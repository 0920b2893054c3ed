"""The stage of StyleRes: losses, what every phase changes, stages, resuming, two processes."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from small_methods import small_e4e, small_psp, small_styleres
from small_tasks import IMAGES, Small, changed, copies
from torch import nn
from two_players import check_resumes_exactly, check_two_processes_equal_one, iteration_of, run

import clcae
from clcae.data.sources import TensorImages
from clcae.losses.inversion import reconstruction_rows, reconstruction_terms
from clcae.losses.residual import REGULARIZERS, edit_towards
from clcae.methods.e4e import E4E
from clcae.methods.styleres import StyleRes
from clcae.nn.batch_norm import BatchNorm2d
from clcae.portraits import PortraitImages
from clcae.serialization import save
from clcae.stylegan2 import Discriminator
from training.run import train
from training.task import Phase
from training.tasks.styleres import CYCLE, StyleResTask

ROOT = Path(__file__).resolve().parents[3]
FEW = ["data.num_people=32", "validation.num_people=8", "test.num_people=8"]
WEIGHTS = {
    "l2": 1.0,
    "perceptual": 0.8,
    "identity": 0.1,
    "cycle_l2": 0.7,
    "cycle_perceptual": 0.5,
    "cycle_identity": 0.3,
    "adversarial": 0.1,
    "feature": 0.2,
}


def seen(e4e: E4E) -> E4E:
    """An e4e that counts as trained: a batch norm of it has seen pictures."""
    norm = next(part for part in e4e.encoder.modules() if isinstance(part, BatchNorm2d))
    assert norm.running_mean is not None
    norm.running_mean += 1e-3
    return e4e


def make_task(method: StyleRes | None = None, **settings: Any) -> StyleResTask:
    method = small_styleres(fusion="sum") if method is None else method
    torch.manual_seed(1)
    given: dict[str, Any] = {
        "e4e": seen(small_e4e()),
        "images": IMAGES,
        "validation_images": IMAGES,
        "judges": Small(),
        "discriminator": Discriminator(resolution=32, channels=[4, 4, 4, 4], group_size=1),
        "weights": WEIGHTS,
    }
    task = StyleResTask(method=method, **{**given, **settings})
    task.prepare()
    return task


def batch_of(task: StyleResTask, rows: int = 6, step: int = 0) -> dict[str, torch.Tensor]:
    (context,) = iteration_of(task, stage="styleres", batch_size=rows).contexts(step)
    with torch.no_grad():
        return task.load_batch(context)


def loss_of(task: StyleResTask, name: str, batch: Any) -> Any:
    (context,) = iteration_of(task, stage="styleres", batch_size=len(batch["images"])).contexts(0)
    return task.loss(Phase(name, name), batch, context)


def test_edits_go_part_of_the_way_to_a_sampled_code() -> None:
    rng = np.random.RandomState(0)
    codes, w = rng.randn(3, 5, 4), rng.randn(3, 4)
    alpha = np.array([0.0, 4.5, 10.0])
    edit = edit_towards(*(torch.from_numpy(value) for value in (codes, w, alpha))).numpy()
    for row in range(3):
        for layer in range(5):
            expected = alpha[row] * (w[row] - codes[row, layer]) / 10
            np.testing.assert_allclose(edit[row, layer], expected)
    np.testing.assert_allclose((codes + edit)[2], np.repeat(w[2:], 5, axis=0))


def test_regularizers() -> None:
    delta = np.random.RandomState(1).randn(3, 2, 4, 4)
    given = torch.from_numpy(delta).float()
    roots = [np.sqrt(np.mean(picture**2)) for picture in delta]
    assert float(REGULARIZERS["norm"](given)) == pytest.approx(np.mean(roots), rel=1e-6)
    assert float(REGULARIZERS["absolute"](given)) == pytest.approx(np.abs(delta).mean(), rel=1e-6)


def test_rows_average_to_the_terms() -> None:
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    rows = reconstruction_rows(images.flip(3), images, Small())
    terms = reconstruction_terms({"one": images.flip(3)}, images, Small())
    for name, values in rows.items():
        torch.testing.assert_close(values.mean(), terms[name]["one"])


@torch.no_grad()
@pytest.mark.parametrize("cycled", ["edited", "all"])
def test_the_loss_is_that_of_the_equations(cycled: Any) -> None:
    """Every picture by itself; x' as the method's own `invert` and `synthesize` make it."""
    task = make_task(cycled=cycled)
    method, judges = task.method, Small()
    batch = batch_of(task)
    assert 0 < int((batch["alpha"] == 0).sum()) < 6
    expected = dict.fromkeys(WEIGHTS, 0.0)
    for row in range(6):
        image = batch["images"][row : row + 1]
        edit, alpha = batch["edit"][row : row + 1], float(batch["alpha"][row])
        move = method.edit(method.invert(image), lambda codes, edit=edit: codes + edit)
        first = method.synthesize(move)
        codes, skip = method.encode_with_skip(first)
        own = method.begin(codes).feature
        back = method.begin(codes - edit)
        injected = method.transform(back.feature, method.residual(skip, own))
        second = method.finish(back, codes - edit, injected)
        plain = method.generator.begin(move.codes, method.layer).feature
        delta = method.transform(plain, move.feature).delta
        expected["feature"] += float(delta.square().mean().sqrt()) / 6
        for prefix, picture, counts in (
            ("", first, alpha == 0),
            ("cycle_", second, alpha > 0 or cycled == "all"),
        ):
            if not counts:
                continue
            one, other = judges.features(picture), judges.features(image)
            cosine = (judges.embed(one) * judges.embed(other)).sum()
            expected[f"{prefix}l2"] += float((picture - image).square().mean()) / 6
            expected[f"{prefix}perceptual"] += float(judges.distance(one, other)) / 6
            expected[f"{prefix}identity"] += float(1 - cosine) / 6
            if prefix:
                expected["feature"] += float(injected.delta.square().mean().sqrt()) / 6
        logit = float(task.discriminator(first))
        expected["adversarial"] += float(np.log1p(np.exp(-logit))) / 6
    output = loss_of(task, "encoder", batch)
    assert {name: float(value) for name, value in output.terms.items()} == pytest.approx(
        expected, rel=2e-4, abs=1e-6
    )
    total = sum(WEIGHTS[name] * value for name, value in expected.items())
    assert float(output.loss) == pytest.approx(total, rel=2e-4)


@torch.no_grad()
def test_the_discriminator_sees_both_paths_and_no_way_back() -> None:
    task = make_task()
    batch = batch_of(task)
    inversion = task.method.invert(batch["images"])
    fakes = task.method.synthesize(task.method.edit(inversion, lambda codes: codes + batch["edit"]))
    real = task.discriminator(batch["images"])
    fake = task.discriminator(fakes)
    expected = F.softplus(-real).mean() + F.softplus(fake).mean()
    torch.testing.assert_close(loss_of(task, "discriminator", batch).loss, expected)


def test_r1_is_lazy_and_as_strong() -> None:
    task = make_task(r1_every=4)
    batch = batch_of(task)
    images = batch["images"].clone().requires_grad_()
    (gradient,) = torch.autograd.grad(task.discriminator(images).sum(), images)
    penalty = gradient.square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(loss_of(task, "r1", batch).loss, penalty * (10 / 2 * 4))
    names = [[phase.name for phase in task.phases(step)] for step in (0, 1, 4)]
    assert names == [
        ["discriminator", "r1", "encoder"],
        ["discriminator", "encoder"],
        ["discriminator", "r1", "encoder"],
    ]
    assert make_task(weights={**WEIGHTS, "adversarial": 0.0}).phases(0) == [
        Phase("encoder", "encoder")
    ]


@torch.no_grad()
def test_zero_edit_is_the_identity() -> None:
    task = make_task(edited=0.0)
    batch = batch_of(task)
    assert not batch["edit"].any() and not batch["alpha"].any()
    pictures, _ = task.pictures(batch)
    expected = task.method.reconstruct(batch["images"])
    torch.testing.assert_close(pictures, expected, rtol=0, atol=1e-6)
    terms = loss_of(task, "encoder", batch).terms
    assert all(float(terms[name]) == 0 for name in CYCLE) and float(terms["l2"]) > 0


@torch.no_grad()
def test_the_way_back_subtracts_the_very_edit(monkeypatch: pytest.MonkeyPatch) -> None:
    """If e4e finds the edited codes, the codes of the picture come back."""
    task = make_task(edited=1.0)
    batch = batch_of(task)
    assert ((batch["alpha"] >= 4) & (batch["alpha"] <= 5)).all()
    codes, edit, skip = batch["moved"] - batch["edit"], batch["edit"], batch["skip"]
    monkeypatch.setattr(task.method, "encode_with_skip", lambda images: (codes + edit, skip))
    seen = []
    finish = task.method.finish
    monkeypatch.setattr(
        task.method, "finish", lambda *given: seen.append(given[1]) or finish(*given)
    )
    task.way_back(batch["images"], edit)
    torch.testing.assert_close(seen[0], codes, rtol=0, atol=1e-6)


def test_gradients_of_the_way_back_come_through_the_second_synthesis_alone() -> None:
    task = make_task(edited=1.0)
    batch = batch_of(task)
    first, _ = task.pictures(batch)
    first = first.detach().requires_grad_()
    for parameter in task.encoder.parameters():
        parameter.requires_grad_(True)
    second, _ = task.way_back(first, batch["edit"])
    second.square().mean().backward()
    assert first.grad is None
    assert all(parameter.grad is not None for parameter in task.encoder.parameters())


@pytest.mark.parametrize("name", ["discriminator", "r1", "encoder"])
def test_a_phase_changes_its_own_player(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    (phase,) = (phase for phase in task.phases(0) if phase.name == name)
    monkeypatch.setattr(task, "phases", lambda step: [phase])
    before = copies(task)
    frozen = nn.ModuleList([task.method.generator, task.method.encoder, task.e4e])
    frozen_before = [value.clone() for value in frozen.state_dict().values()]
    iteration_of(task, stage="styleres").run(2)
    moved = changed(task, before)
    assert {key.split(".")[0] for key in moved} == {phase.optimizer}
    if name == "encoder":
        assert {key.split(".")[1] for key in moved} == {"residual", "transform"}
    assert all(map(torch.equal, frozen_before, frozen.state_dict().values()))


def test_micro_batches_do_not_change_the_gradients() -> None:
    sums = []
    for accumulate in (1, 4):
        task = make_task()
        iteration = iteration_of(task, stage="styleres", batch_size=8, accumulate=accumulate)
        iteration.run(0)
        sums.append(torch.cat([p.detach().flatten() for p in task.encoder.parameters()]))
    torch.testing.assert_close(*sums, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("settings", [{"fusion": "none"}, {"source": "skip"}, {"fusion": "gate"}])
def test_ablations_train(settings: dict[str, Any]) -> None:
    task = make_task(small_styleres(**{"fusion": "sum", **settings}))
    before = copies(task)
    iteration_of(task, stage="styleres").run(0)
    moved = {key.split(".")[1] for key in changed(task, before)}
    left = {"none": "transform"}.get(settings.get("fusion", ""), "")
    left = "residual" if settings.get("source") else left
    assert moved & {"residual", "transform"} == {"residual", "transform"} - {left}


def test_without_the_cycle_the_way_back_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task(weights={**WEIGHTS, **dict.fromkeys(CYCLE, 0.0)})
    monkeypatch.setattr(task, "way_back", None)
    terms = loss_of(task, "encoder", batch_of(task)).terms
    assert not {*terms} & {*CYCLE} and float(terms["l2"]) > 0


def test_cars_are_shown_to_the_discriminator_as_squares() -> None:
    low = TensorImages(pixels=IMAGES.pixels[:, :, 4:28])
    task = make_task(small_styleres(image_size=[24, 32]), images=low, validation_images=low)
    images = batch_of(task)["images"]
    assert images.shape == (6, 3, 24, 32)
    square = F.pad(images, (0, 0, 4, 4), value=-1.0)
    assert torch.equal(task.logits(images), task.discriminator(square))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": small_psp()}, "method is a PSP, expected StyleRes"),
        ({"e4e": small_psp()}, "e4e is a PSP, expected E4E"),
        ({"weights": {"l2": 1.0}}, "weights are l2: expected those of l2, perceptual, identity"),
        ({"weights": {**WEIGHTS, "l2": -1}}, "weights.l2 is -1: expected a number of 0 or more"),
        ({"weights": {**WEIGHTS, "l2": float("nan")}}, "weights.l2 is nan"),
        ({"r1_gamma": float("inf")}, "r1_gamma is inf, expected at least 0"),
        ({"alpha": (4.0, float("inf"))}, "expected a range of two numbers from 0 up"),
        ({"edited": 1.5}, "edited is 1.5, expected a probability"),
        ({"alpha": [5.0, 4.0]}, r"alpha is \[5.0, 4.0\], expected a range"),
        ({"alpha": [1.0]}, r"alpha is \[1.0\], expected a range"),
        ({"cycled": "some"}, "cycled is 'some', expected 'edited' or 'all'"),
        ({"regularizer": "max"}, "regularizer is 'max', expected 'norm' or 'absolute'"),
        ({"r1_every": 0}, "r1_every is 0, expected at least 1"),
        (
            {"discriminator": Discriminator(resolution=16, channels=[4, 4, 4])},
            "the discriminator reads pictures of 16 pixels, the method those of 32",
        ),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**settings)


def test_a_run_trains_e4e_and_goes_on_from_it(tmp_path: Path) -> None:
    folder = run(tmp_path / "runs", "portraits_styleres")
    e4e = clcae.load_method(folder / "e4e.safetensors")
    method = clcae.load_method(folder / "styleres.safetensors")
    assert isinstance(method, StyleRes)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    inversion = method.invert(images)
    torch.testing.assert_close(inversion.codes, e4e.invert(images).codes)
    edited = method.synthesize(method.edit(inversion, lambda codes: codes + 1))
    assert edited.shape == images.shape
    assert (edited - method.synthesize(inversion)).abs().max() > 1e-2
    # The other way: the e4e comes from a file, and its stage is left out.
    given = ["stages=styleres", "method@e4e=file", f"e4e.source={folder / 'e4e.safetensors'}"]
    other = run(tmp_path / "runs", "portraits_styleres", *given, "run=other")
    again = clcae.load_method(other / "styleres.safetensors")
    assert torch.equal(again.invert(images).codes, inversion.codes)
    assert not (other / "e4e.safetensors").exists()


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What leaves the first stage out: an e4e with random weights."""
    file = tmp_path_factory.mktemp("e4e") / "e4e.safetensors"
    node: Any = OmegaConf.to_container(OmegaConf.load(ROOT / "configs/method/e4e_portraits.yaml"))
    settings = {key: value for key, value in node.items() if key not in ("_target_", "generator")}
    e4e = E4E(generator=clcae.load_generator("portraits"), **settings)
    save(seen(e4e), file, provenance={})
    return ["stages=styleres", "method@e4e=file", f"e4e.source={file}"]


def test_a_stopped_run_resumes_exactly(tmp_path: Path, alone: list[str]) -> None:
    settings = [*alone, "stages.styleres.task.r1_every=2"]
    check_resumes_exactly(
        tmp_path, "portraits_styleres", *settings, stage="styleres", stopped_after=2
    )


def test_two_processes_equal_one(children: Any, tmp_path: Path, alone: list[str]) -> None:
    # Minibatch deviation is within a process.
    settings = [*alone, "+discriminator.group_size=1"]
    check_two_processes_equal_one(
        children, tmp_path, "portraits_styleres", *settings, stage="styleres", betas=True
    )


def test_an_e4e_that_is_not_trained_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"e4e has seen no picture, .*: method@e4e=FILE"):
        run(tmp_path / "runs", "portraits_styleres", "stages=styleres")


def test_an_e4e_of_another_generator_is_noticed() -> None:
    e4e = seen(small_e4e())
    torch.nn.init.normal_(next(e4e.generator.parameters()))
    with pytest.warns(UserWarning, match="the e4e was trained around another generator"):
        make_task(e4e=e4e)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> StyleRes:
    """A method of the embedded portraits after a short training, about five minutes."""
    folder = tmp_path_factory.mktemp("trained")
    arguments = [
        *("+experiment=portraits_styleres", "device=cpu", "trainer.threads=1", "report=null"),
        *("data.num_people=2048", "stages.e4e.trainer.steps=250", "trainer.progress=false"),
        *("stages.styleres.trainer.steps=120", f"paths.runs={folder}", f"paths.cache={folder}"),
    ]
    with initialize_config_dir(config_dir=str(ROOT / "configs"), version_base="1.3"):
        done = Path(train(compose("train", overrides=arguments))["run"])
    method = clcae.load_method(done / "styleres.safetensors")
    assert isinstance(method, StyleRes)
    return method


@pytest.mark.slow
@torch.no_grad()
def test_zero_edit_of_a_trained_method_is_the_identity(trained: StyleRes, tmp_path: Path) -> None:
    images = PortraitImages(split="test", num_people=32, cache=tmp_path).images(range(32))
    inversion = trained.invert(images)
    still = trained.synthesize(trained.edit(inversion, lambda codes: codes + 0.0))
    assert torch.equal(still, trained.synthesize(inversion))
    torch.testing.assert_close(still, trained.reconstruct(images), rtol=0, atol=1e-5)


@pytest.mark.slow
@torch.no_grad()
def test_the_cycle_of_a_trained_method_returns(trained: StyleRes, tmp_path: Path) -> None:
    """Edited, inverted again and undone, a picture is nearer to the first one than e4e's inversion.

    Edits as in training, towards other codes of W; details come back that no code holds. After a
    whole training the squared error is .65 of that of e4e's inversion, with three seeds.
    """
    images = PortraitImages(split="test", num_people=64, cache=tmp_path).images(range(64))
    inversion = trained.invert(images)
    z = torch.randn(64, trained.generator.z_dim, generator=torch.Generator().manual_seed(3))
    edit = edit_towards(inversion.codes, trained.generator.map(z), torch.full([64], 4.5))
    edited = trained.synthesize(trained.edit(inversion, lambda codes: codes + edit)).clamp(-1, 1)
    again = trained.invert(edited)
    returned = trained.synthesize(trained.edit(again, lambda codes: codes - edit))

    def mse(pictures: torch.Tensor) -> float:
        return float((pictures.clamp(-1, 1) - images).square().mean())

    of_codes = mse(trained.reconstruct(images, "W+"))
    assert mse(returned) < 0.75 * of_codes
    assert mse(returned) < mse(edited)
