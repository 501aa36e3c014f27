from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config

from research.benchmark.input_pipeline import build_train_data, compare_draws, time_in_turn

CONFIGS = Path(__file__).parents[3] / 'configs/ssdlite'
DRAWS = 60


@pytest.fixture(scope='module')
def config():
    return Config.fromfile(CONFIGS / 'ssdlite_hadaptive-s_8xb24-600e_coco.py')


def with_pipeline(config, pipeline, root):
    config = config.copy()
    config.train_dataloader.dataset.dataset.pipeline = pipeline
    return build_train_data(config, root)


def test_the_pipeline_draws_what_that_of_mmdet_draws(config, real_data):
    pipeline = config.train_dataloader.dataset.dataset.pipeline
    other = [pipeline[0], {**pipeline[1], 'expand_prob': 0.0}, *pipeline[2:]]
    mmdet = Config.fromstring(
        "_base_ = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'", '.py'
    )
    theirs, ours, without_expansion = (
        with_pipeline(config, steps, real_data / 'tiny_coco')
        for steps in (mmdet.train_dataloader.dataset.dataset.pipeline, pipeline, other)
    )
    np.random.seed(0)
    same = compare_draws(theirs, ours, DRAWS, (320, 320))
    assert min(p for *_, p in same.values()) > 0.01
    different = compare_draws(without_expansion, ours, DRAWS, (320, 320))
    assert different['crop width'][3] < 1e-4
    assert different['pixel deviation'][3] < 1e-2


def test_times_of_the_transforms(shapes):
    data = build_train_data(Config.fromfile(CONFIGS / 'ssdlite_hadaptive-s_shapes.py'), shapes)
    times = time_in_turn({'one': data, 'other': data}, rounds=2, images_per_round=3)
    assert list(times) == ['one', 'other']
    steps = ['LoadImageFromFile', 'LoadAnnotations', 'Resize', 'RandomFlip', 'PackDetInputs']
    for stages in times.values():
        assert list(stages) == steps
        assert all(len(seconds) == 2 and (seconds > 0).all() for seconds in stages.values())
