import errno
import fcntl
import json
import multiprocessing
import os
import time

import numpy as np
import pytest
from mmdet.datasets import CocoDataset

from mmdet_hadaptive.datasets import CheckedCocoDataset, coco
from mmdet_hadaptive.datasets.shared_state import share_state


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
    return tmp_path / 'cache/mmdet_hadaptive'


def counted(log, value=0):
    def build():
        with log.open('a') as file:
            file.write('built\n')
        time.sleep(0.2)
        return dict(array=np.arange(5) + value, other=['x', value])

    return build


def ask(log, barrier, queue):
    barrier.wait()
    state = share_state('key', 'stamp', counted(log))
    queue.put((state['array'].tolist(), state['other']))


def test_processes_wait_for_the_first(tmp_path):
    log = tmp_path / 'log'
    context = multiprocessing.get_context('fork')
    queue, barrier = context.Queue(), context.Barrier(4)
    processes = [context.Process(target=ask, args=(log, barrier, queue)) for _ in range(4)]
    for process in processes:
        process.start()
    assert [queue.get(timeout=60) for _ in processes] == [([0, 1, 2, 3, 4], ['x', 0])] * 4
    for process in processes:
        process.join()
    assert log.read_text().count('built') == 1


def test_another_stamp_is_read_anew_and_old_maps_stay(tmp_path, cache):
    log = tmp_path / 'log'
    old = share_state('key', '1', counted(log))
    new = share_state('key', '2', counted(log, 10))
    assert (old['array'][0], new['array'][0]) == (0, 10)
    assert share_state('key', '2', counted(log))['other'] == ['x', 10]
    assert log.read_text().count('built') == 2
    assert not new['array'].flags.writeable
    assert cache.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize('name', ['key', 'key.array.npy'])
def test_a_damaged_file_is_written_anew(tmp_path, cache, name):
    log = tmp_path / 'log'
    share_state('key', '1', counted(log))
    (cache / name).write_bytes(b'damaged')
    assert share_state('key', '1', counted(log))['array'][1] == 1
    assert share_state('key', '1', counted(log))['array'][1] == 1
    assert log.read_text().count('built') == 2


def test_where_nothing_can_be_written(tmp_path, monkeypatch):
    (tmp_path / 'file').touch()
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'file'))
    assert share_state('key', '1', counted(tmp_path / 'log'))['other'] == ['x', 0]


CLASSES = ('cat', 'dog')


def write(folder, boxes):
    images = [dict(id=7 - i, file_name=f'{i}.jpg', width=60, height=40) for i in range(5)]
    annotations = [
        dict(id=i + 1, image_id=7 - i % 4, category_id=c, bbox=b, area=b[2] * b[3], iscrowd=i % 2)
        for i, (c, b) in enumerate(boxes)
    ]
    categories = [dict(id=3, name='dog'), dict(id=1, name='cow'), dict(id=2, name='cat')]
    content = dict(images=images, annotations=annotations, categories=categories)
    (folder / 'coco.json').write_text(json.dumps(content))
    (folder / 'images').mkdir(exist_ok=True)
    for image in images:
        (folder / 'images' / image['file_name']).touch()


BOXES = [(2, [1, 2, 30, 20]), (3, [5, 5, 8, 9]), (1, [0, 0, 9, 9]), (2, [3, 3, 0.5, 9])] * 2


def load(cls, folder, **options):
    return cls(
        ann_file=str(folder / 'coco.json'),
        data_prefix=dict(img=str(folder / 'images')),
        metainfo=dict(classes=('dog', 'cat')),
        filter_cfg=dict(filter_empty_gt=True, min_size=32),
        pipeline=[],
        **options,
    )


def test_annotations_are_those_of_mmdet(tmp_path):
    write(tmp_path, BOXES)
    theirs, ours = (load(cls, tmp_path) for cls in (CocoDataset, CheckedCocoDataset))
    assert len(ours) == len(theirs) == 3
    assert [ours[i] for i in range(3)] == [theirs[i] for i in range(3)]
    for name in ('cat_ids', 'cat2label', 'cat_img_map'):
        assert getattr(ours, name) == getattr(theirs, name), name


def test_large_annotations_are_parsed_once(tmp_path, monkeypatch, cache):
    write(tmp_path, BOXES)
    alone = load(CheckedCocoDataset, tmp_path)
    assert not cache.exists()
    monkeypatch.setattr(coco, '_SHARED_FROM', 1)
    parsed = []
    read = coco.read_coco
    monkeypatch.setattr(coco, 'read_coco', lambda *args: parsed.append(1) or read(*args))

    def same(dataset):
        assert [dataset[i] for i in range(len(dataset))] == [alone[i] for i in range(len(alone))]
        assert (dataset.cat_ids, dataset.cat_img_map) == (alone.cat_ids, alone.cat_img_map)
        assert dataset.notes == alone.notes != []
        return True

    assert same(load(CheckedCocoDataset, tmp_path))
    assert same(load(CheckedCocoDataset, tmp_path))
    assert len(parsed) == 1
    # Other options, another image folder, another file.
    assert len(load(CheckedCocoDataset, tmp_path, test_mode=True)) == 5
    assert len(parsed) == 2
    (tmp_path / 'images/more.jpg').touch()
    assert same(load(CheckedCocoDataset, tmp_path))
    assert len(parsed) == 3
    write(tmp_path, BOXES[:1])
    os.utime(tmp_path / 'coco.json', ns=(0, 0))
    assert len(load(CheckedCocoDataset, tmp_path)) == 1
    assert len(parsed) == 4
    # An image that left is an error, and it is not hidden by what was read before.
    (tmp_path / 'images/0.jpg').unlink()
    with pytest.raises(ValueError, match='image files do not exist'):
        load(CheckedCocoDataset, tmp_path)


def test_without_locks_each_process_builds_for_itself(cache, monkeypatch):
    """As on some file systems of clusters."""

    def refuse(*_):
        raise OSError(errno.ENOSYS, 'Function not implemented')

    monkeypatch.setattr(fcntl, 'flock', refuse)
    assert share_state('key', 'stamp', lambda: dict(value=3)) == dict(value=3)
    assert [path.name for path in cache.iterdir()] == ['key.lock']


def test_a_full_disk_leaves_no_half_of_an_array(tmp_path, cache, monkeypatch):
    def fill(file, array):
        file.write_bytes(b'half')
        raise OSError(errno.ENOSPC, 'No space left on device')

    monkeypatch.setattr(np, 'save', fill)
    assert share_state('key', '1', counted(tmp_path / 'log'))['other'] == ['x', 0]
    assert [path.name for path in cache.iterdir()] == ['key.lock']


def test_what_nobody_asks_for_is_removed(tmp_path, cache):
    log = tmp_path / 'log'
    for key in ('old', 'used'):
        share_state(key, '1', counted(log))
        os.utime(cache / f'{key}.lock', (0, 0))
    # It is read, and not written; so it is young again.
    share_state('used', '1', counted(log))
    share_state('new', '1', counted(log))
    assert {path.name.split('.')[0] for path in cache.iterdir()} == {'used', 'new'}
