"""YOLOv3-tiny, and the labels that it gives to photos."""

import json
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torch import nn

from research.everyday import label_photos
from research.everyday.yolov3_tiny import SIZE, YOLOv3Tiny, detect

# What the file of its authors has, without the five integers.
PARAMETERS = 8_858_734


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
    """Random positive weights."""
    file = tmp_path_factory.mktemp('yolo') / 'yolov3-tiny.weights'
    values = np.random.default_rng(0).normal(0, 0.01, PARAMETERS).astype(np.float32)
    file.write_bytes(bytes(20) + np.abs(values).tobytes())
    return file


def test_all_parameters_are_read(weights):
    net = YOLOv3Tiny(weights)
    counted = list(net.parameters())
    norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
    counted += [v for m in norms for v in (m.running_mean, m.running_var)]
    assert sum(p.numel() for p in counted) == PARAMETERS
    values = np.fromfile(weights, np.float32, offset=20)
    np.testing.assert_array_equal(net.trunk[0][1].bias, values[:16])
    np.testing.assert_array_equal(net.trunk[0][1].weight, values[16:32])
    np.testing.assert_array_equal(net.trunk[0][0].weight.flatten(), values[64:496])
    np.testing.assert_array_equal(net.head16[1].weight.flatten(), values[-255 * 256 :])
    longer = weights.with_name('longer')
    longer.write_bytes(weights.read_bytes() + bytes(4))
    with pytest.raises(ValueError, match='1 values too many'):
        YOLOv3Tiny(longer)


def test_boxes_are_where_the_cells_are(weights):
    net = YOLOv3Tiny(weights)
    for head in (net.head32, net.head16):
        head[1].weight.zero_()
        head[1].bias.zero_()
    boxes, scores = net(torch.rand(1, 3, SIZE, SIZE))
    assert boxes.shape == (1, 2535, 4)
    torch.testing.assert_close(scores, torch.full((1, 2535, 80), 0.25))
    # First anchor of stride 32: 81 x 82 pixels; the second cell of the first row.
    expected = torch.tensor([48 - 40.5, 16 - 41, 48 + 40.5, 16 + 41])
    torch.testing.assert_close(boxes[0, 1], expected)
    # First anchor of stride 16, 10 x 14 pixels; the first cell of the second row.
    expected = torch.tensor([8 - 5.0, 24 - 7, 8 + 5, 24 + 7])
    torch.testing.assert_close(boxes[0, 3 * 13 * 13 + 26], expected)


def test_the_best_of_boxes_that_overlap_is_kept_for_each_class():
    boxes = torch.tensor([[0, 0, 208, 208], [0, 0, 200, 208], [-50, 300, 104, 416]]).float()
    scores = torch.zeros(3, 80)
    scores[0, 5], scores[1, 5], scores[1, 7], scores[2, 0] = 0.8, 0.9, 0.3, 0.05
    found, kept, classes = detect(boxes, scores, 0.1, 100, 200)
    assert classes.tolist() == [5, 7]
    assert kept.tolist() == pytest.approx([0.9, 0.3])
    expected = torch.tensor([[0, 0, 200 * 200 / 416, 50.0]]).repeat(2, 1)
    torch.testing.assert_close(found, expected)
    assert not len(detect(boxes, scores, 0.95, 100, 200)[0])


def test_photos_get_sure_boxes_as_objects_and_doubtful_ones_as_crowds(tmp_path, monkeypatch):
    folder = tmp_path / 'photos'
    folder.mkdir()
    for shade in (40, 140, 240):
        cv2.imwrite(str(folder / f'{shade}.jpg'), np.full((50, 60, 3), shade, np.uint8))
    who = ['-c', 'user.name=a', '-c', 'user.email=a@b']
    bare = ['clone', '-q', '--bare', '.', str(tmp_path / 'mirrors/OWNER+NAME/repo')]
    for command in (['init', '-q'], ['add', '.'], [*who, 'commit', '-qm', 'photos'], bare):
        subprocess.run(['git', *command], cwd=folder, check=True)
    coco = tmp_path / 'coco'
    for number, split in enumerate(('train2017', 'val2017')):
        (coco / split).mkdir(parents=True)
        (coco / 'annotations').mkdir(exist_ok=True)
        cv2.imwrite(str(coco / split / 'a.jpg'), np.full((50, 60, 3), 140, np.uint8))
        part = dict(
            images=[dict(id=number, file_name='a.jpg', height=50, width=60)],
            annotations=[
                dict(
                    id=1, image_id=number, category_id=17, bbox=[5, 6, 20, 30], area=600, iscrowd=0
                )
            ],
            categories=[dict(id=17, name='cat')],
        )
        (coco / f'annotations/instances_{split}.json').write_text(json.dumps(part))

    def detector(weights):
        def find(image, low):
            shade = image.mean()
            found = [([5.0, 6.0, 20.0, 30.0], 0.9 if 100 < shade < 200 else 0.2, 15)]
            # The first lies beside the object, the second in it, the third around it.
            doubtful = ([1.0, 1.0, 9.0, 9.0], [6.0, 8.0, 10.0, 10.0], [0.0, 0.0, 50.0, 40.0])
            return found + [(box, 0.3, 0) for box in doubtful if shade < 200]

        return find

    monkeypatch.setattr(label_photos, 'Detector', detector)
    monkeypatch.setattr(label_photos, 'SOURCES', {'some': ('OWNER+NAME', 'HEAD', '')})
    monkeypatch.setattr(label_photos, '_MOST', {'some': None})
    out = tmp_path / 'out'
    arguments = ['x', tmp_path / 'mirrors', 'unused', coco, out]
    monkeypatch.setattr(sys, 'argv', [str(argument) for argument in arguments])
    label_photos.main()
    labels = json.loads((out / 'labels.json').read_text())
    assert [image['file_name'] for image in labels['images']] == ['some/1.jpg']
    assert (out / 'some/1.jpg').is_file()
    assert [(a['category_id'], a['iscrowd']) for a in labels['annotations']] == [(16, 0), (1, 1)]
    assert labels['categories'][15]['name'] == 'cat'
    truth = json.loads((out / 'coco.json').read_text())
    assert [image['file_name'] for image in truth['images']] == ['train2017/a.jpg', 'val2017/a.jpg']
    assert [a['id'] for a in truth['annotations']] == [1, 2]
    assert label_photos.measure(detector(''), truth, Path(coco)) == dict(mAP=1.0, mAP50=1.0)
