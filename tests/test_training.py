"""Training, validation, resume, test and inference through MMDetection's own scripts."""

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
import torch

from mmdet_hadaptive.runtime.mmdet_tools import mmdet_tool

ROOT = Path(__file__).parents[1]
SHAPES = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
SSDLITE = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py'
RETINANET = ROOT / 'configs/retinanet/retinanet_hadaptive-s_fpn_1x_coco.py'
BCCD = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_bccd.py'


def find_distribution(name):
    return next(metadata.Distribution.discover(name=name), None)


def short(epochs):
    return (
        '--cfg-options',
        f'train_cfg.max_epochs={epochs}',
        'train_cfg.val_interval=1',
        'train_dataloader.batch_size=4',
        'train_dataloader.num_workers=0',
        'train_dataloader.persistent_workers=False',
        'val_dataloader.num_workers=0',
        'val_dataloader.persistent_workers=False',
        'test_dataloader.num_workers=0',
        'test_dataloader.persistent_workers=False',
        'default_hooks.logger.interval=1',
    )


@pytest.fixture(scope='module')
def trained(shapes, run):
    """One epoch of training on the shapes, by MMDetection's script; returns its output too."""
    work = shapes.parents[1]
    output = run(mmdet_tool('train.py'), SHAPES, '--work-dir', 'run', *short(1), cwd=work)
    return work, output


def test_train_and_validate(trained):
    work, output = trained
    assert 'Epoch(train) [1][4/4]' in output
    assert re.search(r'Epoch\(val\) \[1\]\[1/1\] coco/bbox_mAP: [\d.]+', output)
    state = torch.load(work / 'run/epoch_1.pth', weights_only=True)['state_dict']
    # The temperature rule ran without being asked for.
    norms = [value for key, value in state.items() if key.endswith('last_grad_norm')]
    assert len(norms) == 6
    assert all(norm > 0 for norm in norms)


def test_resume_continues_where_it_stopped(trained, run):
    work, _ = trained
    output = run(
        ROOT / 'tools/train.py', SHAPES, '--work-dir', 'run', '--resume', *short(2), cwd=work
    )
    assert 'resumed epoch: 1, iter: 4' in output
    assert 'Epoch(train) [2][4/4]' in output
    assert 'Epoch(train) [1][' not in output
    assert re.search(r'Epoch\(val\) \[2\]', output)


def test_our_test_script(trained, run):
    work, _ = trained
    output = run(ROOT / 'tools/test.py', SHAPES, 'run/epoch_1.pth', *short(1), cwd=work)
    assert re.search(r'Epoch\(test\).*coco/bbox_mAP: [\d.]+', output)


