"""Once round: predicted, corrected in a labelling tool, and learned from."""

import json

import cv2
import numpy as np
import pytest

from hadaptive_runtime import Detector, Preprocessing
from hadaptive_runtime.predict import predict
from hadaptive_runtime.session import Session
from hadaptive_runtime.sources import find_sources
from mmdet_hadaptive.preparation import prepare_dataset

CLASSES = ['bolt', 'nut']
BOXES = [[5.0, 6.0, 30.0, 40.0], [20.0, 20.0, 60.0, 50.0]]


def write_images(folder, seeds):
    folder.mkdir(parents=True)
    for seed in seeds:
        image = np.random.default_rng(seed).integers(0, 256, (60, 80, 3), np.uint8)
        cv2.imwrite(str(folder / f'{seed:02}.png'), image)


def predict_folder(folder, out, *formats):
    outputs = dict(
        boxes=np.float32([BOXES]), scores=np.float32([[0.9, 0.8]]), labels=np.int64([[1, 0]])
    )
    plain = ((0.0,) * 3, (1.0,) * 3, (0.0,) * 3)
    metadata = dict(
        format='onnx',
        classes=CLASSES,
        **Preprocessing((60, 80), (60, 80), False, 'BGR', *plain).metadata(),
    )
    detector = Detector(Session(lambda inputs: outputs, 1), metadata)
    predict(detector, find_sources([str(folder)], out), out, formats)


def boxes_of(prepared, root):
    """All boxes by the names of their images, (class, x1, y1, x2, y2)."""
    found = {}
    for split in prepared.counts:
        coco = json.loads((root / f'annotations/instances_{split}.json').read_text())
        names = {category['id']: category['name'] for category in coco['categories']}
        images = {image['id']: image['file_name'] for image in coco['images']}
        found |= {name: [] for name in images.values()}
        for item in coco['annotations']:
            x, y, width, height = item['bbox']
            box = (names[item['category_id']], x, y, x + width, y + height)
            found[images[item['image_id']]].append(box)
    return found


@pytest.mark.parametrize('name', ['coco.json', 'annotations/instances_default.json'])
def test_a_corrected_coco_file_beside_the_old_one(tmp_path, name):
    write_images(tmp_path / 'data/old', range(6))
    write_images(tmp_path / 'data/new', range(10, 16))
    predict_folder(tmp_path / 'data/old', tmp_path / 'labels', 'coco')
    (tmp_path / 'labels/coco.json').rename(tmp_path / 'data/annotations.json')
    predict_folder(tmp_path / 'data/new', tmp_path / 'labels', 'coco')
    coco = json.loads((tmp_path / 'labels/coco.json').read_text())
    # One box is moved, another removed; a tool keeps what it knows, in an order of its own.
    coco['annotations'][0]['bbox'] = [7.0, 8.0, 20.0, 30.0]
    del coco['annotations'][3]
    for item in coco['annotations']:
        item.pop('score')
        item['attributes'] = dict(occluded=False)
        item['category_id'] = 3 - item['category_id']
    coco['categories'] = [dict(id=1, name='nut', supercategory=''), dict(id=2, name='bolt')]
    (tmp_path / 'data' / name).parent.mkdir(exist_ok=True)
    (tmp_path / 'data' / name).write_text(json.dumps(coco))
    prepared = prepare_dataset(tmp_path / 'data', tmp_path / 'out')
    found = boxes_of(prepared, tmp_path / 'out')
    predicted = [('nut', *BOXES[0]), ('bolt', *BOXES[1])]
    expected = {f'old/{seed:02}.png': predicted for seed in range(6)}
    expected |= {f'new/{seed}.png': predicted for seed in range(10, 16)}
    expected['new/10.png'] = [('nut', 7, 8, 27, 38), predicted[1]]
    expected['new/11.png'] = predicted[:1]
    assert found == expected


def test_yolo_files_of_predictions(tmp_path):
    write_images(tmp_path / 'data/images', range(6))
    predict_folder(tmp_path / 'data/images', tmp_path / 'data', 'yolo')
    prepared = prepare_dataset(tmp_path / 'data', tmp_path / 'out')
    assert prepared.classes == ('bolt', 'nut')
    for boxes in boxes_of(prepared, tmp_path / 'out').values():
        assert [box[0] for box in boxes] == ['nut', 'bolt']
        assert np.allclose([box[1:] for box in boxes], BOXES, atol=1e-3)
