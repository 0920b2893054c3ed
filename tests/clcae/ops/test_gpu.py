"""The compiled kernels on a GPU against the references in float64; run with -m gpu."""

import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import Tensor

from clcae.ops import bias_act, kernels, low_pass, upfirdn2d
from clcae.ops.bias_act import bias_act_reference
from clcae.ops.upfirdn2d import upfirdn2d_reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]

# Rounding of the result, of sums of up to 16 products: a few units in the last place.
TOLERANCE = {
    torch.float16: 2**-9,
    torch.bfloat16: 2**-6,
    torch.float32: 1e-5,
    torch.float64: 1e-12,
}
LAYOUTS = {"plain": torch.contiguous_format, "last": torch.channels_last}


@pytest.fixture(autouse=True)
def compiled_kernels() -> None:
    assert kernels.ready(), kernels.status().reason


def close(value: Tensor, expected: Tensor, dtype: torch.dtype) -> None:
    assert value.dtype == dtype
    scale = float(expected.abs().max()) if expected.numel() else 0.0
    atol = TOLERANCE[dtype] * max(scale, 1.0)
    torch.testing.assert_close(value.double(), expected.double(), rtol=0, atol=atol)


def randn(*shape: int, dtype: torch.dtype, layout: str = "plain") -> Tensor:
    x = torch.randn(shape, device="cuda", dtype=torch.float64).to(dtype)
    return x.contiguous(memory_format=LAYOUTS[layout]) if len(shape) == 4 else x


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", [(2, 3, 17, 5), (1, 64, 33, 40), (4, 16, 4, 4), (0, 8, 4, 4)])
@pytest.mark.parametrize("maps", [0, 1, 2])
def test_bias_act(dtype: torch.dtype, layout: str, shape: Any, maps: int) -> None:
    x = randn(*shape, dtype=dtype, layout=layout).requires_grad_()
    bias = randn(shape[1], dtype=dtype).requires_grad_()
    rows = 1 if maps == 1 else shape[0]
    noise = randn(rows, 1, *shape[2:], dtype=dtype).requires_grad_() if maps else None
    value = bias_act(x, bias, activation="lrelu", clamp=2.0, noise=noise)
    inputs = [tensor for tensor in (x, bias, noise) if tensor is not None]
    exact = [tensor.detach().double().requires_grad_() for tensor in inputs]
    given = exact[2] if maps else None
    expected = bias_act_reference(exact[0], exact[1], given, "lrelu", 2.0**0.5, 2.0, 1)
    close(value, expected, dtype)
    assert value.stride() == x.stride()
    weights = randn(*shape, dtype=dtype)
    # Where rounding decides whether a result lies at the limit or before the kink.
    free = bias_act_reference(exact[0], exact[1], given, "lrelu", 2.0**0.5, None, 1).detach()
    unsure = ((free.abs() - 2.0).abs() < 8 * TOLERANCE[dtype]) | (free.abs() < TOLERANCE[dtype])
    weights = weights.masked_fill(unsure, 0.0)
    ours = torch.autograd.grad((value * weights).sum(), inputs)
    theirs = torch.autograd.grad((expected * weights.double()).sum(), exact)
    for one, other in zip(ours, theirs, strict=True):
        close(one, other, dtype)


