"""The stage of e4e: what every phase changes, stages, resuming, two processes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from small_methods import small_e4e, small_e4e_z_plus, small_psp
from small_tasks import IMAGES, Small, changed, copies
from torch import nn
from two_players import check_resumes_exactly, check_two_processes_equal_one, iteration_of, run

import clcae
from clcae.methods.e4e import E4E, PSP
from clcae.nn.latent_discriminator import LatentDiscriminator
from training.task import Phase
from training.tasks.e4e import E4ETask

ROOT = Path(__file__).resolve().parents[3]
FEW = ["data.num_people=32", "validation.num_people=8", "test.num_people=8"]
WEIGHTS = {"l2": 1.0, "perceptual": 0.8, "identity": 0.1, "delta": 2e-4, "adversarial": 0.1}


def make_task(method: E4E | PSP | None = None, **settings: Any) -> E4ETask:
    method = small_e4e() if method is None else method
    torch.manual_seed(1)
    given: dict[str, Any] = {
        "weights": WEIGHTS,
        "progressive_start": 2,
        "progressive_every": 3,
        "pool_size": 6,
    }
    return E4ETask(
        method=method,
        images=IMAGES,
        validation_images=IMAGES,
        judges=Small(),
        **{"discriminator": LatentDiscriminator(w_dim=20, hidden=16), **given, **settings},
    )


def test_offsets_are_switched_on_one_after_another() -> None:
    task = make_task()
    assert [task.stage(step) for step in range(12)] == [0, 0, 1, 1, 1, 2, 2, 2, 3, 3, 3, 4]
    assert task.stage(10**6) == 7
    assert make_task(progressive_start=None).stage(0) == 7
    # The last offset of a generator of 1024 pixels, 512 and 256.
    for rows, step in ((18, 52_000), (16, 48_000), (14, 44_000)):
        task = make_task(progressive_start=20_000, progressive_every=2_000)
        task.last_stage = rows - 1
        assert (task.stage(step - 1), task.stage(step)) == (rows - 2, rows - 1)
        assert (task.stage(19_999), task.stage(20_000)) == (0, 1)


def test_phases() -> None:
    names = [[phase.name for phase in make_task().phases(step)] for step in (0, 1, 16)]
    assert names == [
        ["discriminator", "r1", "encoder"],
        ["discriminator", "encoder"],
        ["discriminator", "r1", "encoder"],
    ]
    weights = {**WEIGHTS, "adversarial": 0.0}
    assert make_task(weights=weights).phases(0) == [Phase("encoder", "encoder")]


@pytest.mark.parametrize("name", ["discriminator", "r1", "encoder"])
def test_a_phase_changes_its_own_player(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    (phase,) = (phase for phase in task.phases(0) if phase.name == name)
    monkeypatch.setattr(task, "phases", lambda step: [phase])
    before = copies(task)
    generator = [value.clone() for value in task.method.generator.state_dict().values()]
    iteration_of(task, stage="e4e").run(2)  # w and one offset
    moved = changed(task, before)
    assert {key.split(".")[0] for key in moved} == {phase.optimizer}
    if name == "encoder":
        heads = {key.split(".")[3] for key in moved if ".heads." in key}
        assert heads == {"0", "1"}
        assert any("trunk" in key for key in moved)
    assert all(map(torch.equal, generator, task.method.generator.state_dict().values()))
    assert int(task.real_pool.filled) == int(task.fake_pool.filled) == 4


def test_fakes_are_rows_of_the_stage_and_reals_codes_of_the_mapping() -> None:
    task = make_task(pool_size=200)
    iteration = iteration_of(task, stage="e4e", batch_size=16)
    (context,) = iteration.contexts(3)
    with torch.no_grad():
        batch = task.load_batch(context)
        codes = task.method.encode(batch["images"])
        z = context.normal("z", task.method.generator.z_dim)
    assert torch.equal(batch["real"], task.method.generator.map(z))
    distance = (batch["fake"][:, None] - codes).abs().amax(dim=2)  # [N, L]
    rows = distance.argmin(dim=1)
    assert float(distance.min(dim=1).values.max()) < 1e-6
    assert set(rows.tolist()) == {0, 1}  # stage 1: row 2 and later equal row 0, whose index is less


def test_micro_batches_do_not_change_the_pools() -> None:
    """The order of the exchange is that of the batch, however it is divided."""
    pools = []
    for accumulate in (1, 2):
        task = make_task()
        task.encoder.eval()
        iteration = iteration_of(task, stage="e4e", batch_size=8, accumulate=accumulate)
        with torch.no_grad():
            for step in range(4):
                batches = [task.load_batch(context) for context in iteration.contexts(step)]
        pools.append([*task.real_pool.buffers(), *task.fake_pool.buffers()])
        reals = torch.cat([batch["real"] for batch in batches])
        pools[-1].append(reals)
    for one, other in zip(*pools, strict=True):
        torch.testing.assert_close(one, other)


def test_offsets_of_z_are_penalised_after_the_mapping() -> None:
    task = make_task(small_e4e_z_plus(), progressive_start=None)  # type: ignore[arg-type]
    task.encoder.eval()
    (context,) = iteration_of(task, stage="e4e").contexts(0)
    with torch.no_grad():
        batch = task.load_batch(context)
        terms = task.loss(Phase("encoder", "encoder"), batch, context).terms
        z = task.method.invert(batch["images"]).codes
        w = task.method.generator.map(z)
    expected = sum((w[:, row] - w[:, 0]).norm(dim=1).mean() for row in range(1, 8))
    torch.testing.assert_close(terms["delta"], expected, rtol=1e-4, atol=0)
    assert batch["fake"].shape == (4, 20)  # rows of W
    before = copies(task)
    iteration_of(task, stage="e4e").run(0)
    heads = {key.split(".")[3] for key in changed(task, before) if ".heads." in key}
    assert heads == {*map(str, range(8))}


def test_psp_has_neither_stages_nor_a_discriminator() -> None:
    weights = {**WEIGHTS, "delta": 0.0, "adversarial": 0.0}
    task = make_task(small_psp(), weights=weights, progressive_start=None)
    before = copies(task)
    terms = iteration_of(task, stage="e4e").run(0)
    assert "encoder/adversarial" not in terms and "discriminator/loss" not in terms
    moved = changed(task, before)
    assert {key.split(".")[0] for key in moved} == {"encoder"}
    assert {key.split(".")[3] for key in moved if ".heads." in key} == {*map(str, range(8))}


def test_another_method_is_refused() -> None:
    with pytest.raises(ValueError, match="method is a Linear, expected E4E, E4EZPlus or PSP"):
        make_task(nn.Linear(1, 1))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"progressive_start": -1}, "progressive_start is -1, expected at least 0"),
        ({"progressive_every": 0}, "progressive_every is 0, expected at least 1"),
        ({"pool_size": 0}, "pool_size is 0, expected at least 1"),
        ({"r1_every": 0}, "r1_every is 0, expected at least 1"),
        ({"r1_gamma": -1.0}, "r1_gamma is -1.0, expected at least 0"),
        ({"name": "../e4e"}, "name is '../e4e', expected a plain file name"),
        ({"weights": {**WEIGHTS, "hat": 0}}, "weights are .*, hat: expected those of l2, "),
        ({"weights": {"l2": 1.0}}, "weights are l2: expected those of l2, perceptual, identity"),
        (
            {"discriminator": LatentDiscriminator(w_dim=16)},
            "discriminator.w_dim is 16, codes of the generator have 20",
        ),
        ({"method": small_psp()}, "progressive_start is 2, expected null: pSp has no offsets"),
    ],
)
def test_settings_out_of_range_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_task(**settings)


@pytest.mark.parametrize("key", ["w_dim", "hidden", "num_layers"])
def test_sizes_of_the_discriminator_are_at_least_one(key: str) -> None:
    with pytest.raises(ValueError, match=f"{key} is 0, expected at least 1"):
        LatentDiscriminator(**{key: 0})
    assert LatentDiscriminator(w_dim=3, hidden=5, num_layers=1)(torch.ones(2, 3)).shape == (2, 1)


def few(experiment: str) -> list[str]:
    """Offsets are switched on within a small run."""
    every = ["progressive_start=2", "progressive_every=2"]
    return [] if experiment == "portraits_psp" else [f"stages.e4e.task.{one}" for one in every]


@pytest.mark.parametrize(
    ("experiment", "file", "space"),
    [
        ("portraits_e4e", "e4e", "W+"),
        ("portraits_psp", "psp", "W+"),
        ("portraits_w", "w", "W"),
    ],
)
def test_a_run_leaves_a_method(tmp_path: Path, experiment: str, file: str, space: str) -> None:
    folder = run(tmp_path / "runs", experiment, *few(experiment))
    method = clcae.load_method(folder / f"{file}.safetensors")
    assert method.outputs == (space,)
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    inversion = method.invert(images)
    assert str(inversion.space) == space
    assert inversion.codes.shape == (2, 10, 128)
    equal_rows = bool((inversion.codes == inversion.codes[:, :1]).all())
    assert equal_rows == (space == "W")
    assert method.reconstruct(images).shape == images.shape


def test_a_stopped_run_resumes_exactly_pools_included(tmp_path: Path) -> None:
    settings = ["stages.e4e.task.pool_size=6", "stages.e4e.task.r1_every=2", *few("portraits_e4e")]
    whole = check_resumes_exactly(
        tmp_path, "portraits_e4e", *settings, stage="e4e", stopped_after=3
    )
    assert int(whole["modules"]["fake_pool"]["filled"]) == 6


def test_two_processes_equal_one(children: Any, tmp_path: Path) -> None:
    settings = [
        "noise=const",  # noise maps are drawn by each process
        "start=null",  # well conditioned
        "pool_size=6",
        "progressive_start=1",
    ]
    one, two = check_two_processes_equal_one(
        children,
        tmp_path,
        "portraits_e4e",
        *(f"stages.e4e.task.{setting}" for setting in settings),
        stage="e4e",
        betas=False,
    )
    for name in ("real_pool", "fake_pool"):
        for key, value in one["modules"][name].items():
            torch.testing.assert_close(two["modules"][name][key], value, rtol=1e-4, atol=1e-4)
