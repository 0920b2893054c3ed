"""The measured training steps do what they are named after."""

import pytest
import torch

from benchmarks.case import Case
from benchmarks.networks import PORTRAITS, Networks
from benchmarks.training import training_cases
from benchmarks.yardstick import synthesis, training_step


@pytest.fixture
def networks() -> Networks:
    return Networks(device=torch.device("cpu"), textbook=synthesis)


def cases(networks: Networks) -> dict[str, Case]:
    made = training_cases(networks, quick=True, plain_step=training_step)
    aligner = next(made)
    return {"aligner": aligner, "encoder": next(made)}


@pytest.mark.parametrize(("stage", "syntheses"), [("aligner", 1), ("encoder", 3)])
def test_the_textbook_step_uses_the_textbook_s_synthesis(
    networks: Networks, stage: str, syntheses: int
) -> None:
    variants, counted = cases(networks)[stage].variants, []
    ours, plain = variants["clcae"].prepare(), variants["textbook"].prepare()
    textbook = networks.plain_synthesis(PORTRAITS)
    textbook.register_forward_hook(lambda *_: counted.append(1))
    ours()
    assert not counted
    plain()
    assert len(counted) == syntheses


def test_both_steps_train_the_same_encoder_and_leave_the_generator(networks: Networks) -> None:
    variants = cases(networks)["encoder"].variants
    method = networks.method(PORTRAITS)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    for variant in variants.values():
        variant.prepare()()
        after = method.state_dict()
        changed = {key for key in before if not torch.equal(before[key], after[key])}
        assert any(key.startswith("pyramid.") for key in changed)
        assert not any(key.startswith("generator.") for key in changed)
        before = {key: value.clone() for key, value in after.items()}
    assert all(parameter.grad is None for parameter in method.parameters())
