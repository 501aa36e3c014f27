import pytest
import torch
from torch import nn

from mmdet_hadaptive.utils.costs import Costs, count_costs, count_parameters


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
