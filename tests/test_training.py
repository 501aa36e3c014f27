"""Training, validation, resume, test and inference through MMDetection's own scripts."""

import re
import subprocess
from importlib import metadata
from pathlib import Path

import pytest
from short_training import SHORT_TRAINING

from mmdet_hadaptive.utils.mmdet_tools import mmdet_tool
from mmdet_hadaptive.utils.safe_loading import read_checkpoint

ROOT = Path(__file__).parents[1]
SHAPES = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
SSDLITE = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py'
RETINANET = ROOT / 'configs/retinanet/retinanet_hadaptive-s_fpn_1x_coco.py'
BCCD = ROOT / 'configs/ssdlite/ssdlite_hadaptive-s_bccd.py'


def find_distribution(name):
    return next(metadata.Distribution.discover(name=name), None)


SHORT = ('--cfg-options', *SHORT_TRAINING, 'train_cfg.val_interval=1')
TWO_EPOCHS = (*SHORT, 'train_cfg.max_epochs=2')


@pytest.fixture(scope='module')
def trained(shapes, run_warm):
    """One epoch of training on the shapes, by MMDetection's script; returns its output too."""
    work = shapes.parents[1]
    output = run_warm(mmdet_tool('train.py'), SHAPES, '--work-dir', 'run', *SHORT, cwd=work)
    return work, output


def test_train_and_validate(trained):
    work, output = trained
    assert 'Epoch(train) [1][4/4]' in output
    assert re.search(r'Epoch\(val\) \[1\]\[1/1\] coco/bbox_mAP: [\d.]+', output)
    state = read_checkpoint(work / 'run/epoch_1.pth')['state_dict']
    # The temperature rule ran without being asked for.
    norms = [value for key, value in state.items() if key.endswith('last_grad_norm')]
    assert len(norms) == 6
    assert all(norm > 0 for norm in norms)


def test_resume_continues_where_it_stopped(trained, run_warm):
    work, _ = trained
    command = (ROOT / 'tools/train.py', SHAPES, '--work-dir', 'run', '--resume', *TWO_EPOCHS)
    output = run_warm(*command, cwd=work)
    assert 'resumed epoch: 1, iter: 4' in output
    assert 'Epoch(train) [2][4/4]' in output
    assert 'Epoch(train) [1][' not in output
    assert re.search(r'Epoch\(val\) \[2\]', output)
    # A training that is finished is not trained again.
    output = run_warm(*command, cwd=work)
    assert 'resumed epoch: 2, iter: 8' in output
    assert 'Epoch(train)' not in output


def test_our_test_script(trained, run):
    work, _ = trained
    output = run(ROOT / 'tools/test.py', SHAPES, 'run/epoch_1.pth', *SHORT, cwd=work)
    assert re.search(r'Epoch\(test\).*coco/bbox_mAP: [\d.]+', output)


