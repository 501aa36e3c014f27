import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from mmengine.config import Config

from mmdet_hadaptive.swap import SmokeTestError, SwapError, load_source, plan_swap, swap_backbone


@pytest.mark.parametrize(
    ('source', 'size'),
    [
        ('faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py', 128),
        ('mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py', 128),
        ('cascade_rcnn/cascade-rcnn_r50_fpn_1x_coco.py', 128),
        ('fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py', 128),
        ('atss/atss_r50_fpn_1x_coco.py', 128),
        ('gfl/gfl_r50_fpn_1x_coco.py', 128),
        ('rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 128),
        ('yolox/yolox_tiny_8xb8-300e_coco.py', 128),
        ('deformable_detr/deformable-detr_r50_16xb2-50e_coco.py', 128),
        # It picks 900 of its positions.
        ('dino/dino-4scale_r50_8xb2-12e_coco.py', 256),
    ],
)
def test_detectors_of_all_kinds_work(source, size, tmp_path):
    out = tmp_path / 'swapped.py'
    before, result = swap_backbone(f'mmdet::{source}', out, 'small', size)
    config = Config.fromfile(out)
    assert config.model.backbone.type == 'HadaptiveNet'
    after = result.costs
    assert after['backbone'].parameters < 0.7e6
    assert after['detector'].parameters < before['detector'].parameters
    assert after['backbone'].macs < before['backbone'].macs
    # In two-stage detectors the head's depend on how many proposals the weights make.
    if 'rpn_head' not in config.model:
        assert after['detector'].macs < before['detector'].macs
    # What does not depend on the backbone stays the source's.
    theirs = load_source(f'mmdet::{source}')
    assert config.train_dataloader == theirs.train_dataloader
    assert len(out.read_text().splitlines()) < 50


def test_the_default_size_is_enough_for_the_smallest_maps(tmp_path):
    # On images of 256 x 256 the last map is smaller than its kernel.
    _, result = swap_backbone('mmdet::ssd/ssd300_coco.py', tmp_path / 'swapped.py')
    assert result.gradient > 0


@pytest.mark.parametrize(
    ('source', 'reason'),
    [
        ('qdtrack/qdtrack_faster-rcnn_r50_fpn_4e_base.py', 'model.type=QDTrack: a tracker'),
        ('tridentnet/tridentnet_r50-caffe_1x_coco.py', r'model\.backbone\.num_branch'),
        ('grounding_dino/grounding_dino_r50_scratch_8xb2_1x_coco.py', r'model\.language_model'),
        ('detectors/cascade-rcnn_r50-rfp_1x_coco.py', r'model\.neck\.rfp_backbone'),
        ('misc/d2_faster-rcnn_r50-caffe_fpn_ms-90k_coco.py', r'model\.detector\.backbone\.type'),
        ('rtmdet/rtmdet_tta.py', 'model: the config describes none'),
        ('faster_rcnn/nothing.py', 'nothing.py'),
    ],
)
def test_what_cannot_be_replaced_is_named_and_nothing_written(source, reason, tmp_path):
    with pytest.raises(SwapError, match=reason) as caught:
        swap_backbone(f'mmdet::{source}', tmp_path / 'swapped.py')
    assert not isinstance(caught.value, SmokeTestError)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ('text', 'reason'),
    [
        ('model = dict(', "'mine.py' cannot be loaded: SyntaxError"),
        ('model = 1 / 0', "'mine.py' cannot be loaded: ZeroDivisionError"),
        (
            'from mmdet.models import ATSS\nmodel = dict(type=ATSS)',
            "'mine.py' is a config in MMEng",
        ),
        (
            'from mmengine.config import read_base\nwith read_base():\n    from .other import *',
            r"new style .*Config\.fromfile\('FILE'\)\.dump\('old_style\.py'\)",
        ),
        ("_base_ = 'theirs.py'", 'theirs.py'),
    ],
)
def test_a_source_that_cannot_be_loaded_is_named(text, reason, tmp_path):
    source = tmp_path / 'mine.py'
    source.write_text(text)
    with pytest.raises(SwapError, match=reason) as caught:
        swap_backbone(str(source), tmp_path / 'swapped.py')
    assert '\n' not in str(caught.value)
    assert list(tmp_path.iterdir()) == [source]


def test_a_config_in_the_new_style_is_swapped_after_the_command_of_the_error(tmp_path, run):
    (tmp_path / 'base.py').write_text(
        'from mmdet.models import ResNet\nfrom torch.nn import BatchNorm2d\n'
        "model = dict(type='RetinaNet', backbone=dict(type=ResNet, depth=18, "
        'norm_cfg=dict(type=BatchNorm2d, eps=0.01)))\n'
    )
    source = tmp_path / 'mine.py'
    source.write_text(
        'from mmengine.config import read_base\nwith read_base():\n    from .base import *\n'
        'model.update(neck=dict(type="FPN", in_channels=[64, 128, 256, 512], out_channels=8, '
        'num_outs=4))\n'
    )
    with pytest.raises(SwapError, match='new style') as caught:
        swap_backbone(str(source), tmp_path / 'swapped.py')
    program = re.search('python -c "(.*)"', str(caught.value))[1]
    run('-c', program.replace('FILE', 'mine.py'), cwd=tmp_path)
    config = load_source('old_style.py', tmp_path)
    assert config.model.backbone.type == 'mmdet.models.ResNet'
    edits = {edit.path[-1]: edit.value for edit in plan_swap(config)}
    assert edits['backbone']['norm_cfg'] == dict(type='BN', eps=0.01)
    assert edits['in_channels'] == [32, 64, 96, 128]


