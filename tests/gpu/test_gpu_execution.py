"""How the ops run: streams, graphs, devices, synchronisation, compilation."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tests.gpu.cuda_ops import CALLS, SHAPE, attack, cuda_perturb, forward, limits, step

pytestmark = pytest.mark.gpu
LAYOUTS = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}


@pytest.fixture(params=LAYOUTS)
def x(request: pytest.FixtureRequest) -> Tensor:
    return torch.randn(SHAPE, device="cuda").to(memory_format=LAYOUTS[request.param])


@pytest.fixture
def no_synchronisation() -> Iterator[None]:
    """Waiting for the device, as `.item()` does, is an error."""
    yield
    torch.cuda.set_sync_debug_mode("default")


def _assert_same(results: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    for result, other in zip(results, expected, strict=True):
        assert torch.equal(result, other)


@pytest.mark.parametrize("name", CALLS)
def test_the_same_bits_at_every_run_and_no_synchronisation(
    name: str, x: Tensor, no_synchronisation: None
) -> None:
    first = CALLS[name](x)  # compiles, which may synchronise
    torch.cuda.set_sync_debug_mode("error")
    second = CALLS[name](x)
    torch.cuda.set_sync_debug_mode("default")
    _assert_same(second, first)


@pytest.mark.parametrize("name", CALLS)
def test_work_goes_to_the_current_stream(name: str, x: Tensor) -> None:
    """On another stream it would read the input long before it is written."""
    expected = CALLS[name](x)
    late = torch.zeros_like(x)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        torch.cuda._sleep(100_000_000)  # cycles, some 50 ms
        late.copy_(x)
        results = CALLS[name](late)
    stream.synchronize()
    _assert_same(results, expected)


@pytest.mark.parametrize("name", CALLS)
def test_graph_replay_reads_changed_inputs(name: str, x: Tensor) -> None:
    given = torch.zeros_like(x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            CALLS[name](given)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = CALLS[name](given)
    for values in (x, x.flip(0)):
        given.copy_(values)
        graph.replay()
        _assert_same(captured, CALLS[name](given))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
@pytest.mark.parametrize("name", CALLS)
def test_tensors_of_a_device_that_is_not_the_current_one(name: str, x: Tensor) -> None:
    expected = CALLS[name](x)
    results = CALLS[name](x.to("cuda:1"))
    assert torch.cuda.current_device() == 0
    _assert_same(tuple(result.to("cuda:0") for result in results), expected)


def test_inductor_takes_them_without_a_graph_break(x: Tensor) -> None:
    """The mean, and the sum of a gradient, are Inductor's own and may round differently."""
    expected = step(x)
    leaf = x.detach().requires_grad_()
    loss, entropy, _, selected = torch.compile(forward, fullgraph=True)(leaf)
    (grad,) = torch.autograd.grad(loss.sum(), leaf)
    x_adv = torch.compile(attack, fullgraph=True)(x, expected[3], selected)
    results = (loss.detach(), entropy, selected, grad, x_adv)
    for result, other in zip(results, expected, strict=True):
        torch.testing.assert_close(result, other)
        assert result.stride() == other.stride()


@pytest.mark.parametrize("row", [-9, 8, 2**40])
def test_a_row_outside_becomes_nan(row: int, x: Tensor) -> None:
    """The index is not read back to the host, so that no error can be raised."""
    ops, index = cuda_perturb(), torch.tensor([1, row], device="cuda")
    gathered = ops.gather_perturb(x, x, index, *limits(x))
    assert gathered[1].isnan().all() and not gathered[0].isnan().any()
    x_adv = x[:2].clone()
    ops.perturb_(x_adv, x_adv.clone(), x, index, *limits(x))
    assert x_adv[1].isnan().all() and not x_adv[0].isnan().any()
