"""The precision of inference: what is chosen on which machine, and what is said of it."""

import pytest
import torch

from clcae.precision import bfloat16_lacking, resolve

CPU = torch.device("cpu")


def with_instructions(monkeypatch: pytest.MonkeyPatch, **features: bool) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)


@pytest.mark.parametrize("feature", ["avx512_bf16", "amx_bf16", "amx_tile"])
def test_bfloat16_where_the_processor_has_it(monkeypatch: pytest.MonkeyPatch, feature: str) -> None:
    with_instructions(monkeypatch, **{feature: True})
    assert resolve("bfloat16", CPU) == ("bfloat16", None)
    assert resolve("auto", CPU) == ("bfloat16", "computing in bfloat16")
    assert resolve("float32", CPU) == ("float32", None)


def test_another_processor_computes_in_float32_and_says_why(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_instructions(monkeypatch, avx512_f=True)
    assert bfloat16_lacking(CPU) == "this CPU has no bfloat16 instructions"
    line = "computing in float32, since this CPU has no bfloat16 instructions"
    for choice in ("bfloat16", "auto"):
        assert resolve(choice, CPU) == ("float32", line)
    assert resolve("float32", CPU) == ("float32", None)
    assert resolve("auto", torch.device("mps"))[0] == "float32"


def test_another_word_is_refused() -> None:
    with pytest.raises(ValueError, match="precision is 'half', expected float32, bfloat16 or auto"):
        resolve("half", CPU)
