from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import forward_ad
from torch.utils.flop_counter import FlopCounterMode

from mmdet_hadaptive.ops import append_products, expansion, expansion_torch
from mmdet_hadaptive.ops.expansion import append_products_composed

COMPILE_KERNELS = Path(__file__).parent / 'compile_kernels.py'


@pytest.fixture(params=['torch', 'interpreter', pytest.param('gpu', marks=pytest.mark.gpu)])
def device(request, monkeypatch):
    """Where the products are computed: by torch, or by Triton's kernels."""
    if request.param == 'gpu':
        if not expansion.has_triton(torch.device('cuda')):
            pytest.skip('needs Triton 3.3 or later, compute capability 7.0, no HADAPTIVE_TRITON=0')
        return 'cuda'
    if request.param == 'interpreter':
        kernels = request.getfixturevalue('interpreted_kernels')
        monkeypatch.setattr(expansion, 'find_kernels', lambda u: kernels)
    return 'cpu'


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


def arguments(
    shape=(2, 5, 3, 4), selected=3, dtype=torch.float64, channels_last=False, device='cpu'
):
    pairs = selected * (selected - 1) // 2
    u = torch.randn(shape, dtype=dtype, device=device)
    if channels_last:
        u = u.contiguous(memory_format=torch.channels_last)
    indices = torch.rand(shape[:2], device=device).argsort()[:, :selected]
    sizes = ((shape[0], selected), 1, pairs, pairs)
    others = [torch.randn(size, dtype=dtype, device=device) for size in sizes]
    return [u.requires_grad_(), indices, *(value.requires_grad_() for value in others)]


def gradients(function, inputs, weight):
    wanted = [value for value in inputs if value.requires_grad]
    return torch.autograd.grad((function(*inputs) * weight).sum(), wanted)


@pytest.mark.parametrize('channels_last', [False, True])
@pytest.mark.parametrize('function', [append_products, append_products_composed])
@pytest.mark.parametrize('selected', [2, 5, 6])
def test_equals_the_definition(function, selected, channels_last, device):
    inputs = arguments((2, 6, 3, 4), selected, channels_last=channels_last, device=device)
    expected = slow(*inputs)
    y = function(*inputs)
    assert torch.allclose(y, expected, rtol=1e-10, atol=1e-12)
    weight = torch.randn_like(expected)
    pairs = zip(gradients(function, inputs, weight), gradients(slow, inputs, weight), strict=True)
    for actual, wanted in pairs:
        assert torch.allclose(actual, wanted, rtol=1e-10, atol=1e-11)
    if function is append_products:
        assert y.is_contiguous(memory_format=torch.channels_last) == channels_last


@pytest.mark.parametrize('zero', ['alpha', 'weight'])
def test_zero_parameters(zero, device):
    inputs = arguments(device=device)
    with torch.no_grad():
        inputs[3 if zero == 'alpha' else 4].zero_()
    weight = torch.randn_like(slow(*inputs))
    for function in (append_products, append_products_composed):
        actual, expected = (gradients(f, inputs, weight) for f in (function, slow))
        for a, e in zip(actual, expected, strict=True):
            assert torch.allclose(a, e, rtol=1e-10, atol=1e-11)


def test_gradcheck(device):
    u, indices, *others = arguments((1, 4, 2, 2), device=device)
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


