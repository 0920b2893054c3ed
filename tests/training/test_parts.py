"""Building from configuration: parts, order, and what goes wrong."""

from collections import OrderedDict
from functools import partial
from typing import Any

import pytest
import torch
from toy_tasks import Trunk

from training.errors import UsageError
from training.parts import Parts


def parts(**config: Any) -> Parts:
    return Parts(config=config, device=torch.device("cpu"), seed=0)


def node(target: str, **values: Any) -> dict[str, Any]:
    return {"_target_": f"toy_tasks.{target}", **values}


TRUNK = {"_part_": "trunk"}


def test_a_part_is_built_once_and_only_when_needed() -> None:
    Trunk.built = 0
    trunks = {"trunk": node("Trunk"), "unused": node("Trunk")}
    found = parts(first=node("Head", trunk=TRUNK), second=node("Head", trunk=TRUNK), **trunks)
    assert found["first"].trunk is found["second"].trunk is found["trunk"]
    assert Trunk.built == 1
    assert len(found.modules()) == 3


def test_a_part_reaches_nested_nodes() -> None:
    inner = node("Head", trunk=TRUNK)
    found = parts(trunk=node("Trunk"), head=node("Head", trunk=TRUNK, loss=[inner]))
    assert found["head"].loss[0].trunk is found["trunk"]
    own = found.build(node("Head", trunk=node("Trunk", width=5)), where="own")
    assert own.trunk.layer.in_features == 5


def test_a_missing_file_of_an_inner_node_is_named_with_its_key() -> None:
    inner = {"_target_": "clcae.load_method", "source": "nothing.safetensors"}
    with pytest.raises(FileNotFoundError, match=r"^head\.trunk: there is no file nothing"):
        parts(head=node("Head", trunk=inner))["head"]
    with pytest.raises(FileNotFoundError, match=r"^there is no file nothing"):
        parts(head=inner)["head"]


def test_an_argument_is_not_filled_because_its_name_matches() -> None:
    assert parts(trunk=node("Trunk"), head=node("optional"))["head"] is None


def test_partial_leaves_the_call() -> None:
    made = parts(trunk=node("Trunk")).build(node("Head", trunk=TRUNK, _partial_=True), where="x")
    assert isinstance(made, partial)
    assert made(loss=3).loss == 3


def test_weights_do_not_depend_on_the_order_of_building() -> None:
    config = {"one": node("Trunk"), "two": node("Trunk")}
    forward, backward = parts(**config), parts(**config)
    first = (forward["one"], forward["two"])
    second = (backward["two"], backward["one"])
    assert torch.equal(first[0].layer.weight, second[1].layer.weight)
    assert torch.equal(first[1].layer.weight, second[0].layer.weight)
    assert not torch.equal(first[0].layer.weight, first[1].layer.weight)


def test_modules_are_built_for_evaluation() -> None:
    assert not parts(trunk=node("Trunk"))["trunk"].training


def test_plain_values_pass_through() -> None:
    value = OrderedDict(a=[1, "two", None], b={"c": 2.5})
    assert parts().build(value, where="x") == value


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"head": node("Missing")}, r"^head\._target_ is 'toy_tasks\.Missing'"),
        ({"head": node("NUMBER")}, "expected a class or a function"),
        ({"head": node("Head")}, r"head: .*missing.*'trunk'"),
        ({"head": node("Trunk", widht=3)}, r"unexpected keyword argument 'widht'; it takes width"),
        ({"head": node("Trunk", width={"_part_": "nothing"})}, "no part 'nothing'; there are head"),
        (
            {
                "head": {"_part_": "hen"},
                "egg": node("Egg", hen={"_part_": "hen"}),
                "hen": node("Hen", egg={"_part_": "egg"}),
            },
            "hen -> egg -> hen",
        ),
    ],
)
def test_mistakes_are_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parts(**config)["head"]
