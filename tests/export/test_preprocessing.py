import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose, LoadImageFromFile, Resize
from mmdet.models import DetDataPreprocessor
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from hadaptive_runtime import Preprocessing, load_exported
from mmdet_hadaptive.export import ExportError, read_preprocessing
from mmdet_hadaptive.export.preprocessing import set_input_size

from .conftest import CONFIG, constant_model

CONFIGS = CONFIG.parents[1]


@pytest.mark.parametrize(
    ('name', 'input_size', 'resize', 'pad_value'),
    [
        ('retinanet/retinanet_hadaptive-s_fpn_1x_coco.py', (800, 1344), (800, 1333), 123.675),
        ('retinanet/retinanet-lite_hadaptive-s_384_600e_coco.py', (384, 384), (384, 384), 114),
    ],
)
def test_preprocessing(name, input_size, resize, pad_value):
    preprocessing = read_preprocessing(Config.fromfile(CONFIGS / name))
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


@pytest.mark.parametrize('to_rgb', [False, True])
@pytest.mark.parametrize('keep_ratio', [False, True])
def test_input_is_that_of_mmdet(tmp_path, keep_ratio, to_rgb):
    init_default_scope('mmdet')
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(150, 90), keep_ratio=keep_ratio),
        dict(type='Pad', size=(160, 96), pad_val=dict(img=(200, 100, 50))),
        dict(type='PackDetInputs', meta_keys=()),
    ]
    model = dict(type='DetDataPreprocessor', mean=[10, 20, 30], std=[1, 2, 3], bgr_to_rgb=to_rgb)
    config = Config(
        dict(
            model=dict(data_preprocessor=model),
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    file = tmp_path / 'image.png'
    image = np.random.default_rng(0).integers(0, 256, (40, 100, 3), np.uint8)
    cv2.imwrite(str(file), image)
    padded, resized = (
        Compose(steps)(dict(img_path=str(file), img_id=0))['inputs']
        for steps in (pipeline, pipeline[:2] + pipeline[3:])
    )
    expected = MODELS.build(model)(dict(inputs=[padded], data_samples=None))['inputs'][0].numpy()

    preprocessing = read_preprocessing(config)
    resized = resized.permute(1, 2, 0).numpy()
    assert np.allclose(preprocessing.canvas(resized), expected, atol=1e-4)
    outside = preprocessing.outside().canvas(resized)
    outside = torch.from_numpy(outside[::-1].copy() if to_rgb else outside)
    inside = (outside - torch.tensor([10, 20, 30])[:, None, None]) / torch.tensor([1, 2, 3]).view(
        3, 1, 1
    )
    assert np.allclose(inside, expected, atol=1e-4)

    detector = load_exported(constant_model(tmp_path / 'model.onnx', preprocessing))
    inputs, factors = detector.preprocessing.prepare(cv2.imread(str(file)))
    assert np.allclose(inputs, expected, atol=1e-4)
    assert np.allclose(factors, [1.5, 1.5 if keep_ratio else 2.25])
    # The larger box, clipped to the image, and the smaller one.
    found = detector(image)
    height = 1.5 if keep_ratio else 2.25
    assert np.allclose(
        found.boxes, [[0, 0, 100, 40], [10 / 1.5, 20 / height, 40 / 1.5, 60 / height]]
    )
    assert found.labels.tolist() == [0, 1]


def test_another_size_is_that_of_resize_and_of_pad():
    pipeline = [
        dict(type='Resize', scale=(150, 90), keep_ratio=True),
        dict(type='Pad', size=(160, 96)),
    ]
    config = Config(
        dict(
            model=dict(data_preprocessor=dict(type='DetDataPreprocessor')),
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    set_input_size(config, 64, 128)
    preprocessing = read_preprocessing(config)
    assert preprocessing.input_size == preprocessing.resize == (64, 128)


def test_a_pad_before_the_resize_is_refused():
    pipeline = [
        dict(type='Pad', pad_to_square=True),
        dict(type='Resize', scale=(96, 96), keep_ratio=True),
    ]
    config = Config(
        dict(
            model=dict(data_preprocessor=dict(type='DetDataPreprocessor')),
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    with pytest.raises(ExportError, match=r'pads before it resizes.*: put Pad after Resize'):
        read_preprocessing(config)


def test_a_divisor_rounds_the_size_up():
    pipeline = [
        dict(type='Resize', scale=(150, 90), keep_ratio=True),
        dict(type='Pad', size_divisor=32),
    ]
    config = Config(
        dict(
            model=dict(data_preprocessor=dict(type='DetDataPreprocessor')),
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    assert read_preprocessing(config).input_size == (96, 160)
    config.test_dataloader.dataset.pipeline.pop()
    config.model.data_preprocessor.pad_size_divisor = 64
    assert read_preprocessing(config).input_size == (128, 192)
    for side in (0, -1):
        with pytest.raises(ExportError, match=f'at least 1 x 1 pixels, got 8 x {side}'):
            set_input_size(config, 8, side)


def test_several_data_sets_must_have_one_pipeline():
    datasets = [dict(pipeline=[dict(type='Resize', scale=(150, 90))]) for _ in range(2)]
    model = dict(data_preprocessor=dict(type='DetDataPreprocessor', mean=[5], std=[2]))
    config = Config(
        dict(model=model, test_dataloader=dict(dataset=dict(type='C', datasets=datasets)))
    )
    assert read_preprocessing(config).mean == (5, 5, 5)
    set_input_size(config, 8, 16)
    assert read_preprocessing(config).input_size == (8, 16)
    config.test_dataloader.dataset.datasets[1].pipeline[0].scale = (20, 20)
    with pytest.raises(ExportError, match='2 pipelines that are not the same'):
        read_preprocessing(config)


def test_types_may_be_classes_and_paths():
    pipeline = [
        dict(type=LoadImageFromFile),
        dict(type=Resize, scale=(150, 90)),
        dict(type='mmcv.transforms.Pad', size_divisor=32),
    ]
    config = Config(
        dict(
            model=dict(data_preprocessor=dict(type=DetDataPreprocessor)),
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    assert read_preprocessing(config).input_size == (96, 160)


@pytest.mark.parametrize(
    ('transform', 'message'),
    [
        (dict(type='LoadImageFromFile', color_type='grayscale'), "has color_type='grayscale'"),
        (dict(type='Resize', scale=(8, 8), interpolation='area'), "Resize .* interpolation='area'"),
        (dict(type='Resize', scale=(8, 8), backend='pillow'), "Resize .* has backend='pillow'"),
        (dict(type='Pad', size=(8, 8), padding_mode='edge'), "Pad .* has padding_mode='edge'"),
    ],
)
def test_what_cannot_be_described_is_refused(transform, message):
    pipeline = [dict(type='Resize', scale=(8, 8), interpolation='bilinear', backend='cv2')]
    config = Config(
        dict(
            model=dict(data_preprocessor=dict(type='DetDataPreprocessor')),
            test_dataloader=dict(dataset=dict(pipeline=pipeline)),
        )
    )
    assert read_preprocessing(config).resize == (8, 8)
    config.test_dataloader.dataset.pipeline = [*pipeline, transform][-2:]
    with pytest.raises(ExportError, match=message):
        read_preprocessing(config)
    config.pop('test_dataloader')
    for function in (read_preprocessing, lambda config: set_input_size(config, 8, 8)):
        with pytest.raises(ExportError, match='the config has no test_dataloader'):
            function(config)
