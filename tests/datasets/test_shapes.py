import hashlib
import json

import cv2
import numpy as np
import pytest
from coco_check import check_coco

from mmdet_hadaptive.datasets import SHAPE_CLASSES, draw_shapes, make_shapes


def test_the_same_on_every_machine():
    digest = hashlib.sha256()
    for index in range(20):
        image, objects = draw_shapes(3, 'train', index)
        digest.update(image.tobytes())
        digest.update(json.dumps(objects).encode())
    assert digest.hexdigest() == '66066e967cdf2b338c27d16f1e9b38a3e92dc5750aa8d07faaa9ba41d3493a0f'


def test_images_differ_by_seed_split_and_index():
    images = [draw_shapes(*key)[0] for key in ((0, 'train', 0), (1, 'train', 0), (0, 'val', 0))]
    images.append(draw_shapes(0, 'train', 1)[0])
    assert len({image.tobytes() for image in images}) == 4


def test_the_set_is_varied():
    drawn = [draw_shapes(0, 'train', index) for index in range(100)]
    objects = [item for _, items in drawn for item in items]
    sizes = np.sqrt([item['bbox'][2] * item['bbox'][3] for item in objects])
    assert {item['label'] for item in objects} == set(range(len(SHAPE_CLASSES)))
    # Small, medium and large in COCO's sense.
    assert (sizes < 32).mean() > 0.2
    assert ((sizes >= 32) & (sizes < 96)).mean() > 0.3
    assert (sizes >= 96).mean() > 0.05
    boxes = np.array([item['bbox'] for item in objects])
    assert (boxes[:, :2] >= 0).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= 256).all()
    assert (boxes[:, 0] == 0).any(), 'some objects leave the image'
    overlaps = 0
    for _, items in drawn:
        for i, a in enumerate(items):
            for b in items[i + 1 :]:
                (ax, ay, aw, ah), (bx, by, bw, bh) = a['bbox'], b['bbox']
                overlaps += ax < bx + bw and bx < ax + aw and ay < by + bh and by < ay + ah
    assert overlaps > 20


def test_box_and_area_fit_the_drawn_pixels(monkeypatch):
    from mmdet_hadaptive.datasets import shapes

    image, objects = draw_shapes(0, 'train', 0)
    # Without objects the random stream starts alike, so that the background is the same.
    monkeypatch.setattr(shapes, '_MIN_RADIUS', 1000)
    background, none = draw_shapes(0, 'train', 0)
    assert none == []
    drawn = (image != background).any(2)
    covered = np.zeros_like(drawn)
    for item in objects:
        x, y, w, h = item['bbox']
        covered[y : y + h, x : x + w] = True
        assert 0 < item['area'] <= w * h
    assert drawn.any()
    assert not (drawn & ~covered).any()


def test_written_set_is_valid_coco(tmp_path):
    root = make_shapes(tmp_path / 'shapes', 3, 2, seed=5)
    for split, count in (('train', 3), ('val', 2)):
        file = root / 'annotations' / f'instances_{split}.json'
        assert check_coco(file, root / split, SHAPE_CLASSES, read_images=True) == []
        assert len(json.loads(file.read_text())['images']) == count
    stored = cv2.imread(str(root / 'val' / '000001.png'))
    assert np.array_equal(stored, draw_shapes(5, 'val', 1)[0])


def test_second_call_keeps_the_files(tmp_path):
    root = make_shapes(tmp_path / 'shapes', 2, 1)
    before = {path: path.stat().st_mtime_ns for path in root.rglob('*')}
    make_shapes(root, 2, 1)
    assert {path: path.stat().st_mtime_ns for path in root.rglob('*')} == before


def test_interrupted_drawing_leaves_nothing_half(tmp_path, monkeypatch):
    from mmdet_hadaptive.datasets import shapes

    def interrupted(seed, split, index):
        if split == 'val':
            raise KeyboardInterrupt
        return draw_shapes(seed, split, index)

    monkeypatch.setattr(shapes, 'draw_shapes', interrupted)
    with pytest.raises(KeyboardInterrupt):
        make_shapes(tmp_path / 'shapes', 2, 1)
    assert not (tmp_path / 'shapes').exists()
    monkeypatch.undo()
    make_shapes(tmp_path / 'shapes', 2, 1)
    assert {path.name for path in tmp_path.iterdir()} == {'shapes'}


@pytest.mark.parametrize('seed', [0, 1])
def test_two_processes_that_draw_at_once(tmp_path, monkeypatch, seed):
    from mmdet_hadaptive.datasets import shapes

    root = tmp_path / 'shapes'
    write_split = shapes._write_split

    def meanwhile(partial, split, *args):
        # The other begins later, and is done first.
        if split == 'val':
            monkeypatch.undo()
            make_shapes(root, 2, 1, seed=seed)
        write_split(partial, split, *args)

    monkeypatch.setattr(shapes, '_write_split', meanwhile)
    if seed:
        with pytest.raises(OSError, match='not empty'):
            make_shapes(root, 2, 1)
    else:
        assert make_shapes(root, 2, 1) == root
    assert {path.name for path in tmp_path.iterdir()} == {'shapes'}
    assert make_shapes(root, 2, 1, seed=seed) == root


def test_another_data_set_is_not_overwritten(tmp_path):
    make_shapes(tmp_path / 'shapes', 2, 1)
    with pytest.raises(FileExistsError, match='remove it or choose another folder'):
        make_shapes(tmp_path / 'shapes', 2, 1, seed=1)


@pytest.mark.parametrize(('name', 'value'), [('num_train', 0), ('num_val', -1), ('seed', -1)])
def test_wrong_numbers(tmp_path, name, value):
    arguments = {**dict(num_train=1, num_val=1, seed=0), name: value}
    with pytest.raises(ValueError, match=f'{name} must be at least ., got {value}'):
        make_shapes(tmp_path / 'shapes', **arguments)


def test_wrong_split():
    with pytest.raises(ValueError, match="'train' or 'val', got 'test'"):
        draw_shapes(0, 'test', 0)
