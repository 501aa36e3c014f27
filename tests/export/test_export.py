import json
import runpy

import cv2
import numpy as np
import onnx
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.runner import Runner

from hadaptive_runtime.onnx_session import create_session
from mmdet_hadaptive.export import (
    EXPORTERS,
    ExportedDetector,
    ExportError,
    evaluate_exported,
    export,
    export_detector,
)
from mmdet_hadaptive.export.images import run_pipeline

from .conftest import on_training_images, small_config


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory):
    """The trained model, for any batch and pixel values."""
    root, checkpoint = trained
    out = tmp_path_factory.mktemp('exported') / 'model.onnx'
    export_detector(small_config(root), checkpoint, out, batch=None, normalize=True)
    return out


@pytest.mark.parametrize(
    ('outputs', 'batch', 'names'),
    [
        ('features', 1, ['feature_0', 'feature_1']),
        ('head', None, [f'{kind}_{i}' for kind in ('cls_score', 'bbox_pred') for i in range(6)]),
        ('boxes', 3, ['boxes', 'scores']),
    ],
)
def test_outputs(trained, tmp_path, outputs, batch, names):
    root, checkpoint = trained
    out = tmp_path / 'model.onnx'
    options = dict(outputs=outputs, batch=batch, opset=17)
    report = export_detector(small_config(root), checkpoint, out, **options)
    assert report.difference < 1e-3
    assert list(report.output_shapes) == names
    assert report.input_shape == (batch or 'batch', 3, 192, 192)
    model = onnx.load(out)
    assert model.opset_import[0].version == 17
    assert json.loads({p.key: p.value for p in model.metadata_props}['mode']) == outputs
    if outputs == 'head':
        session = create_session(out)
        values = session.run(None, {'images': np.zeros((5, 3, 192, 192), np.float32)})
        assert {len(value) for value in values} == {5}


@pytest.mark.dynamo
def test_dynamo_gives_the_same(trained, exported, tmp_path):
    root, checkpoint = trained
    out = tmp_path / 'model.onnx'
    report = export_detector(
        small_config(root), checkpoint, out, batch=None, normalize=True, exporter='dynamo'
    )
    assert report.input_shape == ('batch', 3, 192, 192)
    images = np.float32(np.random.default_rng(0).integers(0, 256, (3, 3, 192, 192)))
    ours, theirs = (create_session(file).run(None, {'images': images}) for file in (out, exported))
    for a, b in zip(ours, theirs, strict=True):
        assert np.allclose(a, b, atol=1e-3)


def test_metadata(trained, exported):
    metadata = {p.key: json.loads(p.value) for p in onnx.load(exported).metadata_props}
    head = small_config(trained[0]).model.test_cfg
    assert metadata == dict(
        mode='nms',
        classes=['disk', 'ring', 'triangle', 'cross'],
        input_size=[192, 192],
        resize=[192, 192],
        keep_ratio=False,
        channel_order='BGR',
        mean=[0, 0, 0],
        std=[1, 1, 1],
        # The mean of the data preprocessor, RGB there.
        pad_value=[103.53, 116.28, 123.675],
        score_threshold=head.score_thr,
        iou_threshold=0.5,
        candidates_per_level=head.nms_pre,
        max_detections=head.max_per_img,
    )


def test_map_is_that_of_pytorch(trained, exported, tmp_path):
    root, checkpoint = trained
    config = on_training_images(small_config(root))
    config.update(work_dir=str(tmp_path / 'torch'), load_from=str(checkpoint), custom_hooks=[])
    expected = Runner.from_cfg(config).test()
    actual = evaluate_exported(on_training_images(small_config(root)), exported, tmp_path / 'onnx')
    assert expected['coco/bbox_mAP'] > 0.05
    for key, value in expected.items():
        assert actual[key] == pytest.approx(value, abs=1e-3), key


def test_size_is_height_and_width(untrained, tmp_path, monkeypatch, pytestconfig, capsys):
    root, checkpoint = untrained
    config = small_config(root)
    pad = dict(type='Pad', size=(192, 192), pad_val=dict(img=(1, 2, 3)))
    config.test_dataloader.dataset.pipeline.insert(2, pad)
    config.dump(tmp_path / 'config.py')
    monkeypatch.chdir(tmp_path)
    command = f'tool config.py {checkpoint} model.onnx --outputs features'
    monkeypatch.setattr('sys.argv', [*command.split(), '--size', '96', '160'])
    runpy.run_path(str(pytestconfig.rootpath / 'tools/export.py'), run_name='__main__')
    assert 'images    (1, 3, 96, 160)\nfeature_0 (1, 32, 6, 10)\n' in capsys.readouterr().out
    metadata = {p.key: json.loads(p.value) for p in onnx.load('model.onnx').metadata_props}
    assert metadata['input_size'] == metadata['resize'] == [96, 160]


def test_a_fixed_batch_is_filled_up(trained, exported, tmp_path):
    root, checkpoint = trained
    out = tmp_path / 'model.onnx'
    export_detector(small_config(root), checkpoint, out, batch=3)
    images = [
        torch.from_numpy(cv2.resize(cv2.imread(str(f)), (192, 192))).permute(2, 0, 1)
        for f in sorted((root / 'train').iterdir())
    ]
    results = []
    for file in (exported, out):
        samples = [
            DetDataSample(metainfo=dict(img_shape=(192, 192), scale_factor=(0.75, 0.5)))
            for _ in images
        ]
        results.append(ExportedDetector(file)(images, samples))
    assert sum(len(s.pred_instances) for s in results[0]) > 4
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours.pred_instances.bboxes, theirs.pred_instances.bboxes, atol=1e-2)
        assert ours.pred_instances.bboxes[:, 3].max() <= 192 / 0.5


