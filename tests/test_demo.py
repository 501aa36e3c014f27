import cv2
import pytest
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from demo.demo import draw_predictions
from mmdet_hadaptive.datasets import SHAPE_CLASSES

CONFIG = 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'


@pytest.fixture
def detector(shapes, monkeypatch, pytestconfig):
    """An untrained detector, and the data set that it is tested on."""
    config = Config.fromfile(pytestconfig.rootpath / CONFIG)
    init_default_scope('mmdet')
    monkeypatch.chdir(shapes.parents[1])
    model = MODELS.build(config.model).eval()
    model.cfg = config
    model.dataset_meta = dict(classes=SHAPE_CLASSES)
    return model, DATASETS.build(config.val_dataloader.dataset)


@pytest.mark.parametrize(('num_images', 'rows'), [(4, 2), (1, 1)])
def test_predictions(detector, tmp_path, num_images, rows):
    file = tmp_path / 'predictions.png'
    draw_predictions(*detector, file, num_images=num_images, score_threshold=0.0)
    pairs = min(num_images, 2)
    # Truth and prediction of 256 x 256 pixels side by side, in a frame of 4 pixels.
    assert cv2.imread(str(file)).shape == (264 * rows, 520 * pairs, 3)


def test_predictions_below_the_threshold_are_left_out(detector, tmp_path):
    file = tmp_path / 'predictions.png'
    image = cv2.imread(detector[1].get_data_info(0)['img_path']).astype(int)
    sides = {}
    for threshold in (0.0, 1.0):
        draw_predictions(*detector, file, num_images=1, score_threshold=threshold)
        picture = cv2.imread(str(file)).astype(int)
        sides[threshold] = picture[4:260, 4:260], picture[4:260, 260:516]
    # Nothing is drawn over the image there; older versions of matplotlib soften it a little.
    empty = sides[1.0][1]
    assert abs(empty - image).mean() < 10 < abs(empty[..., ::-1] - image).mean()
    changed = {
        threshold: [(abs(side - empty).max(axis=2) > 8).mean() for side in both]
        for threshold, both in sides.items()
    }
    (truth, everything), (truth_again, _) = changed[0.0], changed[1.0]
    # Boxes cover a part of it.
    assert everything > truth > 0
    assert truth_again == truth < 0.9
