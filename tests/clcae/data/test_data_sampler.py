"""The order of the data is a function of the sample number alone."""

import pytest
import torch

from clcae.data.sampler import shuffled


def test_each_epoch_visits_each_index_once() -> None:
    order = shuffled(13, 0, range(13 * 4)).view(4, 13)
    assert order.dtype == torch.int64
    for epoch in order:
        assert sorted(epoch.tolist()) == list(range(13))
    assert len({tuple(epoch.tolist()) for epoch in order}) == 4


def test_resuming_anywhere_goes_on_exactly() -> None:
    whole = shuffled(10, 7, range(47))
    for start in (0, 3, 10, 29):
        assert torch.equal(shuffled(10, 7, range(start, 47)), whole[start:])
    assert torch.equal(shuffled(10, 7, [41, 2, 2]), whole[[41, 2, 2]])


@pytest.mark.parametrize("num_processes", [2, 3])
def test_processes_share_the_order(num_processes: int) -> None:
    whole = shuffled(10, 7, range(36))
    for rank in range(num_processes):
        part = shuffled(10, 7, range(rank, 36, num_processes))
        assert torch.equal(part, whole[rank::num_processes])


def test_seeds_are_independent() -> None:
    assert not torch.equal(shuffled(50, 0, range(50)), shuffled(50, 1, range(50)))
    # Epoch 1 of seed 0 is not epoch 0 of seed 1.
    assert not torch.equal(shuffled(50, 0, range(50, 100)), shuffled(50, 1, range(50)))


def test_order_does_not_touch_the_global_random_state() -> None:
    state = torch.get_rng_state()
    shuffled(1000, 3, range(5))
    assert torch.equal(torch.get_rng_state(), state)


def test_single_item_and_no_samples() -> None:
    assert shuffled(1, 0, range(3)).tolist() == [0, 0, 0]
    assert shuffled(5, 0, []).shape == (0,)


def test_refuses_empty_data_and_negative_samples() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        shuffled(0, 0, range(1))
    with pytest.raises(ValueError, match="-1 is negative"):
        shuffled(5, 0, [-1])
