import json

import cv2
import pytest
from matplotlib.figure import Figure
from mmdet.registry import DATASETS, MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from mmdet_hadaptive.datasets import SHAPE_CLASSES
from mmdet_hadaptive.engine.report import draw_predictions, plot_curves

CONFIG = 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'


def test_curves(tmp_path):
    records = [dict(step=i, loss=9.0 / i, loss_cls=6.0 / i, loss_bbox=3.0 / i) for i in (1, 2, 3)]
    records += [
        {'step': i, 'coco/bbox_mAP': m, 'coco/bbox_mAP_50': 0.5} for i, m in ((1, -1), (2, 0.3))
    ]
    scalars = tmp_path / 'scalars.json'
    scalars.write_text('\n'.join(map(json.dumps, records)))
    plot_curves([scalars], tmp_path / 'curves.png', 'title')
    picture = cv2.imread(str(tmp_path / 'curves.png'))
    # Not an empty page: lines of several colours.
    assert len({tuple(pixel) for pixel in picture.reshape(-1, 3)[::7]}) > 10


def test_losses_and_scores_have_axes_of_their_own(tmp_path, monkeypatch):
    figures = []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: figures.append(figure))
    records = [{'step': i, 'loss': 9.0 / i} for i in (1, 3)]
    records += [{'step': i, 'coco/bbox_mAP': m} for i, m in ((1, -1), (2, 0.3))]
    # The second one is that of a run that was resumed from the second step.
    files = [tmp_path / f'{i}.json' for i in range(2)]
    # The first one was killed while it wrote.
    lines = [*map(json.dumps, [*records, dict(step=3, loss=99.0)]), '{"loss": 3.1, "st']
    files[0].write_text('\n'.join(lines))
    files[1].write_text(json.dumps(dict(step=3, loss=3.0)))
    plot_curves(files, tmp_path / 'curves.png', 'title')
    drawn = [
        {line.get_label(): list(zip(*line.get_data(), strict=True)) for line in axis.get_lines()}
        for axis in figures[0].axes
    ]
    # No prediction at all, -1, is drawn as 0.
    assert drawn == [{'loss': [(1, 9.0), (3, 3.0)]}, {'mAP': [(1, 0), (2, 0.3)]}]


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
