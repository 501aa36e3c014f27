import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from mmdet_hadaptive.ops import append_products, expansion


def slow(u, indices, scale, alpha, weight, bias):
    images = []
    for image, own, factors in zip(u, indices, scale, strict=True):
        z = [image[c] * factor for c, factor in zip(own, factors, strict=True)]
        maps = list(image)
        pairs = [(i, j) for i in range(len(z)) for j in range(i + 1, len(z))]
        for p, (i, j) in enumerate(pairs):
            scaled = alpha[0] * z[i] * z[j]
            maps.append(weight[p] * scaled / (1 + scaled.abs()) + bias[p])
        images.append(torch.stack(maps))
    return torch.stack(images)


def arguments(shape=(2, 5, 3, 4), selected=3, dtype=torch.float64, channels_last=False):
    pairs = selected * (selected - 1) // 2
    u = torch.randn(shape, dtype=dtype)
    if channels_last:
        u = u.contiguous(memory_format=torch.channels_last)
    indices = torch.stack([torch.randperm(shape[1])[:selected] for _ in range(shape[0])])
    others = [torch.randn(size, dtype=dtype) for size in ((shape[0], selected), 1, pairs, pairs)]
    return [u.requires_grad_(), indices, *(value.requires_grad_() for value in others)]


def gradients(function, inputs, weight):
    wanted = [value for value in inputs if value.requires_grad]
    return torch.autograd.grad((function(*inputs) * weight).sum(), wanted)


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('function', [append_products, expansion._composed])
@pytest.mark.parametrize('selected', [2, 5])
def test_equals_the_definition(function, selected, channels_last):
    inputs = arguments((2, 6, 3, 4), selected, channels_last=channels_last)
    expected = slow(*inputs)
    y = function(*inputs)
    assert torch.allclose(y, expected, atol=1e-12)
    weight = torch.randn_like(expected)
    pairs = zip(gradients(function, inputs, weight), gradients(slow, inputs, weight), strict=True)
    for actual, wanted in pairs:
        assert torch.allclose(actual, wanted, atol=1e-11)
    if function is append_products:
        assert y.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize('zero', ['alpha', 'weight'])
def test_zero_parameters(zero):
    inputs = arguments()
    with torch.no_grad():
        inputs[3 if zero == 'alpha' else 4].zero_()
    weight = torch.randn_like(slow(*inputs))
    for function in (append_products, expansion._composed):
        actual, expected = (gradients(f, inputs, weight) for f in (function, slow))
        for a, e in zip(actual, expected, strict=True):
            assert torch.allclose(a, e, atol=1e-11)


def test_gradcheck():
    u, indices, *others = arguments()
    # Nothing near the kink of the modulus, which is smooth but not twice differentiable.
    u = (u.detach().sign() * (u.detach().abs() + 0.3)).requires_grad_()

    def function(u, *others):
        return append_products(u, indices, *others)

    assert torch.autograd.gradcheck(function, (u, *others))
    assert torch.autograd.gradgradcheck(function, (u, *others))


def test_gradients_of_gradients_where_some_inputs_are_fixed():
    u, indices, scale, *others = arguments()
    fixed = [value.detach() for value in others]

    def penalty(function):
        (grad,) = torch.autograd.grad(
            function(u, indices, scale, *fixed).square().sum(), u, create_graph=True
        )
        return torch.autograd.grad(grad.square().sum(), (u, scale))

    for actual, expected in zip(penalty(append_products), penalty(slow), strict=True):
        assert torch.allclose(actual, expected, rtol=1e-9)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_low_precision_rounds_once(dtype):
    inputs = [v.to(dtype) if v.is_floating_point() else v for v in arguments((2, 8, 4, 4), 6)]
    inputs = [v.detach().requires_grad_(v.is_floating_point()) for v in inputs]
    wide = [v.double() if v.is_floating_point() else v for v in inputs]
    y, expected = append_products(*inputs), slow(*wide)
    assert y.dtype == dtype
    assert torch.allclose(y.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)
    weight = torch.randn_like(expected).to(dtype)
    wide = [v.detach().requires_grad_(v.is_floating_point()) for v in wide]
    actual, wanted = gradients(append_products, inputs, weight), gradients(slow, wide, weight)
    for a, w in zip(actual, wanted, strict=True):
        assert a.dtype == dtype
        assert (a.double() - w).abs().max() < 4 * torch.finfo(dtype).eps * w.abs().max()


def test_stores_its_result_only():
    inputs = arguments((4, 32, 8, 8), 16, torch.float32)
    stored = []

    def note(value):
        stored.append(value.numel() * (value.data_ptr() != 0))
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        y = append_products(*inputs)
    assert sum(stored) < 1.05 * y.numel()


def test_changing_the_result_in_place_is_refused():
    y = append_products(*arguments())
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        y.mul_(2).sum().backward()


def test_counts_no_multiplications():
    # Convolutions and matrix products are what the tables of light networks count.
    with FlopCounterMode(display=False) as counter:
        append_products(*arguments()).sum().backward()
    assert counter.get_total_flops() == 0
