import json

import numpy as np
import onnx
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample

from hadaptive_runtime import Preprocessing
from mmdet_hadaptive.datasets import SHAPE_CLASSES, make_shapes
from mmdet_hadaptive.export import (
    ExportedDetector,
    ExportError,
    encode_model,
    evaluate_exported,
    read_preprocessing,
)
from mmdet_hadaptive.export.pytorch_evaluation import collect_on_training_images

from .conftest import constant_model, small_config

SIZE = (96, 160)
PREPROCESSING = Preprocessing(SIZE, SIZE, True, 'BGR', (0.0,) * 3, (1.0,) * 3, (0.0,) * 3)


def test_boxes_are_clipped_to_the_image_and_scaled_back(tmp_path):
    model = ExportedDetector(constant_model(tmp_path / 'model.onnx', PREPROCESSING))
    images = [torch.zeros(3, 80, 150, dtype=torch.uint8)] * 2
    # Of width and height.
    samples = [
        DetDataSample(metainfo=dict(img_shape=(80, 150), scale_factor=scale))
        for scale in [(0.5, 2.0), (1.0, 1.0)]
    ]
    first, second = (sample.pred_instances for sample in model(images, samples))
    assert first.bboxes.tolist() == [[0, 0, 300, 40], [20, 10, 80, 30]]
    assert second.bboxes.tolist() == [[0, 0, 150, 80], [10, 20, 40, 60]]
    assert first.labels.tolist() == [0, 1]
    assert np.allclose(first.scores, [0.9, 0.8])
    with pytest.raises(ExportError, match=r'161 x 80 pixels .* 160 x 96'):
        model([torch.zeros(3, 80, 161, dtype=torch.uint8)], samples[:1])
    with pytest.raises(ExportError, match=r"cannot do 'loss'"):
        model(images, samples, mode='loss')


@pytest.mark.parametrize(('workers', 'size'), [(0, 1000), (1, 0)])
def test_an_image_that_cannot_be_read_is_named(tmp_path, workers, size):
    root = make_shapes(tmp_path / 'data', 1, 2)
    image = sorted((root / 'val').iterdir())[1]
    image.write_bytes(image.read_bytes()[:size])
    config = small_config(root)
    config.test_dataloader.num_workers = workers
    preprocessing = read_preprocessing(config)
    model = constant_model(tmp_path / 'model.onnx', preprocessing)
    with pytest.raises(ExportError, match=rf'{image.name}: (truncated|empty).*replace it'):
        evaluate_exported(config, model, tmp_path)


def test_products_are_counted_on_training_images_without_boxes_too(tmp_path):
    root = make_shapes(tmp_path / 'data', 3, 1)
    file = root / 'annotations/instances_train.json'
    coco = json.loads(file.read_text())
    coco['annotations'] = [item for item in coco['annotations'] if item['image_id'] == 1]
    file.write_text(json.dumps(coco))
    config = small_config(root)
    detector, seen = MODELS.build(config.model), []
    detector.register_forward_pre_hook(lambda module, args: seen.append(args))
    collect_on_training_images(detector, config, 10)
    assert len(seen) == len(coco['images']) == 3


def test_a_model_for_other_classes_is_refused(tmp_path):
    root = make_shapes(tmp_path / 'data', 1, 1)
    config = small_config(root)
    # As many, in another order.
    classes = SHAPE_CLASSES[::-1]
    model = constant_model(tmp_path / 'model.onnx', read_preprocessing(config))
    exported = onnx.load(model)
    metadata = {entry.key: json.loads(entry.value) for entry in exported.metadata_props}
    model.write_bytes(encode_model(exported, metadata | dict(classes=classes)))
    with pytest.raises(ExportError, match=r'detects cross, triangle.*test data has disk, ring'):
        evaluate_exported(config, model, tmp_path)
