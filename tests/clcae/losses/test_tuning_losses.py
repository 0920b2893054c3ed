"""Losses of pivotal tuning against slow statements in numpy."""

import numpy as np
import torch
from small_methods import Halves

from clcae.losses.tuning import at_distance, picture_errors

RNG = np.random.default_rng(0)


def test_errors_of_pictures() -> None:
    pictures, targets = RNG.normal(size=(2, 2, 3, 4, 6))
    network = Halves()
    features = network.features(torch.from_numpy(targets))
    terms = picture_errors(
        torch.from_numpy(pictures), torch.from_numpy(targets), features, network, None
    )
    assert {*terms} == {"pixel", "perceptual"}
    for index in range(2):
        squares = [
            (pictures[index, c, y, x] - targets[index, c, y, x]) ** 2
            for c in range(3)
            for y in range(4)
            for x in range(6)
        ]
        left = [
            (pictures[index, c, y, x] - targets[index, c, y, x]) ** 2
            for c in range(3)
            for y in range(4)
            for x in range(3)
        ]
        np.testing.assert_allclose(terms["pixel"][index], np.mean(squares))
        np.testing.assert_allclose(terms["perceptual"][index], np.mean(squares) + np.mean(left))
    alone = picture_errors(torch.from_numpy(pictures), torch.from_numpy(targets), None, None, None)
    assert {*alone} == {"pixel"}


def test_codes_at_a_distance_from_the_pivot() -> None:
    pivot, samples = RNG.normal(size=(1, 5, 4)), RNG.normal(size=(3, 1, 4))
    codes = at_distance(torch.from_numpy(pivot), torch.from_numpy(samples), 30.0).numpy()
    assert codes.shape == (3, 5, 4)
    for index in range(3):
        way = np.stack([samples[index, 0] - pivot[0, row] for row in range(5)])
        length = np.sqrt(sum(value**2 for value in way.reshape(-1)))
        np.testing.assert_allclose(codes[index], pivot[0] + 30.0 * way / length)
        np.testing.assert_allclose(np.linalg.norm(codes[index] - pivot[0]), 30.0)
