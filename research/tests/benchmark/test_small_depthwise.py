import pytest
import torch
from torch import nn

from research.benchmark.small_depthwise import SmallMapDepthwise, use_small_depthwise


@pytest.mark.parametrize('kernel', [3, 5, 7])
@pytest.mark.parametrize(('height', 'width'), [(1, 1), (2, 2), (2, 3), (4, 4), (5, 4)])
def test_values_and_gradients_are_those_of_the_convolution(kernel, height, width):
    plain = nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=6, bias=False).double()
    fast = nn.Conv2d(6, 6, kernel, padding=kernel // 2, groups=6, bias=False).double()
    fast.load_state_dict(plain.state_dict())
    use_small_depthwise(fast)
    assert type(fast) is SmallMapDepthwise
    results = []
    for conv in (plain, fast):
        x = torch.linspace(-1, 1, 2 * 6 * height * width, dtype=torch.double)
        x = x.view(2, 6, height, width).sin().requires_grad_()
        y = conv(x)
        y.square().sum().backward()
        results.append((y, x.grad, conv.weight.grad))
    for a, b in zip(*results, strict=True):
        assert torch.allclose(a, b, atol=1e-12)


def test_other_convolutions_stay():
    model = nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1, bias=False),
        nn.Conv2d(4, 4, 2, stride=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=1, groups=4),
    )
    use_small_depthwise(model)
    assert {type(conv) for conv in model} == {nn.Conv2d}
