import json

import cv2
import pytest
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_hadaptive.analysis.report import draw_predictions, plot_curves
from mmdet_hadaptive.datasets import SHAPE_CLASSES

CONFIG = 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'


def test_curves(tmp_path):
    records = [dict(step=i, loss=9.0 / i, loss_cls=6.0 / i, loss_bbox=3.0 / i) for i in (1, 2, 3)]
    records += [
        {'step': i, 'coco/bbox_mAP': m, 'coco/bbox_mAP_50': 0.5} for i, m in ((1, -1), (2, 0.3))
    ]
    scalars = tmp_path / 'scalars.json'
    scalars.write_text('\n'.join(map(json.dumps, records)))
    plot_curves(scalars, tmp_path / 'curves.png', 'title')
    picture = cv2.imread(str(tmp_path / 'curves.png'))
    # Not an empty page: lines of several colours.
    assert len({tuple(pixel) for pixel in picture.reshape(-1, 3)[::7]}) > 10


@pytest.mark.parametrize(('num_images', 'rows'), [(4, 2), (1, 1)])
def test_predictions(shapes, tmp_path, monkeypatch, pytestconfig, num_images, rows):
    config = Config.fromfile(pytestconfig.rootpath / CONFIG)
    init_default_scope('mmdet')
    monkeypatch.chdir(shapes.parents[1])
    model = MODELS.build(config.model).eval()
    model.cfg = config
    model.dataset_meta = dict(classes=SHAPE_CLASSES)
    dataset = DATASETS.build(config.val_dataloader.dataset)
    file = tmp_path / 'predictions.png'
    draw_predictions(model, dataset, file, num_images=num_images, score_threshold=0.0)
    pairs = min(num_images, 2)
    # Truth and prediction of 256 x 256 pixels side by side, in a frame of 4 pixels.
    assert cv2.imread(str(file)).shape == (264 * rows, 520 * pairs, 3)
