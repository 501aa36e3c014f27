import json
from copy import deepcopy

import cv2
import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mmdet.apis import inference_detector, init_detector
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

from mmdet_hadaptive.export import (
    ExportError,
    ExportNetwork,
    OnnxDetector,
    Preprocessing,
    evaluate_onnx,
    export_onnx,
)

from .conftest import CONFIG, on_training_images, small_config

CONFIGS = CONFIG.parents[1]
HEADS = [
    'ssdlite/ssdlite_hadaptive-s_8xb24-600e_coco.py',
    'retinanet/retinanet_hadaptive-s_fpn_1x_coco.py',
    'retinanet/retinanet-lite_hadaptive-s_384_600e_coco.py',
    'atss/atss_hadaptive-s_fpn_1x_coco.py',
    'gfl/gfl_hadaptive-s_fpn_1x_coco.py',
    'fcos/fcos_hadaptive-s_fpn_gn-head_1x_coco.py',
    'rtmdet/rtmdet-tiny_hadaptive-s_8xb32-300e_coco.py',
]
SQUARE = Preprocessing((128, 128), (128, 128), False, 'RGB', (0,) * 3, (1,) * 3, (0,) * 3)


def load(name):
    config = Config.fromfile(CONFIGS / name)
    init_default_scope('mmdet')
    return config


@pytest.fixture(scope='module')
def exported(trained, tmp_path_factory):
    """The trained model in mode nms, for any batch and pixel values."""
    root, checkpoint = trained
    out = tmp_path_factory.mktemp('exported') / 'model.onnx'
    export_onnx(
        small_config(root), checkpoint, out, batch=None, normalize=True, exporter='torchscript'
    )
    return out


