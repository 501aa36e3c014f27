import copy
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune

from mmdet_hadaptive.layers import AdaptiveCrossHadamard
from mmdet_hadaptive.ops import pairwise_products

DATA = Path(__file__).parents[1] / 'data'
# Names in the reference file and here.
NAMES = {
    'pointwise_conv': 'pointwise',
    'pointwise_norm': 'norm',
    'eca_conv': 'scorer.conv',
    'product_norm': 'product_norm',
}
PRODUCT_NORMS = {'ach_dysoft': {}, 'ach_bn': dict(product_norm=nn.BatchNorm2d)}


def parameters_of(values, prefix):
    """The arrays under a prefix, by their names here."""
    result = {}
    for key, value in values.items():
        if key.startswith(prefix):
            module, name = key.removeprefix(prefix).split('.', 1)
            value = value.squeeze() if module == 'product_norm' and value.ndim == 4 else value
            result[f'{NAMES[module]}.{name}'] = torch.tensor(value)
    return result


def reference_module(file, **kwargs):
    values = dict(np.load(DATA / f'{file}.npz'))
    module = AdaptiveCrossHadamard(24, 6, **PRODUCT_NORMS[file], **kwargs)
    keys = module.load_state_dict(parameters_of(values, 'param.'), strict=False)
    assert not keys.unexpected_keys
    assert set(keys.missing_keys) == {'temperature', 'last_grad_norm'}
    module.temperature.fill_(float(values['tau']))
    return module, values


@pytest.mark.parametrize('file', PRODUCT_NORMS)
def test_reference_in_eval_mode(file):
    module, values = reference_module(file)
    module.eval()
    x = torch.tensor(values['x'])
    with torch.no_grad():
        scores = module.scorer(module.norm(module.pointwise(x)))
        y = module(x)
    assert np.abs(scores.numpy() - values['scores_eval']).max() < 1e-5
    assert np.abs(y.numpy() - values['y_eval']).max() < 1e-5


@pytest.mark.parametrize('file', PRODUCT_NORMS)
@pytest.mark.parametrize('straight_through', ['standard', 'reversed'])
def test_reference_in_training_mode(file, straight_through):
    module, values = reference_module(file, straight_through=straight_through)
    x = torch.tensor(values['x'], requires_grad=True)
    y = module(x, torch.tensor(values['noise']))
    assert np.abs(y.detach().numpy() - values['y_train']).max() < 1e-5
    (y * torch.tensor(values['w'])).sum().backward()
    expected = parameters_of(values, f'grad_{straight_through}_ste.')
    expected['x'] = torch.tensor(values[f'grad_x_{straight_through}_ste'])
    actual = {name: parameter.grad for name, parameter in module.named_parameters()}
    actual['x'] = x.grad
    assert actual.keys() == expected.keys()
    for name, grad in actual.items():
        # The bias before a batch normalisation has no gradient but rounding noise.
        like = 'pointwise.weight' if name == 'pointwise.bias' else name
        assert (grad - expected[name]).abs().max() < 1e-5 * expected[like].abs().max(), name


