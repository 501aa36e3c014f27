import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmdet_hadaptive.ops import pairwise_products


def slow_products(x):
    return torch.stack(
        [x[:, i] * x[:, j] for i in range(x.shape[1]) for j in range(i + 1, x.shape[1])], dim=1
    )


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(2, 9), st.integers(1, 5), st.integers(1, 5)),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
)
def test_equals_the_definition(shape, dtype):
    x = torch.randn(shape).to(dtype)
    products = pairwise_products(x)
    assert products.dtype == dtype
    assert torch.equal(products, slow_products(x))


def test_order_of_pairs():
    x = torch.tensor([2.0, 3.0, 5.0, 7.0]).view(1, 4, 1, 1)
    assert pairwise_products(x).flatten().tolist() == [6, 10, 14, 15, 21, 35]


def test_gradcheck():
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(pairwise_products, x)
    assert torch.autograd.gradgradcheck(pairwise_products, x)


@pytest.mark.parametrize('shape', [(2, 1, 3, 3), (2, 0, 3, 3)])
def test_too_few_channels(shape):
    with pytest.raises(ValueError, match=f'at least 2 channels, got {shape[1]}'):
        pairwise_products(torch.zeros(shape))


def test_wrong_dimensions():
    with pytest.raises(ValueError, match=r'\(B, s, H, W\), got \(3, 4\)'):
        pairwise_products(torch.zeros(3, 4))
