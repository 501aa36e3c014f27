import pytest
from mmengine.config import Config
from torch import nn

from research.input_size import input_size


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
