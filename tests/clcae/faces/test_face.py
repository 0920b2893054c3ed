"""Which face is meant, and which will not do."""

import math

import pytest
import torch

from clcae.faces import Face, check_frontal, check_size, choose, picture_quad

# A head in units of the pupils' distance, (right, down, towards the viewer).
HEAD = torch.tensor(
    [[-0.5, 0, 0], [0.5, 0, 0], [0, 0.6, 0.5], [-0.4, 1.05, 0.1], [0.4, 1.05, 0.1]],
    dtype=torch.float64,
)


def head(yaw: float, pixels: float = 40.0, roll: float = 0.0) -> Face:
    """The landmarks of a head turned by degrees."""
    turn, tilt = math.radians(yaw), math.radians(roll)
    x = HEAD[:, 0] * math.cos(turn) + HEAD[:, 2] * math.sin(turn)
    points = torch.stack([x, HEAD[:, 1]], dim=1) * pixels
    rotation = torch.tensor([[math.cos(tilt), -math.sin(tilt)], [math.sin(tilt), math.cos(tilt)]])
    points = points @ rotation.double().T + 100
    middle = points.mean(0)
    return Face(landmarks=points, box=torch.cat([middle - pixels, middle + pixels]), score=1.0)


def at(x: float, width: float) -> Face:
    box = torch.tensor([x, 0, x + width, width], dtype=torch.float64)
    return Face(landmarks=torch.zeros(5, 2), box=box, score=1.0)


def test_choose() -> None:
    right, left, middle = faces = [at(70, 20), at(0, 10), at(30, 30)]
    assert choose(faces, "largest") == [middle]
    assert choose(faces, "all") == [left, middle, right]
    assert [choose(faces, number)[0] for number in range(3)] == [left, middle, right]


def test_choose_says_what_there_is() -> None:
    with pytest.raises(ValueError, match="no face found"):
        choose([], "all")
    with pytest.raises(ValueError, match="no face 2: 1 found"):
        choose([at(0, 10)], 2)
    with pytest.raises(ValueError, match="faces -1: expected largest, all, or a number"):
        choose([at(0, 10)], -1)


@pytest.mark.parametrize("roll", [0, 30, -90])
@pytest.mark.parametrize("yaw", [-50, -30, 0, 20, 50])
def test_heads_that_turn_a_little_are_no_profiles(yaw: float, roll: float) -> None:
    check_frontal(head(yaw, roll=roll))


@pytest.mark.parametrize("yaw", [-88, -65, 65, 80, 88])
def test_profiles(yaw: float) -> None:
    with pytest.raises(ValueError, match="a face in profile"):
        check_frontal(head(yaw))


def test_profile_of_one_eye_found_twice() -> None:
    face = head(0)
    landmarks = face.landmarks.clone()
    landmarks[1] = landmarks[0]
    with pytest.raises(ValueError, match="eyes are 0 pixels apart"):
        check_frontal(Face(landmarks=landmarks, box=face.box, score=1.0))


def test_tiny() -> None:
    check_size(picture_quad(48, 48))
    with pytest.raises(ValueError, match="tiny face: its crop takes 47 pixels"):
        check_size(picture_quad(47, 47))
