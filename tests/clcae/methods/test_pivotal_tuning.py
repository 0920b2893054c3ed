"""Pivotal tuning: what changes and what stays, when it ends, and the files of its inversions."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from small_methods import Halves, tiny_generator, tiny_images, with_feature, write_method

from clcae.losses.optimization import squared_errors
from clcae.methods.inversion_file import join, split
from clcae.methods.optimization import Optimization
from clcae.methods.optimizer.tuning import LOCALITY_SEED, Tuner
from clcae.methods.pivotal_tuning import TUNED, PivotalTuning, changes_of
from clcae.portraits import PortraitImages
from clcae.pretrained.assets import portraits_generator, portraits_judges
from clcae.pretrained.loading import load_method
from clcae.stylegan2 import Generator, LatentSpace
from clcae.stylegan2.delta_file import load_delta, save_delta
from clcae.stylegan2.tuned import GAIN, chosen_names, with_changes
from editing import Direction, edit_inversion

GENERATOR = tiny_generator()
IMAGES = tiny_images(GENERATOR)


def tuning(**settings: Any) -> PivotalTuning:
    pivot = Optimization(generator=GENERATOR, steps=5, output="W", outputs=["W", "W+"])
    given = {"pivot": pivot, "steps": 4, "lr": 1e-3}
    return PivotalTuning(**{**given, **settings}).eval()


def test_few_pictures_are_given_at_a_time() -> None:
    assert tuning().at_once == 4 and tuning(together=True).at_once == GENERATOR.at_once
    slow = Optimization(generator=GENERATOR, at_once=1, output="W", outputs=["W"])
    assert slow.at_once == 1 and tuning(pivot=slow).at_once == 1


def test_only_chosen_parameters_change_and_never_the_given_generator() -> None:
    before = {key: value.clone() for key, value in GENERATOR.state_dict().items()}
    for choice in ("to_rgb", "all", "gains", ["from 16x16/1"]):
        method = tuning(tuned=choice)
        inversion = method.invert(IMAGES)
        names = chosen_names(GENERATOR, choice)
        assert [*inversion.context] == [TUNED + name for name in names]
        for row in range(3):
            changes = changes_of(inversion, row)
            moved = [
                bool(value.any()) if name.endswith(GAIN) else not torch.equal(value, before[name])
                for name, value in changes.items()
            ]
            assert all(moved), choice
            tuned = with_changes(GENERATOR, changes)
            for key, value in tuned.state_dict().items():
                assert key in names or f"{key}{GAIN}" in names or torch.equal(value, before[key])
        pivot = method.pivot.invert(IMAGES)
        assert torch.equal(inversion.codes, pivot.codes)
        errors = [
            squared_errors(one.synthesize(found), IMAGES)
            for one, found in ((method, inversion), (method.pivot, pivot))
        ]
        assert bool((errors[0] < errors[1]).all())
    assert all(torch.equal(v, before[k]) for k, v in GENERATOR.state_dict().items())
    assert all(parameter.grad is None for parameter in GENERATOR.parameters())


def test_a_step_is_adams_on_the_weighted_loss() -> None:
    weights = {"pixel": 2.0, "perceptual": 0.5}
    method = tuning(tuned="to_rgb", steps=2, perceptual=Halves(), weights=weights)
    inversion = method.invert(IMAGES[:1])
    generator = tiny_generator().requires_grad_(True)
    parameters = [p for name, p in generator.named_parameters() if "to_rgbs" in name]
    optimizer, half = torch.optim.Adam(parameters, lr=1e-3), IMAGES.shape[-1] // 2
    for _ in range(2):
        squares = (generator.synthesize(inversion.codes) - IMAGES[:1]).square()
        loss = 2.0 * squares.mean() + 0.5 * (squares.mean() + squares[..., :half].mean())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    for name, value in changes_of(inversion).items():
        torch.testing.assert_close(value, dict(generator.named_parameters())[name].detach())


def test_no_step_is_the_pivot_and_no_move_changes_nothing() -> None:
    still = tuning(steps=0)
    pivot = still.pivot.invert(IMAGES[:1])
    assert torch.equal(still.invert(IMAGES[:1]).codes, pivot.codes)
    assert torch.equal(still.reconstruct(IMAGES[:1]), still.pivot.synthesize(pivot))
    method = tuning()
    inversion = method.invert(IMAGES)
    same = method.edit(inversion, lambda codes: codes)
    assert {*same.context} == {*inversion.context}
    assert torch.equal(method.synthesize(same), method.synthesize(inversion))


def test_it_ends_before_the_step_at_which_the_distance_is_small_enough() -> None:
    settings = {"tuned": "all", "perceptual": Halves(), "steps": 6}
    distances = []
    for steps in range(7):
        made = tuning(**settings | {"steps": steps}).reconstruct(IMAGES[:1])
        distances.append(
            float(Halves().distance(Halves().features(made), [IMAGES[:1], IMAGES[:1, ..., :8]]))
        )
    assert sorted(distances, reverse=True) == distances
    between = (distances[2] + distances[3]) / 2
    ended = tuning(**settings, stop=between).reconstruct(IMAGES[:1])
    assert torch.equal(ended, tuning(**settings | {"steps": 3}).reconstruct(IMAGES[:1]))
    never = tuning(**settings, stop=distances[0] + 1).reconstruct(IMAGES[:1])
    assert torch.equal(never, tuning(**settings | {"steps": 0}).reconstruct(IMAGES[:1]))


def test_many_pictures_in_one_generator() -> None:
    method = tuning(together=True, steps=20, perceptual=Halves(), stop=1e9)  # no early end
    inversion = method.invert(IMAGES)
    assert all(value.stride(0) == 0 for value in inversion.context.values())  # one generator
    errors = squared_errors(method.synthesize(inversion), IMAGES)
    assert bool((errors < squared_errors(method.pivot.reconstruct(IMAGES), IMAGES)).all())
    # rounds over the pictures, a step of one optimiser for each
    settings, pivots = method.settings_of_tuning(), split(method.pivot.invert(IMAGES))
    tuner, order = Tuner(settings, pivots, IMAGES), list[int]()
    loss = tuner.loss
    tuner.loss = lambda index, step: (order.append(index), loss(index, step))[1]  # type: ignore
    changes = tuner.run()
    assert order == [0, 1, 2] * 20
    assert all(
        torch.equal(value, changes_of(inversion, 2)[name]) for name, value in changes.items()
    )
    one_by_one = join(split(inversion))  # as files give them back
    torch.testing.assert_close(method.synthesize(one_by_one), method.synthesize(inversion))


def test_locality_keeps_pictures_around_the_pivot() -> None:
    weights = {"pixel": 3.0, "perceptual": 0.5}
    method = tuning(perceptual=Halves(), locality_weights=weights, locality_distance=2.0)
    pivots = split(method.pivot.invert(IMAGES[:1]))
    tuner = Tuner(method.settings_of_tuning(), pivots, IMAGES[:1])
    plain = Tuner(replace(method.settings_of_tuning(), locality_weights={}), pivots, IMAGES[:1])
    tuner.changes["synthesis.const"] = plain.changes["synthesis.const"] = (
        GENERATOR.synthesis.const.detach() + 0.1
    )
    added = float(tuner.loss(0, 5)[0] - plain.loss(0, 5)[0])
    # a slow statement
    z = torch.randn(1, 8, generator=torch.Generator().manual_seed(LOCALITY_SEED + 5))
    w = GENERATOR.map(z).double().numpy()[0]
    average = GENERATOR.w_average.double().numpy()
    pivot = pivots[0].codes[0].double().numpy()
    way = (average + 0.5 * (w - average)) - pivot
    codes = torch.from_numpy(pivot + 2.0 * way / np.sqrt((way**2).sum())).float()[None]
    changed = with_changes(GENERATOR, tuner.changes)
    new, old = (g.synthesize(codes, noise="none").numpy() for g in (changed, GENERATOR))
    squares = (new - old) ** 2
    expected = 3.0 * squares.mean() + 0.5 * (squares.mean() + squares[..., :8].mean())
    np.testing.assert_allclose(added, expected, rtol=1e-3)
    assert expected > 1e-4


def test_noise_maps_of_the_pivot_are_discarded_unless_kept() -> None:
    pivot = Optimization(generator=GENERATOR, steps=3, output="W", noise="free")
    lost = tuning(pivot=pivot).invert(IMAGES[:1])
    assert not [key for key in lost.context if key.startswith("noise.")]
    kept = tuning(pivot=pivot, noise="kept").invert(IMAGES[:1])
    assert len([key for key in kept.context if key.startswith("noise.")]) == 5


@torch.no_grad()
def test_moves_may_differ_from_picture_to_picture() -> None:
    method = tuning()
    inversion = method.invert(IMAGES)
    direction = Direction(name="a", vector=torch.ones(1, 10), strengths=(-1, 1))
    shares = torch.tensor([0.0, 1.0, 2.0])

    def move(codes: torch.Tensor) -> torch.Tensor:
        return direction.shift(codes, shares) + codes

    whole = method.edit(inversion, move)
    for row, alone in enumerate(split(inversion)):
        moved = edit_inversion(method, alone, [(direction, float(shares[row]))])
        torch.testing.assert_close(moved.codes, whole.codes[row : row + 1])


@torch.no_grad()
def test_a_pivot_with_a_feature_keeps_it_and_codes_alone_are_drawn() -> None:
    method = tuning(pivot=with_feature(GENERATOR))
    inversion = method.invert(IMAGES[:2])
    assert inversion.feature is not None and inversion.space is LatentSpace.Z_PLUS
    hidden = [key for key in inversion.context if key.startswith(f"{TUNED}synthesis.layers.0.")]
    before = dict(GENERATOR.named_parameters())  # below the feature nothing has a gradient
    assert hidden
    for key in hidden:
        assert torch.equal(inversion.context[key][0], before[key.removeprefix(TUNED)])
    bare = tuning()
    codes = replace(bare.invert(IMAGES), context={})
    assert torch.equal(bare.synthesize(codes), bare.pivot.synthesize(codes))
    assert bare.edit(codes, lambda c: c + 1).context == {}


def test_inference_mode_and_the_form() -> None:
    method = tuning()
    with torch.inference_mode():
        inversion = method.invert(IMAGES)
        assert method.synthesize(method.edit(inversion, lambda codes: codes)).shape == IMAGES.shape
        form = method.form()
    assert {key: value.shape[1:] for key, value in form.context.items()} == {
        key: value.shape[1:] for key, value in inversion.context.items()
    }


def test_files(tmp_path: Path) -> None:
    method = load_method(write_method(tuning(tuned="to_rgb"), tmp_path / "a.safetensors"))
    assert isinstance(method, PivotalTuning) and method.output == "W"
    inversion = method.invert(IMAGES[:1])
    file = tmp_path / "delta.safetensors"
    save_delta(changes_of(inversion), file, generator=method.generator)
    tuned = with_changes(GENERATOR, load_delta(file, generator=GENERATOR))
    torch.testing.assert_close(
        tuned.synthesize(inversion.codes), method.synthesize(inversion), rtol=0, atol=1e-6
    )


@pytest.mark.slow
def test_a_portrait_with_details_gains_several_decibels() -> None:
    generator, judges = portraits_generator(), portraits_judges()
    (image,) = PortraitImages(split="test", size=64).images([0])
    weights = {"pixel": 1.0, "perceptual": 0.1}
    given: dict[str, Any] = {"perceptual": judges, "weights": weights}
    pivot = Optimization(generator=generator, steps=40, output="W", outputs=["W"], **given)
    method = PivotalTuning(pivot=pivot, steps=60, lr=1e-2, **given)
    inversion = method.invert(image[None])
    before, after = (
        -10 * float(((one.synthesize(inversion).clamp(-1, 1) - image) / 2).square().mean().log10())
        for one in (pivot, method)
    )
    assert after > before + 4.0, (before, after)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"steps": -1}, "-1 steps"),
        ({"lr": 0.0}, "learning rate of 0.0"),
        ({"tuned": "eyes"}, "tuned has 'eyes'"),
        ({"weights": {"pixle": 1.0}}, "weights are of pixle: expected some of pixel, perceptual"),
        ({"weights": {"pixel": 0.0}}, "expected one of pixel"),
        ({"weights": {"perceptual": 1.0}}, "weights.perceptual is 1.0, without perceptual"),
        ({"locality_weights": {"perceptual": 1.0}}, "locality_weights.perceptual is 1.0"),
        ({"stop": 0.06}, "stop is 0.06, a perceptual distance"),
        ({"locality_distance": 0.0}, "locality_distance 0.0"),
        ({"noise": "free"}, "noise is 'free'"),
        ({"lr": math.inf}, "learning rate of inf"),
        ({"weights": {"pixel": -1.0}}, "weights.pixel is -1.0: expected a number of 0 or more"),
        ({"locality_weights": {"pixel": math.nan}}, "locality_weights.pixel is nan"),
        ({"locality_distance": math.nan}, "locality_distance nan"),
        ({"stop": math.nan, "perceptual": Halves()}, "stop is nan"),
        ({"perceptual_size": 0}, "perceptual_size is 0"),
        ({"pivot": tuning()}, "pivot is a PivotalTuning, expected an inversion method that leaves"),
        ({"pivot": GENERATOR}, "pivot is a Generator, expected an inversion method"),
    ],
)
def test_mistakes(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tuning(**settings)


def test_pictures_of_another_size() -> None:
    with pytest.raises(ValueError, match=r"expected \[N, 3, 16, 16\]"):
        tuning().invert(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("together", [False, True])
def test_no_pictures(together: bool) -> None:
    method = tuning(together=together)
    nothing = method.invert(IMAGES[:0])
    assert {*nothing.context} == {*method.form().context}
    edited = method.edit(nothing, lambda codes: codes + 1.0)
    assert method.synthesize(edited).shape == (0, 3, 16, 16)


def test_a_tuning_that_diverges_says_so() -> None:
    with pytest.raises(ValueError, match=r"the tuning diverged to NaN .* rate of 1000000.0"):
        tuning(lr=1e6, steps=9).invert(IMAGES[:1])


def test_the_size_of_pictures_is_that_of_the_generator() -> None:
    from small_methods import small_clcae

    generator = Generator(resolution=64, z_dim=12, w_dim=20, mapping_layers=1, channels=[4] * 5)
    pivot = small_clcae(image_size=[24, 32])
    assert tuning(pivot=pivot.with_generator(generator)).image_shape == (48, 64)