def test_a_detector_that_fails_is_not_written(tmp_path):
    source = tmp_path / 'wrong.py'
    # The neck fits the backbone, and the head does not fit the neck.
    source.write_text(
        "_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n"
        'model = dict(neck=dict(out_channels=64))\n'
    )
    with pytest.raises(SmokeTestError, match=r'RuntimeError: .* to have 256 channels'):
        swap_backbone(str(source), tmp_path / 'swapped.py', size=64)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (dict(arch='huge'), "arch must be one of .*, got 'huge'"),
        (dict(size=100), 'size must be a multiple of 32 and at least 64, got 100'),
        (dict(size=32), 'got 32'),
    ],
)
def test_wrong_arguments_are_named(arguments, reason, tmp_path):
    with pytest.raises(ValueError, match=reason):
        swap_backbone('mmdet::atss/atss_r50_fpn_1x_coco.py', tmp_path / 'out.py', **arguments)


def test_a_file_is_inherited_by_its_relative_path(tmp_path):
    source = tmp_path / 'configs' / 'mine.py'
    source.parent.mkdir()
    source.write_text("_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n")
    out = tmp_path / 'swapped' / 'mine.py'
    with pytest.raises(ValueError, match='make it first'):
        swap_backbone(str(source), out, size=64)
    out.parent.mkdir()
    swap_backbone(str(source), out, size=64)
    assert Config.fromfile(out).model.backbone.type == 'HadaptiveNet'
    assert "_base_ = '../configs/mine.py'" in out.read_text()


def test_the_file_is_the_same_from_run_to_run(tmp_path):
    for name, layer in (('some_go.py', 'layer'), ('all_stay.py', 'stage')):
        keys = ['backbone', 'backbone.stem', 'neck', *(f'backbone.{layer}{i}' for i in range(1, 5))]
        (tmp_path / name).write_text(
            "_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n"
            "model = dict(init_cfg=dict(type='Pretrained', checkpoint='old.pth'))\n"
            f'keys = {{key: dict(lr_mult=0.1) for key in {keys}}}\n'
            'optim_wrapper = dict(paramwise_cfg=dict(custom_keys=keys))\n'
        )
    program = (
        'from mmdet_hadaptive.swap import load_source, plan_swap, render_config\n'
        'for base in ("some_go.py", "all_stay.py"):\n'
        '    print(render_config(base, plan_swap(load_source(base, Path()))))\n'
    )
    texts = {
        subprocess.run(
            [sys.executable, '-W', 'ignore', '-c', f'from pathlib import Path\n{program}'],
            env={**os.environ, 'PYTHONHASHSEED': str(seed)},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            check=True,
        ).stdout
        for seed in range(2)
    }
    assert len(texts) == 1
    assert texts.pop().decode().count('lr_mult=1.0') == 2 + 6


def test_no_file_is_overwritten(tmp_path):
    source = tmp_path / 'mine.py'
    text = "_base_ = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'\n"
    source.write_text(text)
    for out in (source, tmp_path / '..' / tmp_path.name / 'mine.py'):
        with pytest.raises(ValueError, match=r'mine\.py exists: remove it, or name another file'):
            swap_backbone(str(source), out)
    assert source.read_text() == text


def test_the_tool_overwrites_nothing(tmp_path, monkeypatch):
    tool = Path(__file__).parents[2] / 'tools/swap_backbone.py'
    monkeypatch.chdir(tmp_path)
    mine = tmp_path / 'retinanet_r18_fpn_1x_coco_hadaptive-small.py'
    mine.write_text('# mine\n')
    source = 'mmdet::retinanet/retinanet_r18_fpn_1x_coco.py'
    monkeypatch.setattr(sys, 'argv', ['swap_backbone.py', source, '--size', '64'])
    with pytest.raises(SystemExit, match=f'^nothing is written: {mine.name} exists: remove it'):
        runpy.run_path(str(tool), run_name='__main__')
    assert mine.read_text() == '# mine\n'
    monkeypatch.setattr(sys, 'argv', ['swap_backbone.py', source, '--out', 'other.json'])
    with pytest.raises(SystemExit, match=r'^nothing is written: other\.json must end in \.py'):
        runpy.run_path(str(tool), run_name='__main__')
    monkeypatch.setattr(sys, 'argv', ['swap_backbone.py', 'nowhere.py'])
    with pytest.raises(SystemExit, match=r'^nothing is written: nowhere\.py: no such file'):
        runpy.run_path(str(tool), run_name='__main__')
    assert list(tmp_path.iterdir()) == [mine]