@pytest.mark.parametrize("shape", [(5, 512), (3, 18, 512), (7, 3)])
@pytest.mark.parametrize("dtype", TOLERANCE)
def test_bias_act_on_the_last_axis(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    x, bias = randn(*shape, dtype=dtype), randn(shape[-1], dtype=dtype)
    expected = bias_act_reference(
        x.double(), bias.double(), None, "lrelu", 2.0**0.5, None, len(shape) - 1
    )
    close(bias_act(x, bias, activation="lrelu", dim=-1), expected, dtype)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(("up", "down"), [(1, 1), (2, 1), (1, 2), (3, 2)])
@pytest.mark.parametrize("taps", [4, 5, 12])
@pytest.mark.parametrize("shape", [(2, 8, 33, 70), (1, 3, 40, 131), (2, 4, 7, 5), (0, 4, 16, 16)])
def test_upfirdn2d(
    dtype: torch.dtype, layout: str, up: int, down: int, taps: int, shape: Any
) -> None:
    filter = torch.arange(1.0, taps + 1, device="cuda") / taps
    for padding in ((taps, taps - 1), (taps - 1, taps + 2), (taps, -1)):
        x = randn(*shape, dtype=dtype, layout=layout).requires_grad_()
        settings = {"up": up, "down": down, "padding": padding, "gain": 0.5}
        value = upfirdn2d(x, filter, **settings)  # type: ignore[arg-type]
        exact = x.detach().double().requires_grad_()
        expected = upfirdn2d_reference(exact, filter.double(), up, down, padding, 0.5)
        # Two passes round twice.
        loose = torch.bfloat16 if taps > 8 and dtype == torch.float16 else dtype
        close(value.to(loose), expected, loose)
        weights = randn(*value.shape, dtype=dtype)
        (ours,) = torch.autograd.grad((value * weights).sum(), x)
        (theirs,) = torch.autograd.grad((expected * weights.double()).sum(), exact)
        close(ours.to(loose), theirs, loose)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_two_derivatives(layout: str) -> None:
    taps = torch.tensor([1.0, 2.0, 5.0, 3.0], device="cuda", dtype=torch.float64)

    def function(x: Tensor, bias: Tensor, noise: Tensor) -> Tensor:
        x = x.contiguous(memory_format=LAYOUTS[layout])
        x = upfirdn2d(x, taps, up=2, padding=(2, 1), gain=4.0)
        x = bias_act(x, bias, activation="lrelu", noise=noise)
        return upfirdn2d(x, taps, down=2, padding=(1, 1))

    shapes = (2, 3, 4, 5), (3,), (1, 1, 8, 10)
    inputs = [randn(*shape, dtype=torch.float64).requires_grad_() for shape in shapes]
    assert torch.autograd.gradcheck(function, inputs)
    assert torch.autograd.gradgradcheck(function, inputs)


def test_strided_and_misaligned_memory() -> None:
    whole = randn(2, 6, 50, 91, dtype=torch.float32)
    for x in (
        whole[:, 1:, 3:, 1:],
        whole[..., ::2],
        whole.transpose(2, 3),
        whole[:1].expand(3, -1, -1, -1),
    ):
        expected = upfirdn2d_reference(x.double(), low_pass().cuda().double(), 2, 1, (2, 1), 4.0)
        close(upfirdn2d(x, low_pass().cuda(), up=2, padding=(2, 1), gain=4.0), expected, x.dtype)
        expected = bias_act_reference(x.double(), None, None, "lrelu", 1.0, None, 1)
        close(bias_act(x, activation="lrelu", gain=1.0), expected, x.dtype)
    flat = randn(4097, dtype=torch.float16)[1:].view(2, 2, 32, 32)
    expected = bias_act_reference(flat.double(), None, None, "lrelu", 1.0, None, 1)
    close(bias_act(flat, activation="lrelu", gain=1.0), expected, flat.dtype)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_more_than_two_to_the_31_elements(layout: str) -> None:
    if torch.cuda.mem_get_info()[0] < 24 * 2**30:
        pytest.skip("less than 24 GiB of the GPU are free")
    shape = (33, 64, 1024, 1024)  # 2.2e9 elements
    x = torch.zeros(shape, dtype=torch.float16, device="cuda", memory_format=LAYOUTS[layout])
    x[-1, -1, -8:, -8:] = 1.0
    bias = torch.full([64], -0.5, dtype=torch.float16, device="cuda")
    value = bias_act(x, bias, activation="lrelu", gain=1.0)
    assert value[-1, -1, -1, -1] == 0.5 and value[-1, -1, 0, 0] == -0.5 * torch.tensor(0.2).half()
    del value
    value = upfirdn2d(x, low_pass().cuda(), padding=(2, 1))
    tail = upfirdn2d_reference(
        x[-1:, -1:, -64:, -64:].double(), low_pass().cuda().double(), 1, 1, (2, 1), 1.0
    )
    close(value[-1:, -1:, -32:, -32:], tail[..., -32:, -32:], torch.float16)


def test_the_compiler_makes_one_graph() -> None:
    x, bias = randn(2, 8, 32, 32, dtype=torch.float32), randn(8, dtype=torch.float32)
    x.requires_grad_()

    taps = low_pass().cuda()

    def block(x: Tensor) -> Tensor:
        x = upfirdn2d(x, taps, up=2, padding=(2, 1), gain=4.0)
        return bias_act(x, bias, activation="lrelu") * 2

    compiled = torch.compile(block, fullgraph=True)
    torch.testing.assert_close(compiled(x), block(x))
    (ours,) = torch.autograd.grad(compiled(x).sum(), x)
    (theirs,) = torch.autograd.grad(block(x).sum(), x)
    torch.testing.assert_close(ours, theirs)


def test_a_captured_graph_replays() -> None:
    x, bias, taps = randn(2, 8, 64, 64, dtype=torch.float16), None, low_pass().cuda()

    def block() -> Tensor:
        return bias_act(
            upfirdn2d(x, taps, up=2, padding=(2, 1), gain=4.0), bias, activation="lrelu"
        )

    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        block()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = block()
    x.copy_(randn(2, 8, 64, 64, dtype=torch.float16))
    graph.replay()
    torch.testing.assert_close(captured, block())


def test_operators_pass_torchs_own_checks() -> None:
    x, noise = randn(2, 8, 40, 40, dtype=torch.float32), randn(2, 1, 40, 40, dtype=torch.float32)
    bias, taps = randn(8, dtype=torch.float32), low_pass().cuda()
    operators = torch.ops.clcae
    for given in (x.requires_grad_(), x.detach().contiguous(memory_format=torch.channels_last)):
        torch.library.opcheck(operators.bias_act, (given, bias, noise, 1, 0.2, 1.4, 0.5))
        torch.library.opcheck(
            operators.upfirdn2d, (given, taps, [2, 2], [1, 1], [2, 1, 2, 1], 4.0, False)
        )


def test_the_references_can_be_asked_for() -> None:
    code = (
        "import torch; from clcae.ops import bias_act, kernels; "
        "bias_act(torch.ones(1, 2, device='cuda'), activation='lrelu'); print(kernels.status())"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        env={**os.environ, "CLCAE_KERNELS": "reference"},
    )
    assert "CLCAE_KERNELS=reference" in process.stdout, process.stderr
