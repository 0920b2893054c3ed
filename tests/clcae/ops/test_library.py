"""The operators through torch's dispatcher, on the CPU: derivatives, shapes, the compiler.

The emulated kernels stand where the compiled ones stand on a GPU.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from clcae.ops import bias_act, kernels, low_pass, upsample2d
from clcae.ops.bias_act import _bias_act_kernel, bias_act_reference
from clcae.ops.upfirdn2d import _upfirdn2d_kernel, upfirdn2d_reference

TAPS = torch.tensor([1.0, 2.0, 5.0, 3.0], dtype=torch.float64)


def unguarded(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Copies results, as the kernels return new memory."""
    return lambda *arguments: function(*arguments).clone()


@pytest.fixture
def emulated(emulator: Any) -> Iterator[Any]:
    """Registers the emulator as the CPU implementation during a test."""
    import clcae.ops.library  # noqa: F401

    implementation = torch.library.Library("clcae", "IMPL")
    for name in ("bias_act", "bias_act_backward", "upfirdn2d"):
        implementation.impl(name, unguarded(getattr(emulator, name)), "CPU")
    yield emulator
    implementation._destroy()


def laid(x: Tensor, layout: str) -> Tensor:
    form = torch.channels_last if layout == "last" else torch.contiguous_format
    return x.contiguous(memory_format=form)


