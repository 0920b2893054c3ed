"""Two processes do what one does with the whole batch."""

from pathlib import Path

import pytest
import torch
from toy_runs import ROOT, checkpoint, command, configure, run_python

from clcae.nn.gather import gather_rows
from training import distributed
from training.errors import UsageError
from training.run import train

# Without batch statistics and dropout, a step is a sum over rows, however they are divided.
SMOOTH = [
    "network.normalize=false",
    "network.dropout=0.0",
    "+stages.fit.task={_target_: toy_tasks.Contrast, critic: {_part_: critic}}",
    "+stages.fit.optim={_target_: torch.optim.SGD, lr: 0.1}",
    "stages.fit.trainer.steps=4",
]


def test_two_processes_equal_one(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    train(configure(one, *SMOOTH))
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = run_python(*launcher, *command(two, *SMOOTH))
    assert done.returncode == 0, done.stderr
    alone, together = checkpoint(one / "toy"), checkpoint(two / "toy")
    for name, expected in alone["modules"].items():
        for key, value in expected.items():
            torch.testing.assert_close(
                together["modules"][name][key], value, rtol=1e-5, atol=1e-6, msg=f"{name}.{key}"
            )
    for name, total in alone["means"]["sums"].items():
        assert together["means"]["sums"][name] == pytest.approx(total, rel=1e-4)


def test_one_process_needs_no_group() -> None:
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_rows(rows) is rows
    assert distributed.on_main(lambda: 5) == 5
    assert (distributed.rank(), distributed.world_size(), distributed.is_main()) == (0, 1, True)


def test_a_device_that_is_not_there() -> None:
    with pytest.raises(UsageError, match="expected auto, cpu, cuda"):
        distributed.session("tpu2").__enter__()
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="no CUDA device: use device=auto"):
            distributed.session("cuda").__enter__()
    assert (ROOT / "train.py").exists()
