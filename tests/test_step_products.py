"""Products of a time loop's weight are torch's, whatever the sizes, strides and threads."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mnm_rl.kernels import recurrent
from mnm_rl.kernels.packed import FEW_STEPS, StepProduct, outer_sum

pytestmark = pytest.mark.skipif(not recurrent.compiles(), reason="needs a C++ compiler")
SIZES = st.integers(1, 70)
STARTS = st.sampled_from(["none", "a row", "rows", "one number for all"])


def draw(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype)


@settings(deadline=None, max_examples=60)
@given(
    *(SIZES, SIZES, st.integers(0, 40), STARTS),
    *(st.sampled_from([torch.float32, torch.float64]), st.booleans(), st.sampled_from([1, FEW_STEPS])),
)
def test_a_product(inputs, outputs, batch, start, dtype, is_transposed, steps):
    weight = draw(outputs, inputs, dtype=dtype).mT if is_transposed else draw(inputs, outputs, dtype=dtype)
    values = draw(batch, inputs, dtype=dtype)
    starts = {
        "none": None,
        "a row": draw(outputs, dtype=dtype),
        "rows": draw(batch, outputs, dtype=dtype),
        "one number for all": draw(1, 1, dtype=dtype).expand(batch, outputs),
    }
    begin = starts[start]
    expected = values @ weight if begin is None else begin + values @ weight
    before = None if begin is None else begin.clone()
    torch.testing.assert_close(StepProduct(weight, steps)(values, begin), expected, rtol=1e-4, atol=1e-4)
    assert begin is None or before is None or torch.equal(begin, before)


@settings(deadline=None, max_examples=60)
@given(
    *(SIZES, SIZES, st.integers(1, 12), st.integers(1, 12)),
    *(st.sampled_from([torch.float32, torch.float64]), st.booleans()),
)
def test_an_outer_sum(left, right, steps, batch, dtype, is_part):
    a, b = draw(steps, batch, left, dtype=dtype), draw(steps, batch, right + 3, dtype=dtype)
    b = b[..., :right] if is_part else b[..., :right].contiguous()
    expected = torch.einsum("tbi,tbo->io", a, b)
    torch.testing.assert_close(outer_sum(a, b), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(threads):
    values, weight = torch.randn(70, 33), torch.randn(33, 90)
    left, right = torch.randn(8, 9, 130), torch.randn(8, 9, 37)
    before = torch.get_num_threads()

    def found() -> tuple[torch.Tensor, torch.Tensor]:
        return StepProduct(weight, FEW_STEPS)(values), outer_sum(left, right)

    try:
        torch.set_num_threads(1)
        alone = found()
        torch.set_num_threads(threads)
        assert all(torch.equal(one, other) for one, other in zip(alone, found(), strict=True))
    finally:
        torch.set_num_threads(before)


def test_the_sum_of_nothing_is_zero():
    assert torch.equal(outer_sum(torch.empty(0, 4, 3), torch.empty(0, 4, 2)), torch.zeros(3, 2))