def random(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("layout", ["plain", "last"])
@pytest.mark.parametrize(
    ("activation", "clamp"), [("lrelu", None), ("lrelu", 1.1), ("linear", None), ("linear", 0.9)]
)
def test_bias_act_has_two_derivatives(
    layout: str, activation: Any, clamp: float | None, emulated: Any
) -> None:
    torch.manual_seed(3)

    def function(x: Tensor, bias: Tensor, noise: Tensor) -> Tensor:
        return _bias_act_kernel(laid(x, layout), bias, noise, activation, 1.3, clamp, 1)

    for maps in (1, 2):
        inputs = random(2, 3, 4, 5), random(3), random(maps, 1, 4, 5)
        assert torch.autograd.gradcheck(function, inputs)
        assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("shape", [(4, 3), (2, 5, 3)])
def test_bias_act_on_the_last_axis(shape: tuple[int, ...], emulated: Any) -> None:
    inputs = random(*shape), random(3)

    def function(x: Tensor, bias: Tensor) -> Tensor:
        return _bias_act_kernel(x, bias, None, "lrelu", 2.0**0.5, None, len(shape) - 1)

    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("layout", ["plain", "last"])
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("padding", [(2, 1), (3, 3), (-1, 4)])
def test_upfirdn2d_has_two_derivatives(
    layout: str, up: int, down: int, padding: tuple[int, int], emulated: Any
) -> None:
    x = random(1, 2, 5, 6)

    def function(x: Tensor) -> Tensor:
        return _upfirdn2d_kernel(laid(x, layout), TAPS, up, down, padding, 1.7)

    assert torch.autograd.gradcheck(function, (x,))
    assert torch.autograd.gradgradcheck(function, (x,))


@pytest.mark.parametrize("filter", [TAPS[:, None], torch.randn(3, 2, dtype=torch.float64)])
@pytest.mark.parametrize("flip", [False, True])
def test_any_filter_and_every_axis_has_its_derivative(
    filter: Tensor, flip: bool, emulated: Any
) -> None:
    def function(x: Tensor) -> Tensor:
        result: Tensor = torch.ops.clcae.upfirdn2d(
            x, filter, [2, 1], [1, 3], [3, 1, -1, 4], 0.7, flip
        )
        return result

    x = random(2, 1, 4, 7)
    assert torch.autograd.gradcheck(function, (x,))
    assert torch.autograd.gradgradcheck(function, (x,))
    with pytest.raises(RuntimeError, match="filter"):
        torch.ops.clcae.upfirdn2d(
            x, TAPS.clone().requires_grad_(), [1, 1], [1, 1], [2, 1, 2, 1], 1.0, False
        ).sum().backward()


@pytest.mark.parametrize("layout", ["plain", "last"])
def test_the_compiler_knows_the_operators(layout: str, emulated: Any) -> None:
    x = laid(torch.randn(2, 8, 12, 12), layout).requires_grad_()
    strided = torch.randn(2, 8, 12, 24)[..., ::2]
    noise, bias = torch.randn(2, 1, 12, 12), torch.randn(8, requires_grad=True)
    operators, taps = torch.ops.clcae, low_pass()
    for given in (x, strided):
        torch.library.opcheck(operators.bias_act, (given, bias, noise, 1, 0.2, 1.4, 0.5))
        torch.library.opcheck(
            operators.upfirdn2d, (given, taps, [2, 2], [1, 1], [2, 1, 2, 1], 4.0, False)
        )
        torch.library.opcheck(operators.bias_act_backward, (given, given.detach(), 0.2, 1.4, None))


def test_a_compiled_block_equals_the_references(emulated: Any) -> None:
    bias, taps = torch.randn(8, requires_grad=True), low_pass()

    def block(x: Tensor, noise: Tensor, act: Any, resample: Any) -> Tensor:
        x = resample(x, taps, 2, 1, (2, 1), 4.0)
        return act(x, bias, noise, "lrelu", 2.0**0.5, 1.0, 1)

    x, noise = torch.randn(2, 8, 9, 9, requires_grad=True), torch.randn(1, 1, 18, 18)
    compiled = torch.compile(block, backend="aot_eager", fullgraph=True)
    value = compiled(x, noise, _bias_act_kernel, _upfirdn2d_kernel)
    expected = block(x, noise, bias_act_reference, upfirdn2d_reference)
    torch.testing.assert_close(value, expected)
    weights = torch.randn_like(value)
    ours = torch.autograd.grad((value * weights).sum(), (x, bias))
    theirs = torch.autograd.grad((expected * weights).sum(), (x, bias))
    torch.testing.assert_close(ours, theirs)
    assert emulated.calls == 4  # two forward, two backward


def test_a_tensor_on_a_gpu_goes_to_the_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Checks operator, shape, type and layout on fake tensors."""
    import clcae.ops.library  # noqa: F401

    monkeypatch.setattr(kernels, "_status", kernels.Status(usable=True, reason="for a test"))
    seen: list[str] = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(
            self, func: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            seen.append(func._opname)
            return func(*args, **(kwargs or {}))

    with FakeTensorMode(), Watch():
        x = torch.empty(2, 8, 16, 16, device="cuda", dtype=torch.float16)
        x = x.contiguous(memory_format=torch.channels_last)
        bias, taps = torch.empty(8, device="cuda"), torch.empty(4, device="cuda")
        noise = torch.empty(1, 1, 32, 32, device="cuda")
        value = bias_act(upsample2d(x, taps), bias, activation="lrelu", noise=noise)
        assert bias_act(x) is x  # nothing to do
        # The gradient of the filter has no kernel.
        upsample2d(x, taps.requires_grad_())
    assert [name for name in seen if name in ("bias_act", "upfirdn2d")] == ["upfirdn2d", "bias_act"]
    assert value.shape == (2, 8, 32, 32) and value.dtype == torch.float32
    assert value.is_contiguous(memory_format=torch.channels_last)


def test_types_are_those_of_the_reference(emulated: Any) -> None:
    for x, bias in ((torch.bfloat16, torch.float32), (torch.float32, torch.float64)):
        given = torch.randn(2, 3, 4, 4).to(x), torch.randn(3).to(bias), None
        value = _bias_act_kernel(*given, "lrelu", 1.0, None, 1)
        expected = bias_act_reference(*given, "lrelu", 1.0, None, 1)
        torch.testing.assert_close(value, expected)  # the type as well
    x = torch.randn(1, 4, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = _upfirdn2d_kernel(x, low_pass(), 2, 1, (2, 1), 4.0)
        expected = upfirdn2d_reference(x, low_pass(), 2, 1, (2, 1), 4.0)
    torch.testing.assert_close(value, expected)


def test_many_taps_go_one_axis_after_the_other(emulated: Any) -> None:
    x, taps = torch.randn(1, 2, 9, 11, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    value = _upfirdn2d_kernel(x, taps, 2, 3, (7, 6), 1.5)
    torch.testing.assert_close(value, upfirdn2d_reference(x, taps, 2, 3, (7, 6), 1.5))
    assert emulated.calls == 2
