"""Small parts that need one another."""

from typing import Any

from torch import nn

NUMBER = 3


class Trunk(nn.Module):
    built = 0

    def __init__(self, *, width: int = 2) -> None:
        super().__init__()
        Trunk.built += 1
        self.layer = nn.Linear(width, width)


class Head(nn.Module):
    def __init__(self, *, trunk: Trunk, loss: Any = None) -> None:
        super().__init__()
        self.trunk = trunk
        self.loss = loss


def optional(*, trunk: Any = None) -> Any:
    return trunk


class Hen:
    def __init__(self, *, egg: Any) -> None:
        self.egg = egg


class Egg:
    def __init__(self, *, hen: Any) -> None:
        self.hen = hen