@pytest.mark.parametrize('tool', ['test.py', 'train.py'])
def test_damaged_checkpoints_are_named_in_one_line(trained, run, tool):
    work, _ = trained
    whole = (work / 'run/epoch_1.pth').read_bytes()
    (work / 'half.pth').write_bytes(whole[: len(whole) // 2])
    checkpoint = ('half.pth',) if tool == 'test.py' else ('--resume', 'half.pth')
    output = run(
        ROOT / 'tools' / tool, SHAPES, *checkpoint, '--work-dir', 'damaged', *short(2),
        cwd=work, code=1,
    )  # fmt: skip
    assert output.splitlines()[-1].startswith('error: half.pth cannot be read as plain weights: ')
    assert 'Traceback' not in output


def test_mim(trained, run):
    if find_distribution('mmdet') is None:
        pytest.skip('OpenMIM knows MMDetection by its official name only: run without STACK=onedl')
    work, _ = trained
    mim = ('-m', 'mim')
    options = (*short(1), 'train_dataloader.dataset.dataset.indices=4')
    output = run(
        *mim, 'train', 'mmdet', SHAPES, '--gpus', 0, '--work-dir', 'mim', *options, cwd=work
    )
    assert 'Epoch(train) [1][1/1]' in output
    output = run(
        *mim,
        'test',
        'mmdet',
        SHAPES,
        '--checkpoint',
        'mim/epoch_1.pth',
        '--gpus',
        0,
        *short(1),
        cwd=work,
    )
    assert 'coco/bbox_mAP' in output


def test_det_inferencer(trained, shapes, monkeypatch):
    from mmdet.apis import DetInferencer

    work, _ = trained
    monkeypatch.chdir(work)
    inferencer = DetInferencer(str(SHAPES), 'run/epoch_1.pth', device='cpu', show_progress=False)
    image = str(shapes / 'val' / '000000.png')
    result = inferencer(image, out_dir='inferred', pred_score_thr=0.0)
    (prediction,) = result['predictions']
    assert len(prediction['labels']) == len(prediction['scores']) == len(prediction['bboxes']) > 0
    assert (work / 'inferred/vis/000000.png').is_file()


def test_checkpoint_of_another_arch(trained, run):
    work, _ = trained
    medium = ROOT / 'configs/ssdlite/ssdlite_hadaptive-m_8xb24-600e_coco.py'
    code = 'import sys, mmdet.apis; mmdet.apis.init_detector(*sys.argv[1:], device="cpu")'
    output = run('-c', code, medium, 'run/epoch_1.pth', cwd=work, code=1)
    assert "does not fit HadaptiveNet(arch='medium')" in output
    assert "build the backbone with arch='small'" in output


def test_demo(tmp_path, run):
    tools = ROOT / 'tools'
    code = f'import sys; sys.path.insert(0, {str(tools)!r}); import demo; demo.main(16, 4, 1)'
    output = run('-c', code, cwd=tmp_path)
    assert re.search(r'COCO mAP [01]\.\d{3} \(mAP50 .* on 4 validation images', output)
    for name in ('predictions.png', 'curves.png', 'epoch_1.pth'):
        assert (tmp_path / 'work_dirs/demo' / name).stat().st_size > 0
        assert f'work_dirs/demo/{name}' in output


def test_missing_data_set(tmp_path, run):
    output = run(ROOT / 'tools/train.py', SSDLITE, '--work-dir', 'run', cwd=tmp_path, code=1)
    last = output.strip().splitlines()[-3:]
    assert 'instances_train2017.json does not exist' in ''.join(last)
    assert 'data_root' in ''.join(last)


def test_check_dataset_looks_at_all_heads(shapes, tmp_path, run):
    config = tmp_path / 'mask.py'
    config.write_text(f"""
_base_ = {str(SHAPES)!r}
model = dict(
    _delete_=True,
    type='MaskRCNN',
    roi_head=dict(
        bbox_head=[dict(num_classes=4), dict(num_classes=3)], mask_head=dict(num_classes=80)
    ),
)
""")
    output = run(ROOT / 'tools/check_dataset.py', config, cwd=shapes.parents[1], code=1)
    for message in ('bbox_head.1.num_classes is 3', 'mask_head.num_classes is 80'):
        assert output.count(f'ERROR: model.roi_head.{message}, the data set has 4 classes') == 2
    assert 'bbox_head.0' not in output


def test_check_dataset(shapes, tmp_path, run):
    work = shapes.parents[1]
    output = run(ROOT / 'tools/check_dataset.py', SHAPES, cwd=work)
    assert output.count('nothing wrong') == 2
    output = run(
        ROOT / 'tools/check_dataset.py',
        SHAPES,
        '--cfg-options',
        'val_dataloader.dataset.data_prefix.img=elsewhere/',
        cwd=work,
        code=1,
    )
    assert 'ERROR: the image folder data/shapes/elsewhere' in output


def test_dist_train_says_how_to_use_it():
    usage = subprocess.run([ROOT / 'tools/dist_train.sh'], capture_output=True, text=True)
    assert usage.returncode == 2
    assert 'usage' in usage.stderr


@pytest.fixture
def coco(real_data, tmp_path):
    """A working directory in which the COCO configs find data/coco."""
    (tmp_path / 'data').mkdir()
    (tmp_path / 'data/coco').symlink_to(real_data / 'tiny_coco')
    return tmp_path


@pytest.mark.parametrize('config', [SSDLITE, RETINANET], ids=['ssdlite', 'retinanet'])
def test_coco_configs_train_and_validate(coco, run, config):
    inner = 'dataset.dataset' if config is SSDLITE else 'dataset'
    options = (
        *short(1),
        f'train_dataloader.{inner}.indices=2',
        'train_dataloader.batch_size=2',
        'val_dataloader.dataset.indices=2',
    )
    output = run(ROOT / 'tools/train.py', config, '--work-dir', 'run', *options, cwd=coco)
    assert re.search(r'Epoch\(train\) \[1\]\[\d+/\d+\].* loss_cls: \d', output)
    # After so few steps nothing may be found yet, and then MMDetection prints no mAP.
    assert re.search(r'Epoch\(val\) \[1\]\[\d+/\d+\]', output)


def test_bccd_config_trains_and_validates(real_data, tmp_path, run):
    options = (
        *short(1),
        'train_dataloader.dataset.times=1',
        'train_dataloader.dataset.dataset.indices=8',
        'val_dataloader.dataset.indices=8',
    )
    output = run(
        ROOT / 'tools/train.py', BCCD, '--work-dir', 'run', *options, cwd=tmp_path,
        env=dict(HADAPTIVE_DATA=str(real_data)),
    )  # fmt: skip
    assert 'Epoch(train) [1][2/2]' in output
    assert 'coco/bbox_mAP' in output


def test_real_data_is_clean(real_data):
    from mmdet_hadaptive.datasets import check_coco

    for split in ('train', 'val'):
        findings = check_coco(
            real_data / f'bccd/annotations/instances_{split}.json',
            real_data / 'bccd' / split,
            ('RBC', 'WBC', 'Platelets'),
            read_images=True,
        )
        assert findings == []