def test_transforms_of_functions():
    u, indices, *others = (value.detach() for value in arguments())
    tangent = torch.randn_like(u)

    def transformed(function):
        def of_u(u):
            return function(u, indices, *others)

        _, forward = torch.func.jvp(of_u, (u,), (tangent,))
        with forward_ad.dual_level():
            dual = of_u(forward_ad.make_dual(u, tangent))
            eager = forward_ad.unpack_dual(dual).tangent
        backward = torch.func.grad(lambda u: of_u(u).square().sum())(u)
        return forward, eager, backward, torch.func.vmap(of_u)(torch.stack([u, tangent]))

    for actual, expected in zip(transformed(append_products), transformed(slow), strict=True):
        assert torch.allclose(actual, expected)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_composition_computes_in_single_precision(dtype):
    u, indices, scale, *others = (value.detach() for value in arguments((2, 8, 4, 4), 6))
    # Selected channels alone are rounded: their products are not.
    u, scale, others = u.to(dtype), torch.ones_like(scale), [value.float() for value in others]
    expected = slow(u.double(), indices, scale, *(value.double() for value in others))
    actual = append_products_composed(u, indices, scale.to(dtype), *others)
    assert actual.dtype == dtype
    assert torch.allclose(actual.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize('parameters', ['same', torch.float32])
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_low_precision_rounds_once(dtype, parameters, device):
    u, indices, scale, *others = arguments((2, 8, 4, 4), 6, device=device)
    if parameters == 'same':
        parameters = dtype
    # Of other precision, as under autocast.
    others = [value.to(parameters) for value in others]
    inputs = [u.to(dtype), indices, scale.to(dtype), *others]
    inputs = [v.detach().requires_grad_(v.is_floating_point()) for v in inputs]
    double = [v.double() if v.is_floating_point() else v for v in inputs]
    y, expected = append_products(*inputs), slow(*double)
    assert y.dtype == dtype
    assert torch.allclose(y.double(), expected, rtol=torch.finfo(dtype).eps, atol=1e-6)
    weight = torch.randn_like(expected).to(dtype)
    double = [v.detach().requires_grad_(v.is_floating_point()) for v in double]
    actual, wanted = gradients(append_products, inputs, weight), gradients(slow, double, weight)
    wanted_dtypes = [v.dtype for v in inputs if v.requires_grad]
    assert [a.dtype for a in actual] == wanted_dtypes
    for a, w in zip(actual, wanted, strict=True):
        assert (a.double() - w).abs().max() < 4 * torch.finfo(dtype).eps * w.abs().max()


def test_stores_its_result_only(device):
    inputs = arguments((4, 32, 8, 8), 16, torch.float32, device=device)
    stored = []

    def note(value):
        stored.append(value.numel() * (value.data_ptr() != 0))
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        y = append_products(*inputs)
    assert sum(stored) < 1.05 * y.numel()


@pytest.mark.parametrize('channels_last', [False, True])
def test_many_blocks(monkeypatch, channels_last, device):
    # Maps and numbers that fill no block of any implementation; two images, then one.
    monkeypatch.setattr(expansion_torch, 'BLOCK_SIZE', 50_000)
    inputs = arguments((3, 40, 13, 11), 21, torch.float64, channels_last, device)
    expected = append_products_composed(*inputs)
    assert torch.allclose(append_products(*inputs), expected, rtol=1e-10, atol=1e-12)
    weight = torch.randn_like(expected)
    actual, wanted = (
        gradients(f, inputs, weight) for f in (append_products, append_products_composed)
    )
    for a, w in zip(actual, wanted, strict=True):
        assert (a - w).abs().max() < 1e-12 * w.abs().max()


def test_a_gradient_that_is_the_same_everywhere(device):
    # sum() hands over a single number that stands for all.
    inputs = arguments(device=device)
    wanted = [value for value in inputs if value.requires_grad]
    actual = torch.autograd.grad(append_products(*inputs).sum(), wanted)
    expected = torch.autograd.grad(slow(*inputs).sum(), wanted)
    for a, e in zip(actual, expected, strict=True):
        assert torch.allclose(a, e, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize('shape', [(0, 5, 3, 4), (2, 5, 0, 4)])
def test_empty_maps(shape, device):
    inputs = arguments(shape, device=device)
    y = append_products(*inputs)
    assert y.shape == (shape[0], 8, *shape[2:])
    wanted = [value for value in inputs if value.requires_grad]
    for value, grad in zip(wanted, torch.autograd.grad(y.sum(), wanted), strict=True):
        assert torch.equal(grad, torch.zeros_like(value))


def test_strided_parameters(device):
    u, indices, scale, alpha, *others = arguments(device=device)
    inputs = [u, indices, scale.t().contiguous().t(), alpha, *(v.repeat(2)[::2] for v in others)]
    assert torch.allclose(append_products(*inputs), slow(*inputs), rtol=1e-10, atol=1e-12)


def test_triton_where_it_can_run(monkeypatch, interpreted_kernels):
    monkeypatch.delenv('HADAPTIVE_TRITON', raising=False)
    device = torch.device('cuda')
    find = expansion.has_triton.__wrapped__
    monkeypatch.setattr(expansion, 'triton_version', lambda: (3, 3))
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (8, 0))
    assert find(device)
    monkeypatch.setattr(expansion, 'has_triton', find)
    on_gpu = SimpleNamespace(is_cuda=True, numel=lambda: 1, device=device)
    assert expansion.find_kernels(on_gpu) is interpreted_kernels
    assert expansion.find_kernels(torch.zeros(1)) is expansion_torch

    monkeypatch.setenv('HADAPTIVE_TRITON', '0')
    assert not find(device)
    monkeypatch.setenv('HADAPTIVE_TRITON', 'no')
    with pytest.raises(ValueError, match="HADAPTIVE_TRITON must be 0 or 1, got 'no'"):
        find(device)
    monkeypatch.delenv('HADAPTIVE_TRITON')

    monkeypatch.setattr(expansion, 'triton_version', lambda: (3, 2))
    assert not find(device)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (6, 1))
    assert not find(device)


def test_triton_that_cannot_launch_kernels(monkeypatch, interpreted_kernels):
    monkeypatch.delenv('HADAPTIVE_TRITON', raising=False)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (8, 0))
    # Without a GPU there is no driver.
    with pytest.warns(UserWarning, match='needs a C compiler.*HADAPTIVE_TRITON=0'):
        assert not expansion.has_triton.__wrapped__(torch.device('cuda'))


def test_fake_tensors_reach_no_kernel(monkeypatch):
    monkeypatch.setattr(expansion, 'find_kernels', None)
    with FakeTensorMode():
        assert append_products(*arguments()).shape == (2, 8, 3, 4)


def test_kernels_compile_for_gpus(run, tmp_path):
    pytest.importorskip(
        'triton',
        '3.3',
        reason='needs Triton 3.3 or later: it is made for Linux, for torch from 2.7 on',
    )
    output = run(COMPILE_KERNELS, cwd=tmp_path, env=dict(TRITON_INTERPRET='0'))
    assert output.count('compiled') == 32


def test_changing_the_result_in_place_is_refused():
    y = append_products(*arguments())
    with pytest.raises(RuntimeError, match='modified by an inplace operation'):
        y.mul_(2).sum().backward()


def test_counts_no_multiplications():
    # Convolutions and matrix products are what the tables of light networks count.
    with FlopCounterMode(display=False) as counter:
        append_products(*arguments()).sum().backward()
    assert counter.get_total_flops() == 0
