import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmdet_hadaptive.ops import gather_channels, gumbel_noise, gumbel_top_k


def test_noise_has_the_gumbel_distribution():
    noise = gumbel_noise(torch.empty(200_000, dtype=torch.float64))
    assert noise.isfinite().all()
    # Mean: the Euler-Mascheroni constant; standard deviation: pi / sqrt(6).
    assert noise.mean().item() == pytest.approx(0.5772, abs=0.015)
    assert noise.std().item() == pytest.approx(1.2825, abs=0.015)


def test_a_seed_fixes_the_noise():
    scores = torch.empty(3, 5)
    torch.manual_seed(7)
    first = gumbel_noise(scores)
    assert not torch.equal(first, gumbel_noise(scores))
    torch.manual_seed(7)
    assert torch.equal(first, gumbel_noise(scores))


@given(
    batch=st.integers(1, 4),
    channels=st.integers(1, 12),
    data=st.data(),
    temperature=st.floats(0.01, 4.0),
)
def test_selection_equals_the_definition(batch, channels, data, temperature):
    k = data.draw(st.integers(1, channels))
    scores = torch.randn(batch, channels, dtype=torch.float64)
    noise = gumbel_noise(scores)
    indices, scale = gumbel_top_k(scores, k, temperature, noise)
    for b in range(batch):
        order = sorted(range(channels), key=lambda c: -(scores + noise)[b, c])
        assert indices[b].tolist() == order[:k]
    assert torch.equal(scale, torch.ones(batch, k, dtype=torch.float64))


@pytest.mark.parametrize('reverse', [False, True])
def test_scale_carries_the_gradient_of_the_soft_value(reverse):
    scores = torch.randn(2, 6, dtype=torch.float64, requires_grad=True)
    noise = gumbel_noise(scores)
    weight = torch.randn(2, 3, dtype=torch.float64)
    indices, scale = gumbel_top_k(scores, 3, 1.7, noise, reverse_gradient=reverse)
    (scale * weight).sum().backward()
    expected = torch.zeros_like(scores)
    soft = torch.softmax((scores.detach() + noise) / 1.7, 1)
    for b in range(2):
        for r, chosen in enumerate(indices[b].tolist()):
            for c in range(6):
                slope = soft[b, chosen] * (float(c == chosen) - soft[b, c]) / 1.7
                expected[b, c] += weight[b, r] * slope
    assert torch.allclose(scores.grad, -expected if reverse else expected, atol=1e-12)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_low_precision_chooses_as_single_precision_does(dtype):
    scores = torch.rand(64, 96).to(dtype)
    chosen = []
    for values in (scores, scores.float()):
        torch.manual_seed(0)
        indices, scale = gumbel_top_k(values, 16, 1.0)
        assert scale.dtype == values.dtype
        chosen.append(indices)
    assert torch.equal(*chosen)


def test_order_survives_a_temperature_at_which_the_softmax_underflows():
    scores = torch.tensor([[0.0, 100.0, 50.0, 75.0]])
    indices, _ = gumbel_top_k(scores, 4, 0.01, torch.zeros(1, 4))
    assert indices.tolist() == [[1, 3, 2, 0]]


def test_every_channel_has_its_probability():
    # Gumbel top-1 draws from the softmax at temperature 1.
    scores = torch.tensor([0.0, 1.0, 2.0]).expand(20_000, 3)
    indices, _ = gumbel_top_k(scores, 1, 1.0)
    frequency = torch.bincount(indices.flatten(), minlength=3) / 20_000
    assert torch.allclose(frequency, scores[0].softmax(0), atol=0.02)


def test_gather_channels():
    x = torch.randn(2, 4, 3, 5)
    indices = torch.tensor([[3, 0], [1, 1]])
    expected = torch.stack([torch.stack([x[0, 3], x[0, 0]]), torch.stack([x[1, 1], x[1, 1]])])
    assert torch.equal(gather_channels(x, indices), expected)


def test_gather_gradcheck():
    x = torch.randn(2, 4, 2, 2, dtype=torch.float64, requires_grad=True)
    indices = torch.tensor([[3, 0], [1, 2]])
    assert torch.autograd.gradcheck(lambda x: gather_channels(x, indices), x)


@pytest.mark.parametrize('k', [0, 5])
def test_wrong_k(k):
    with pytest.raises(ValueError, match=rf'k must be in 1\.\.4 .*got {k}'):
        gumbel_top_k(torch.zeros(2, 4), k, 1.0)


def test_wrong_shapes():
    with pytest.raises(ValueError, match=r'\(B, C\), got \(4,\)'):
        gumbel_top_k(torch.zeros(4), 2, 1.0)
    with pytest.raises(ValueError, match=r'shape of scores \(2, 4\), got \(4,\)'):
        gumbel_top_k(torch.zeros(2, 4), 2, 1.0, torch.zeros(4))
