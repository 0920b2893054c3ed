"""How threads wait: what commands set, and what they leave as it is."""

import os
import subprocess
import sys

import pytest

from clcae import openmp


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (openmp.BOUND, openmp.POLICY):
        monkeypatch.delenv(name, raising=False)


def test_commands_bound_the_spinning_before_torch_is_there() -> None:
    code = (
        "import os, sys; from clcae.command import begin; begin(); "
        "print(os.environ['GOMP_SPINCOUNT'], 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.split() == [str(openmp.SPINS), "False"]


@pytest.mark.parametrize("name", [openmp.BOUND, openmp.POLICY])
def test_what_the_user_says_goes_before(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    assert openmp.waiting() == "threads that wait spin for milliseconds"
    monkeypatch.setenv(name, "7")
    openmp.bound_spinning()
    assert {key for key in (openmp.BOUND, openmp.POLICY) if key in os.environ} == {name}
    assert name in openmp.waiting() and "7" in openmp.waiting()
