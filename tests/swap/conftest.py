import pytest
from mmengine.config import Config

from mmdet_hadaptive.swap import load_source, plan_swap


@pytest.fixture
def planned():
    """Plans a swap and returns the values of the edits by their names."""

    def plan(source, arch='small'):
        config = source if isinstance(source, Config) else load_source(source)
        return {'.'.join(map(str, e.path)): e.value for e in plan_swap(config, arch)}

    return plan


@pytest.fixture
def retinanet():
    return load_source('mmdet::retinanet/retinanet_r18_fpn_1x_coco.py')