def test_gradcheck():
    module = AdaptiveCrossHadamard(5, 3).double()
    noise = torch.randn(2, 5, dtype=torch.float64)

    # Straight-through gradients are not those of the function; with the scores fixed by
    # overwhelming noise, what remains is smooth.
    def function(x):
        return module(x, 1e6 * noise)

    x = torch.randn(2, 5, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(function, x)


def test_selection_is_random_in_training_and_fixed_in_eval_mode():
    module = AdaptiveCrossHadamard(16, 4)
    x = torch.randn(2, 16, 6, 6)
    torch.manual_seed(1)
    first = module(x)
    assert not torch.equal(first, module(x))
    torch.manual_seed(1)
    assert torch.equal(first, module(x))
    module.eval()
    assert torch.equal(module(x), module(x))


def test_images_do_not_influence_each_other_in_eval_mode():
    module = AdaptiveCrossHadamard(16, 4).eval()
    x = torch.randn(3, 16, 6, 6)
    together = module(x)
    for i in range(3):
        assert torch.allclose(module(x[i : i + 1])[0], together[i], atol=1e-6)


def expected_temperatures(norms, start=4.0):
    temperature, last, result = start, None, []
    for norm in norms:
        if last is not None:
            temperature *= 1.005 if norm >= last else 0.995
            temperature = min(max(temperature, 0.01), 4.0)
        last = norm
        result.append(temperature)
    return result


def clear_before_forward(optimizer, loss):
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


def clear_after_step(optimizer, loss):
    loss().backward()
    optimizer.step()
    optimizer.zero_grad()


@pytest.mark.parametrize('step', [clear_before_forward, clear_after_step])
def test_temperature_follows_the_rule_in_a_plain_loop(step):
    module = AdaptiveCrossHadamard(16, 4)
    module.temperature.fill_(2.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    norms, temperatures = [], []

    def loss():
        return (module(torch.randn(2, 16, 5, 5)) ** 2 * 100).mean()

    module.scorer.conv.weight.register_hook(lambda grad: norms.append(grad.norm().item()))
    for _ in range(12):
        step(optimizer, loss)
        temperatures.append(module.temperature.item())
    assert temperatures == pytest.approx(expected_temperatures(norms, 2.0), rel=1e-6)
    assert len(set(temperatures)) > 5
    assert module.last_grad_norm.item() == pytest.approx(norms[-1])


def backward(module, scale=1.0):
    (module(torch.randn(2, 16, 5, 5)).pow(2).mean() * scale).backward()


def test_first_step_and_limits_of_the_temperature():
    module = AdaptiveCrossHadamard(16, 4)
    assert module.temperature.item() == 4.0
    assert module.temperature.dtype == module.last_grad_norm.dtype == torch.float32
    module.temperature.fill_(1.0)
    backward(module)
    assert module.temperature.item() == 1.0
    backward(module, 1e6)
    assert module.temperature.item() == pytest.approx(1.005)
    backward(module, 1e-6)
    assert module.temperature.item() == pytest.approx(1.005 * 0.995)
    module.temperature.fill_(0.01)
    backward(module, 1e-12)
    assert module.temperature.item() == pytest.approx(0.01)
    module.temperature.fill_(4.0)
    backward(module)
    assert module.temperature.item() == 4.0


def test_gradient_accumulation_counts_every_backward_pass_by_itself():
    module = AdaptiveCrossHadamard(16, 4)
    module.temperature.fill_(1.0)
    backward(module, 1e6)
    backward(module, 1.0)  # The accumulated gradient grows, that of this pass falls.
    assert module.temperature.item() == pytest.approx(0.995)


def test_two_forward_passes_count_as_one_backward_pass():
    module = AdaptiveCrossHadamard(16, 4)
    module.temperature.fill_(1.0)
    for expected in (1.0, 1.005):
        scale = 1.0 if expected == 1.0 else 1e6
        losses = [module(torch.randn(2, 16, 5, 5)).pow(2).mean() for _ in range(2)]
        (sum(losses) * scale).backward()
        assert module.temperature.item() == pytest.approx(expected)


def test_overflow_leaves_the_temperature_alone():
    module = AdaptiveCrossHadamard(16, 4)
    module.temperature.fill_(1.0)
    backward(module)
    norm = module.last_grad_norm.item()
    backward(module, float('inf'))
    assert module.temperature.item() == 1.0
    assert module.last_grad_norm.item() == norm


def scaled_backward(module, scaler, scale=1.0):
    scaler.scale(module(torch.randn(2, 16, 5, 5)).pow(2).mean() * scale).backward()


def test_a_constant_loss_scale_changes_no_temperature():
    plain = AdaptiveCrossHadamard(16, 4)
    module = copy.deepcopy(plain)
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**10)
    temperatures = []
    for seed in range(5):
        torch.manual_seed(seed)
        backward(plain)
        torch.manual_seed(seed)
        scaled_backward(module, scaler)
        temperatures.append(plain.temperature.item())
        assert module.temperature.item() == temperatures[-1]
    assert len(set(temperatures)) > 1


def test_overflow_of_a_scaled_loss_leaves_the_temperature_alone():
    module = AdaptiveCrossHadamard(16, 4)
    module.temperature.fill_(1.0)
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scaler = torch.amp.GradScaler('cpu', init_scale=2.0**100)
    scaled_backward(module, scaler)
    norm = module.last_grad_norm.item()
    weight = module.pointwise.weight.clone()
    optimizer.zero_grad()
    scaled_backward(module, scaler, 1e30)
    assert not module.scorer.conv.weight.grad.isfinite().all()
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 2.0**99
    assert torch.equal(module.pointwise.weight, weight)
    assert module.temperature.item() == 1.0
    assert module.last_grad_norm.item() == norm


def parametrized(conv):
    parametrize.register_parametrization(conv, 'weight', nn.Identity())


@pytest.mark.parametrize(
    'compute_kernel', [parametrized, lambda conv: prune.identity(conv, 'weight')]
)
def test_kernels_that_are_computed_follow_the_rule(compute_kernel):
    plain = AdaptiveCrossHadamard(16, 4)
    module = copy.deepcopy(plain)
    compute_kernel(module.scorer.conv)
    for seed in range(3):
        for layer in (plain, module):
            torch.manual_seed(seed)
            backward(layer, 10.0**seed)
        assert module.last_grad_norm == plain.last_grad_norm > 0
        assert module.temperature == plain.temperature


def test_constant_temperature():
    module = AdaptiveCrossHadamard(16, 4, adapt_temperature=False)
    module.temperature.fill_(1.0)
    for scale in (1.0, 1e6):
        backward(module, scale)
    assert module.temperature.item() == 1.0


def test_fixed_selection():
    module = AdaptiveCrossHadamard(16, 4, selection='fixed')
    x = torch.randn(2, 16, 5, 5)
    y = module(x)
    assert torch.allclose(y[:, 16:], module.product_norm(pairwise_products(y[:, :4])))
    assert torch.equal(y, module(x))
    y.sum().backward()
    assert all(p.grad is not None for p in module.parameters())


@pytest.mark.parametrize('freeze', [nn.Module.eval, lambda m: m.requires_grad_(False)])
def test_frozen_layers_keep_their_temperature(freeze):
    module = AdaptiveCrossHadamard(16, 4)
    freeze(module)
    x = torch.randn(2, 16, 5, 5, requires_grad=True)
    for scale in (1.0, 1e6):
        (module(x).pow(2).mean() * scale).backward()
    assert module.temperature.item() == 4.0
    assert module.last_grad_norm.item() == -1.0


def pickled(module):
    buffer = io.BytesIO()
    torch.save(module, buffer)
    buffer.seek(0)
    return torch.load(buffer, weights_only=False)


def with_new_parameters(module):
    module.load_state_dict(copy.deepcopy(module.state_dict()), assign=True)
    return module


def test_a_copy_does_not_call_what_watches_the_original():
    layer, calls = AdaptiveCrossHadamard(8, 3).eval(), []
    layer.on_selection = lambda scores, indices: calls.append(indices)
    copy.deepcopy(layer)(torch.randn(1, 8, 4, 4))
    assert not calls
    layer(torch.randn(1, 8, 4, 4))
    assert len(calls) == 1


@pytest.mark.parametrize('renew', [copy.deepcopy, pickled, with_new_parameters])
def test_copies_follow_the_rule_too(renew):
    module = AdaptiveCrossHadamard(16, 4)
    module.temperature.fill_(1.0)
    backward(module)
    renewed = renew(module)
    backward(renewed, 1e6)
    assert renewed.temperature.item() == pytest.approx(1.005)
    if renewed is not module:
        assert module.temperature.item() == 1.0


def test_thawed_layers_follow_the_rule():
    module = AdaptiveCrossHadamard(16, 4).requires_grad_(False)
    module(torch.randn(2, 16, 5, 5))
    module.requires_grad_(True).temperature.fill_(1.0)
    backward(module)
    backward(module, 1e6)
    assert module.temperature.item() == pytest.approx(1.005)


def test_autocast_keeps_large_maps_in_low_precision_and_agrees():
    module = AdaptiveCrossHadamard(16, 4)
    x, noise = torch.randn(2, 16, 6, 6), torch.randn(2, 16) * 10
    exact = module(x, noise)
    with torch.autocast('cpu', torch.bfloat16):
        y = module(x, noise)
    assert y.dtype == torch.bfloat16
    assert (y.float() - exact).abs().max() < 0.1
    y.float().square().mean().backward()
    assert all(p.grad.isfinite().all() and p.dtype == torch.float32 for p in module.parameters())
    assert module.temperature.dtype == torch.float32
    assert module.last_grad_norm > 0


def test_several_processes_follow_the_mean_of_their_gradients(monkeypatch):
    """Stands in for the other process, whose gradient is three times as large and opposite."""
    own = []

    def all_reduce(grad):
        own.append(grad.clone())
        grad -= 3 * own[-1]

    module = AdaptiveCrossHadamard(16, 4)
    monkeypatch.setattr(torch.distributed, 'is_initialized', lambda: True)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 2)
    monkeypatch.setattr(torch.distributed, 'all_reduce', all_reduce)
    backward(module)
    (grad,) = own
    # The gradient that the optimizer gets is this process's own, averaged by whoever wraps it.
    assert torch.equal(module.scorer.conv.weight.grad, grad)
    assert module.last_grad_norm.item() == pytest.approx(grad.norm().item(), rel=1e-6)
    monkeypatch.setattr(torch.distributed, 'get_world_size', lambda: 4)
    module.zero_grad()
    backward(module)
    assert module.last_grad_norm.item() == pytest.approx(own[1].norm().item() / 2, rel=1e-6)


def test_state_survives_saving():
    module = AdaptiveCrossHadamard(16, 4)
    backward(module)
    module.temperature.fill_(0.3)
    other = AdaptiveCrossHadamard(16, 4)
    other.load_state_dict(module.state_dict())
    assert other.temperature.item() == pytest.approx(0.3)
    assert other.last_grad_norm.item() == module.last_grad_norm.item() > 0


@pytest.mark.parametrize('num_selected', [1, 17])
def test_wrong_num_selected(num_selected):
    with pytest.raises(ValueError, match=rf'num_selected must be in 2\.\.16.*got {num_selected}'):
        AdaptiveCrossHadamard(16, num_selected)


def test_wrong_selection():
    with pytest.raises(ValueError, match="'adaptive' or 'fixed', got 'random'"):
        AdaptiveCrossHadamard(16, 4, selection='random')


def test_wrong_straight_through():
    with pytest.raises(ValueError, match="'standard' or 'reversed', got 'hard'"):
        AdaptiveCrossHadamard(16, 4, straight_through='hard')