def test_nothing_to_compare(trained, tmp_path):
    root, checkpoint = trained
    image = tmp_path / 'grey.png'
    cv2.imwrite(str(image), np.full((96, 96, 3), 128, np.uint8))
    config = small_config(root)
    config.model.test_cfg.score_thr = 0.999
    out = tmp_path / 'model.onnx'
    with pytest.raises(ExportError, match=r'grey\.png: neither .* detects anything'):
        export_detector(config, checkpoint, out, image=image)
    assert not out.exists()
    export_detector(config, checkpoint, out, image=image, tolerance=None)
    assert out.exists()


def test_a_pipeline_that_the_metadata_do_not_describe(untrained, tmp_path, monkeypatch):
    def shift(config, image):
        return np.roll(run_pipeline(config, image), 8, axis=1)

    root, checkpoint = untrained
    out = tmp_path / 'model.onnx'
    export_detector(small_config(root), checkpoint, out, outputs='features')
    monkeypatch.setattr(export, 'run_pipeline', shift)
    with pytest.raises(ExportError, match=r'would not prepare .*\.png as the test pipeline does'):
        export_detector(small_config(root), checkpoint, out, outputs='features')


def test_what_does_not_agree_is_not_written(trained, tmp_path):
    root, checkpoint = trained
    out = tmp_path / 'model.onnx'
    out.write_text('before')
    with pytest.raises(ExportError, match=r'differ by .* more than 0e\+00'):
        export_detector(small_config(root), checkpoint, out, outputs='head', tolerance=0.0)
    assert out.read_text() == 'before'
    assert list(tmp_path.iterdir()) == [out]


def soft_nms(config):
    config.model.test_cfg.nms = dict(type='soft_nms', iou_threshold=0.5)


def no_iou_threshold(config):
    config.model.test_cfg.nms = dict(type='nms')


def unable_head(config):
    config.model.bbox_head.type = 'SSDHead'


def normalising_pipeline(config):
    config.test_dataloader.dataset.pipeline.insert(2, dict(type='Normalize', mean=[0], std=[1]))


def other_architecture(config):
    config.model.backbone.arch = 'small'


def tiny_size(config):
    config.test_dataloader.dataset.pipeline[1].scale = (16, 16)


def no_data(config):
    config.test_dataloader.dataset.data_prefix = dict(img='nowhere/')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (soft_nms, r'soft_nms.*--outputs boxes'),
        (no_iou_threshold, r'nms\.iou_threshold must be in 0\.\.1, got None.*--cfg-options'),
        (unable_head, r'SSDHead cannot predict.*use PatchedSSDHead'),
        (normalising_pipeline, r'the test pipeline has Normalize'),
        (other_architecture, r'does not fit'),
        (tiny_size, r'does not run on an input of 16 x 16 pixels .*stride.*larger --size'),
        (no_data, r'--image'),
    ],
)
def test_refusals(untrained, tmp_path, change, message):
    root, checkpoint = untrained
    config = small_config(root)
    change(config)
    with pytest.raises(ValueError, match=message):
        export_detector(config, checkpoint, tmp_path / 'model.onnx')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize('exporter', EXPORTERS)
@pytest.mark.parametrize('opset', [1, 9, 99])
def test_an_opset_that_cannot_be_written_is_named(untrained, tmp_path, opset, exporter):
    root, checkpoint = untrained
    options = dict(opset=opset, exporter=exporter, tolerance=None)
    with pytest.raises(ExportError, match=rf'opset.* {opset}.*--opset'):
        export_detector(small_config(root), checkpoint, tmp_path / 'model.onnx', **options)
    assert not list(tmp_path.iterdir())


def test_several_data_sets(untrained, tmp_path):
    root, checkpoint = untrained
    config = small_config(root)
    dataset = config.test_dataloader.dataset
    config.test_dataloader.dataset = dict(type='ConcatDataset', datasets=[dataset, dataset])
    out = tmp_path / 'model.onnx'
    report = export_detector(config, checkpoint, out, size=(96, 128), tolerance=None)
    assert report.input_shape == (1, 3, 96, 128)
    assert report.image.startswith(str(root))


def test_classes_that_do_not_fit_the_head(untrained, tmp_path):
    root, checkpoint = untrained
    content = torch.load(checkpoint, weights_only=True)
    content['meta']['dataset_meta']['classes'] = ('disk', 'ring')
    torch.save(content, tmp_path / 'other.pth')
    with pytest.raises(ExportError, match=r'the head has 4 classes, but 2 are named'):
        export_detector(
            small_config(root), tmp_path / 'other.pth', tmp_path / 'model.onnx', outputs='features'
        )
    assert [file.name for file in tmp_path.iterdir()] == ['other.pth']


def test_a_model_without_detections_is_not_evaluated(trained, tmp_path):
    root, checkpoint = trained
    out = tmp_path / 'model.onnx'
    export_detector(small_config(root), checkpoint, out, outputs='boxes')
    with pytest.raises(ExportError, match='but boxes: export it with --outputs detections'):
        evaluate_exported(small_config(root), out, tmp_path)