@pytest.mark.parametrize('tool', ['test.py', 'train.py'])
def test_damaged_checkpoints_are_named_in_one_line(trained, run_warm, tool):
    work, _ = trained
    whole = (work / 'run/epoch_1.pth').read_bytes()
    (work / 'half.pth').write_bytes(whole[: len(whole) // 2])
    checkpoint = ('half.pth',) if tool == 'test.py' else ('--resume', 'half.pth')
    output = run_warm(
        ROOT / 'tools' / tool, SHAPES, *checkpoint, '--work-dir', 'damaged', *TWO_EPOCHS,
        cwd=work, code=1,
    )  # fmt: skip
    assert output.splitlines()[-1].startswith('error: half.pth cannot be read as plain weights: ')
    assert 'Traceback' not in output


def test_mim(trained, run):
    if find_distribution('mmdet') is None:
        pytest.skip('OpenMIM knows MMDetection by its official name only: run without STACK=onedl')
    work, _ = trained
    # tests/packaging trains by it.
    output = run(
        *('-m', 'mim', 'test', 'mmdet', SHAPES, '--checkpoint', 'run/epoch_1.pth'),
        *('--gpus', 0, *SHORT),
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


def test_checkpoint_of_another_arch(trained):
    from mmdet.apis import init_detector

    work, _ = trained
    medium = ROOT / 'configs/ssdlite/ssdlite_hadaptive-m_8xb24-600e_coco.py'
    with pytest.raises(ValueError, match=r"does not fit HadaptiveNet\(arch='medium'\)") as caught:
        init_detector(str(medium), str(work / 'run/epoch_1.pth'), device='cpu')
    assert "build the backbone with arch='small'" in str(caught.value)


def test_demo(tmp_path, run_warm):
    program = tmp_path / 'small_demo.py'
    program.write_text('import demo\n\ndemo.main(16, 4, 1)\n')
    output = run_warm(program, cwd=tmp_path, env=dict(PYTHONPATH=str(ROOT / 'demo')))
    assert re.search(r'COCO mAP [01]\.\d{3} \(mAP50 .* on 4 validation images', output)
    for name in ('predictions.png', 'curves.png', 'epoch_1.pth'):
        assert (tmp_path / 'work_dirs/demo' / name).stat().st_size > 0
        assert f'work_dirs/demo/{name}' in output
    assert 'work_dirs/demo/epoch_1.pth work_dirs/demo/page --format web' in output


def test_missing_data_set(tmp_path, run_warm):
    output = run_warm(ROOT / 'tools/train.py', SSDLITE, '--work-dir', 'run', cwd=tmp_path, code=1)
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


def test_check_dataset(shapes, tmp_path, run_warm):
    work = shapes.parents[1]
    output = run_warm(ROOT / 'tools/check_dataset.py', SHAPES, cwd=work)
    assert output.count('nothing wrong') == 2
    output = run_warm(
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


# RetinaNet takes images of up to 1333 x 800 pixels.
SMALL_IMAGES = (
    'train_dataloader.dataset.pipeline.2.scale=(320,320)',
    'val_dataloader.dataset.pipeline.1.scale=(320,320)',
)


@pytest.mark.parametrize(
    ('config', 'inner', 'options'),
    [(SSDLITE, 'dataset.dataset', ()), (RETINANET, 'dataset', SMALL_IMAGES)],
    ids=['ssdlite', 'retinanet'],
)
def test_coco_configs_train_and_validate(coco, run_warm, config, inner, options):
    options = (
        *SHORT,
        f'train_dataloader.{inner}.indices=2',
        'train_dataloader.batch_size=2',
        'val_dataloader.dataset.indices=2',
        *options,
    )
    output = run_warm(ROOT / 'tools/train.py', config, '--work-dir', 'run', *options, cwd=coco)
    assert re.search(r'Epoch\(train\) \[1\]\[\d+/\d+\].* loss_cls: \d', output)
    # After so few steps nothing may be found yet, and then MMDetection prints no mAP.
    assert re.search(r'Epoch\(val\) \[1\]\[\d+/\d+\]', output)


def test_bccd_config_trains_and_validates(real_data, tmp_path, run_warm):
    options = (
        *SHORT,
        'train_dataloader.dataset.times=1',
        'train_dataloader.dataset.dataset.indices=8',
        'val_dataloader.dataset.indices=8',
    )
    output = run_warm(
        ROOT / 'tools/train.py', BCCD, '--work-dir', 'run', *options, cwd=tmp_path,
        env=dict(HADAPTIVE_DATA=str(real_data)),
    )  # fmt: skip
    assert 'Epoch(train) [1][2/2]' in output
    assert 'coco/bbox_mAP' in output


def test_real_data_is_clean(real_data):
    from coco_check import check_coco

    for split in ('train', 'val'):
        findings = check_coco(
            real_data / f'bccd/annotations/instances_{split}.json',
            real_data / 'bccd' / split,
            ('RBC', 'WBC', 'Platelets'),
            read_images=True,
        )
        assert findings == []
