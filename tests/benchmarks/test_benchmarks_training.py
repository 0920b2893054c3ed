"""The measured training steps do what they are named after."""

import pytest
import torch

from benchmarks.measurement import Group
from benchmarks.network_cache import PORTRAITS, NetworkCache
from benchmarks.training import training_groups


@pytest.fixture
def networks() -> NetworkCache:
    return NetworkCache(device=torch.device("cpu"))


def groups(networks: NetworkCache) -> dict[str, Group]:
    return dict(zip(("aligner", "encoder"), training_groups(networks, quick=True), strict=True))


@pytest.mark.parametrize(("stage", "syntheses"), [("aligner", 1), ("encoder", 3)])
def test_the_textbook_step_uses_the_textbook_s_synthesis(
    networks: NetworkCache, stage: str, syntheses: int
) -> None:
    variants, counted = groups(networks)[stage].variants, []
    ours, plain = variants["clcae"].prepare(), variants["textbook"].prepare()
    textbook = networks.textbook(PORTRAITS)
    textbook.register_forward_hook(lambda *_: counted.append(1))
    ours()
    assert not counted
    plain()
    assert len(counted) == syntheses


def test_both_steps_train_the_same_encoder_and_leave_the_generator(networks: NetworkCache) -> None:
    variants = groups(networks)["encoder"].variants
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
