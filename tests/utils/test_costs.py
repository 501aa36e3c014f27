import pytest
import torch
from mmengine.config import Config
from torch import nn

from mmdet_hadaptive.utils.costs import Costs, count_costs, count_parameters, input_size


@pytest.mark.parametrize('device', ['cpu', 'meta'])
@pytest.mark.parametrize('training', [True, False])
def test_costs_are_those_of_the_arithmetic(device, training):
    model = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU())
    model.to(device).train(training)
    # 16 x 24 becomes 8 x 12; the mean and the variance of the normalisation are buffers.
    expected = Costs(8 * 3 * 9 + 8 + 2 * 8, 8 * 3 * 9 * 8 * 12)
    assert count_costs(model, 16, 24) == expected
    assert model.training == training
    # What is not trained costs as much.
    model[0].requires_grad_(False)
    assert count_costs(model, 16, 24) == expected


def test_a_shared_parameter_counts_once():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    model = nn.Sequential(first, second)
    model.register_buffer('counter', torch.zeros(7))
    assert count_parameters(model) == 4 * 4 + 4 + 4


@pytest.mark.parametrize(
    ('steps', 'divisor', 'expected'),
    [
        ([dict(type='Resize', scale=(160, 96))], 1, (96, 160)),
        ([dict(type='Resize', scale=(1333, 800)), dict(type='Pad')], 32, (800, 1344)),
        # What is cut out last is what the model sees.
        ([dict(type='Resize', scale=256), dict(type='CenterCrop', crop_size=224)], 1, (224, 224)),
    ],
)
def test_input_size_is_height_and_width_as_the_model_pads_them(steps, divisor, expected):
    config = Config(dict(test_dataloader=dict(dataset=dict(pipeline=steps))))
    model = nn.Module()
    model.data_preprocessor = nn.Module()
    model.data_preprocessor.pad_size_divisor = divisor
    assert input_size(config, model) == expected


def test_a_pipeline_that_says_no_size():
    config = Config(dict(test_dataloader=dict(dataset=dict(pipeline=[dict(type='PackInputs')]))))
    with pytest.raises(ValueError, match='says no size, it has neither Resize nor CenterCrop'):
        input_size(config, nn.Module())