@pytest.mark.parametrize('name', HEADS)
def test_boxes_and_scores_are_those_of_mmdet(name):
    config = load(name)
    detector = MODELS.build(config.model)
    head = detector.bbox_head
    network = ExportNetwork(detector, 'decoded', SQUARE)
    with torch.no_grad():
        # Spread, so that no two scores tie.
        outputs = [
            [torch.randn_like(level) for level in levels]
            for levels in detector(torch.zeros(1, 3, 128, 128), mode='tensor')
        ]
        boxes, scores, factors = network._decode(*outputs)
        (expected,) = head.predict_by_feat(
            *outputs,
            batch_img_metas=[dict(img_shape=(128, 128))],
            cfg=deepcopy(head.test_cfg) | dict(score_thr=0.0, nms_pre=10**7, min_bbox_size=-1),
            with_nms=False,
        )
    scores = scores if factors is None else scores * factors
    assert scores.shape == (1, boxes.shape[1], head.num_classes)
    order = scores.flatten().argsort(descending=True, stable=True)[:500]
    theirs = expected[expected.scores.argsort(descending=True, stable=True)[:500]]
    assert len(expected) == scores.numel()
    assert torch.allclose(scores.flatten()[order], theirs.scores, atol=1e-6)
    same = order % head.num_classes == theirs.labels
    close = (boxes[0, order // head.num_classes] - theirs.bboxes).abs().amax(1) < 1e-3
    # Neighbours whose scores differ in the last bit may change places.
    assert (same & close).float().mean() > 0.98


@pytest.mark.parametrize(
    ('mode', 'batch', 'names'),
    [
        ('backbone', 1, ['feature_0', 'feature_1']),
        ('raw', None, [f'{kind}_{i}' for kind in ('cls_score', 'bbox_pred') for i in range(6)]),
        ('decoded', 3, ['boxes', 'scores']),
    ],
)
def test_modes(trained, tmp_path, mode, batch, names):
    root, checkpoint = trained
    out = tmp_path / 'model.onnx'
    report = export_onnx(
        small_config(root), checkpoint, out, mode, batch=batch, exporter='torchscript', opset=17
    )
    assert report.difference < 1e-3
    assert list(report.output_shapes) == names
    assert report.input_shape == (batch or 'batch', 3, 192, 192)
    model = onnx.load(out)
    assert model.opset_import[0].version == 17
    assert json.loads({p.key: p.value for p in model.metadata_props}['mode']) == mode
    if mode == 'raw':
        session = onnxruntime.InferenceSession(out, providers=['CPUExecutionProvider'])
        outputs = session.run(None, {'images': np.zeros((5, 3, 192, 192), np.float32)})
        assert {len(output) for output in outputs} == {5}


def test_dynamo_gives_the_same(trained, exported, tmp_path):
    root, checkpoint = trained
    out = tmp_path / 'model.onnx'
    report = export_onnx(small_config(root), checkpoint, out, batch=None, normalize=True)
    assert report.input_shape == ('batch', 3, 192, 192)
    images = np.float32(np.random.default_rng(0).integers(0, 256, (3, 3, 192, 192)))
    ours, theirs = (
        onnxruntime.InferenceSession(file, providers=['CPUExecutionProvider']).run(
            None, {'images': images}
        )
        for file in (out, exported)
    )
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
    actual = evaluate_onnx(on_training_images(small_config(root)), exported, tmp_path / 'onnx')
    assert expected['coco/bbox_mAP'] > 0.05
    for key, value in expected.items():
        assert actual[key] == pytest.approx(value, abs=1e-3), key


def test_a_fixed_batch_is_filled_up(trained, exported, tmp_path):
    root, checkpoint = trained
    out = tmp_path / 'model.onnx'
    export_onnx(small_config(root), checkpoint, out, batch=3, exporter='torchscript')
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
        results.append(OnnxDetector(file)(images, samples))
    assert sum(len(s.pred_instances) for s in results[0]) > 4
    for ours, theirs in zip(*results, strict=True):
        assert torch.allclose(ours.pred_instances.bboxes, theirs.pred_instances.bboxes, atol=1e-2)
        assert ours.pred_instances.bboxes[:, 3].max() <= 192 / 0.5


def test_demo_detects_what_mmdet_does(trained, exported, tmp_path, run, pytestconfig):
    root, checkpoint = trained
    demo = pytestconfig.rootpath / 'tools/onnx_demo.py'
    image = sorted((root / 'train').iterdir())[0]
    script = (
        'import sys, runpy, cv2\n'
        "sys.modules.update(dict.fromkeys(('torch', 'mmdet', 'mmengine', 'mmdet_hadaptive')))\n"
        f'demo = runpy.run_path({str(demo)!r})\n'
        f'for box, score, label in zip(*demo["Detector"]({str(exported)!r})'
        f'(cv2.imread({str(image)!r}))):\n'
        '    print("FOUND", *box, score, label)\n'
    )
    lines = [line.split()[1:] for line in run('-c', script, cwd=tmp_path).splitlines()]
    ours = np.array(lines, float)
    detector = init_detector(small_config(root), str(checkpoint), device='cpu')
    theirs = inference_detector(detector, str(image)).pred_instances
    assert len(ours) == len(theirs) > 0
    assert np.allclose(ours[:, :4], theirs.bboxes.numpy(), atol=1e-2)
    assert np.allclose(ours[:, 4], theirs.scores.numpy(), atol=1e-4)
    assert (ours[:, 5] == theirs.labels.numpy()).all()
    output = run(demo, exported, root / 'train', '--out', 'pictures', cwd=tmp_path)
    assert 'images: 4, median latency' in output
    picture = cv2.imread(str(tmp_path / 'pictures' / f'{image.stem}.jpg'))
    assert picture.shape == cv2.imread(str(image)).shape

    video = tmp_path / 'video.avi'
    size = picture.shape[1::-1]
    writer = cv2.VideoWriter(str(video), cv2.VideoWriter_fourcc(*'MJPG'), 5, size)
    for _ in range(3):
        writer.write(picture)
    writer.release()
    assert 'images: 3, median latency' in run(demo, exported, video, '--out', 'v', cwd=tmp_path)
    assert cv2.imread(str(tmp_path / 'v/video_000002.jpg')).shape == picture.shape


@pytest.mark.parametrize(
    ('name', 'input_size', 'resize', 'pad_value'),
    [
        ('retinanet/retinanet_hadaptive-s_fpn_1x_coco.py', (800, 1344), (800, 1333), 123.675),
        ('retinanet/retinanet-lite_hadaptive-s_384_600e_coco.py', (384, 384), (384, 384), 114),
    ],
)
def test_preprocessing(name, input_size, resize, pad_value):
    preprocessing = Preprocessing.from_config(load(name))
    assert preprocessing.input_size == input_size
    assert preprocessing.resize == resize
    assert preprocessing.keep_ratio
    assert preprocessing.pad_value[0] == pad_value
    assert Preprocessing.from_metadata(preprocessing.metadata()) == preprocessing
    canvas = preprocessing.canvas(np.full((100, 200, 3), (10, 20, 30), np.uint8))
    assert canvas.shape == (3, *input_size)
    assert canvas[0, 0, 0] == pytest.approx((30 - 123.675) / 58.395, rel=1e-5)
    assert canvas[0, 100, 0] == pytest.approx((pad_value - 123.675) / 58.395, rel=1e-5)
    with pytest.raises(ExportError, match=r'export with a --size in which upright'):
        preprocessing.canvas(np.zeros((2000, 100, 3), np.uint8))


def test_nothing_to_compare(trained, tmp_path):
    root, checkpoint = trained
    image = tmp_path / 'grey.png'
    cv2.imwrite(str(image), np.full((96, 96, 3), 128, np.uint8))
    config = small_config(root)
    config.model.test_cfg.score_thr = 0.999
    out = tmp_path / 'model.onnx'
    with pytest.raises(ExportError, match=r'grey\.png: neither .* detects anything'):
        export_onnx(config, checkpoint, out, image=image, exporter='torchscript')
    assert not out.exists()
    export_onnx(config, checkpoint, out, image=image, exporter='torchscript', tolerance=np.inf)
    assert out.exists()


def test_what_does_not_agree_is_not_written(trained, tmp_path):
    root, checkpoint = trained
    out = tmp_path / 'model.onnx'
    out.write_text('before')
    with pytest.raises(ExportError, match=r'differ by .* more than 0e\+00'):
        export_onnx(
            small_config(root), checkpoint, out, 'raw', exporter='torchscript', tolerance=0.0
        )
    assert out.read_text() == 'before'
    assert list(tmp_path.iterdir()) == [out]


def soft_nms(config):
    config.model.test_cfg.nms = dict(type='soft_nms', iou_threshold=0.5)


def unable_head(config):
    config.model.bbox_head.type = 'SSDHead'


def normalising_pipeline(config):
    config.test_dataloader.dataset.pipeline.insert(2, dict(type='Normalize', mean=[0], std=[1]))


def other_architecture(config):
    config.model.backbone.arch = 'small'


def no_data(config):
    config.test_dataloader.dataset.data_prefix = dict(img='nowhere/')


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (soft_nms, r"soft_nms.*mode 'decoded'"),
        (unable_head, r'SSDHead cannot predict.*use SSDLiteHead'),
        (normalising_pipeline, r'the test pipeline has Normalize'),
        (other_architecture, r'does not fit'),
        (no_data, r'--image'),
    ],
)
def test_refusals(trained, tmp_path, change, message):
    root, checkpoint = trained
    config = small_config(root)
    change(config)
    with pytest.raises(ValueError, match=message):
        export_onnx(config, checkpoint, tmp_path / 'model.onnx', exporter='torchscript')
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('name', 'message'),
    [
        ('faster_rcnn/faster-rcnn_hadaptive-s_fpn_1x_coco.py', r"FasterRCNN .* mode 'backbone'"),
        ('yolox/yolox-tiny_hadaptive-s_8xb8-300e_coco.py', r"YOLOXHead .* mode 'raw'"),
    ],
)
def test_detectors_that_cannot_be_decoded(name, message):
    with pytest.raises(ExportError, match=message):
        ExportNetwork(MODELS.build(load(name).model), 'decoded', SQUARE)


def test_a_model_without_detections_is_not_evaluated(trained, tmp_path):
    root, checkpoint = trained
    out = tmp_path / 'model.onnx'
    export_onnx(small_config(root), checkpoint, out, 'decoded', exporter='torchscript')
    with pytest.raises(ExportError, match=r"mode 'decoded'.*export it with mode 'nms'"):
        evaluate_onnx(small_config(root), out, tmp_path)
