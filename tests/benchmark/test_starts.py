from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_hadaptive.benchmark.starts import write_starts

CONFIGS = Path(__file__).parents[2] / 'configs/ssdlite'
PRETRAINED = CONFIGS / 'ssdlite_hadaptive-s-pointwise-pretrained_bccd.py'


def test_they_differ_in_their_start_alone(tmp_path):
    files = write_starts(PRETRAINED, 7, tmp_path)
    scratch, pretrained = map(Config.fromfile, files)
    whole = Config.fromfile(PRETRAINED)
    assert pretrained.model.backbone.init_cfg == whole.model.backbone.init_cfg
    assert scratch.model.backbone.init_cfg is None
    scratch.model.backbone.init_cfg = pretrained.model.backbone.init_cfg
    assert scratch.to_dict() == pretrained.to_dict()

    schedule = scratch.param_scheduler[1]
    assert scratch.train_cfg.max_epochs == schedule.end == schedule.T_max == 7
    # Half of the training: each update of the averaged weights counts twice.
    (ratio,) = (
        short.momentum / long.momentum
        for short, long in zip(scratch.custom_hooks, whole.custom_hooks, strict=True)
        if short.type == 'EMAHook'
    )
    assert ratio == pytest.approx(2)


def test_a_config_from_scratch_is_refused(tmp_path):
    with pytest.raises(ValueError, match='starts from scratch: give its backbone an init_cfg'):
        write_starts(CONFIGS / 'ssdlite_hadaptive-s-pointwise_bccd.py', 7, tmp_path)
