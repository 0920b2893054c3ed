"""Values of configurations against annotations."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Protocol

import pytest
import torch
from torch import nn

from clcae.nn.latent_discriminator import LatentPool
from training.errors import UsageError
from training.parts import Parts, check_type


class Drawing(Protocol):
    def draw(self) -> None: ...


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        (3, int),
        (3, float),
        (None, int | None),
        ("x", Any),
        ("x", Path),
        ([[1, 2]], Sequence[Sequence[int]]),
        ([1, 2], int | tuple[int, int]),
        ({"a": 1.5}, Mapping[str, float]),
        ({"a": [0.5]}, Sequence[str] | Mapping[str, Sequence[float]] | None),
        ("const", Literal["const", "none"]),
        (nn.Linear(1, 1), nn.Module),
        (torch.zeros(1), int),  # what is built is checked by others
        ("x", "unresolved"),
    ],
)
def test_values_that_fit(value: Any, hint: Any) -> None:
    check_type(value, hint, where="key")


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (2.5, int | None, "key is 2.5, expected a whole number or null"),
        (True, int, "key is True, expected a whole number"),
        ("x", float, "key is 'x', expected a number"),
        (3, bool, "key is 3, expected true or false"),
        ("loud", Literal["const", "none"], "key is 'loud', expected const or none"),
        (None, Mapping[str, float], "key is None, expected keys with values"),
        ({"a": None}, Mapping[str, float], "key.a is None, expected a number"),
        ([[1, "x"]], Sequence[Sequence[int]], r"key\[0\]\[1\] is 'x', expected a whole number"),
        ("smile", Sequence[float], "key is 'smile', expected a list"),
        ([1], int | None, r"key is \[1\], expected a whole number or null"),
        (
            {"a": 0.5},
            Sequence[str] | Mapping[str, Sequence[float]],
            r"key\.a is 0\.5, expected a list",
        ),
        (5, Drawing, "key is 5, expected Drawing"),
        (None, LatentPool, "key is None, expected LatentPool"),
        ({"size": 2}, LatentPool | None, r"key is \{'size': 2\}, expected LatentPool or null"),
        ([1], Drawing, r"key is \[1\], expected Drawing"),
        (5, nn.Module | None, "key is 5, expected Module or null"),
    ],
)
def test_values_that_do_not(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(UsageError, match=f"^{message}$"):
        check_type(value, hint, where="key")


def test_parts_are_built_of_values_that_fit() -> None:
    parts = Parts(config={}, device=torch.device("cpu"), seed=0)
    node = {"_target_": "clcae.nn.latent_discriminator.LatentPool", "size": 2.5, "w_dim": 4}
    with pytest.raises(UsageError, match=r"^pool\.size is 2\.5, expected a whole number$"):
        parts.build(node, where="pool")
