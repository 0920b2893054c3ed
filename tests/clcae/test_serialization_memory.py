"""Loading native files: modules are built without memory, then filled."""

import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

from clcae import serialization
from clcae.serialization import load, register, save


@pytest.fixture(autouse=True)
def classes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serialization, "_registry", {})


def test_buffers_that_no_file_holds_have_their_values(tmp_path: Path) -> None:
    @register("computed")
    class Computed(nn.Module):
        def __init__(self, *, width: int) -> None:
            super().__init__()
            self.conv = nn.Conv2d(width, width, 3)
            nn.init.zeros_(self.conv.bias)
            self.linear = nn.Linear(width, width)
            self.linear.requires_grad_(False)
            positions = torch.linspace(0, 1, width).cos()
            self.register_buffer("positions", positions, persistent=False)

    module = Computed(width=7)
    save(module, tmp_path / "a", provenance={})
    loaded = load(tmp_path / "a", expected=Computed)
    assert loaded.state_dict().keys() == module.state_dict().keys()
    for key, value in module.state_dict().items():
        assert torch.equal(loaded.state_dict()[key], value)
    assert torch.equal(loaded.positions, torch.linspace(0, 1, 7).cos())
    assert not loaded.linear.weight.requires_grad and loaded.conv.weight.requires_grad
    assert not any(t.is_meta for t in [*loaded.parameters(), *loaded.buffers()])


def test_modules_of_other_threads_are_left_alone(tmp_path: Path) -> None:
    started, built = threading.Event(), threading.Event()

    @register("slow")
    class Slow(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            started.set()
            built.wait(10)
            self.weight = nn.Parameter(torch.ones(2))

    built.set()
    save(Slow(), tmp_path / "a", provenance={})
    started.clear()
    built.clear()
    found: list[nn.Module] = []
    thread = threading.Thread(target=lambda: found.append(load(tmp_path / "a")))
    thread.start()
    assert started.wait(10)
    other = nn.Linear(3, 3)
    built.set()
    thread.join()
    assert not other.weight.is_meta and other.weight.abs().sum() > 0
    assert torch.equal(found[0].state_dict()["weight"], torch.ones(2))


BIG = """
import sys, torch
from torch import nn
from clcae.serialization import load, register, save

@register("big")
class Big(nn.Module):
    def __init__(self, *, width, depth):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))

def kilobytes(name):
    return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith(name))

if sys.argv[1] == "save":
    save(Big(width=2048, depth=36), sys.argv[2], provenance={}, half=sys.argv[3] == "half")
else:
    before = kilobytes("VmRSS")
    module = load(sys.argv[2])
    print(before, kilobytes("VmHWM"), sum(p.nbytes for p in module.parameters()) >> 10)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
@pytest.mark.parametrize("form", ["full", "half"])
def test_loading_takes_the_memory_of_the_weights(tmp_path: Path, form: str) -> None:
    script, path = tmp_path / "big.py", tmp_path / "big.safetensors"
    script.write_text(BIG)
    for command in ("save", "load"):
        done = subprocess.run(
            [sys.executable, str(script), command, str(path), form],
            capture_output=True,
            text=True,
            check=True,
        )
    before, peak, weights = map(int, done.stdout.split())
    assert weights > 570 << 10
    assert peak - before < 1.3 * weights, f"{(peak - before) / weights:.2f} times the weights"
