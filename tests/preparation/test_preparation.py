import json
import re
import shlex
import shutil
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from annotated_folders import (
    CLASSES,
    IMAGES,
    WRITERS,
    draw_image,
    read_back,
    write_coco,
    write_voc,
    write_yolo,
)
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pycocotools import mask as run_lengths

from mmdet_hadaptive.datasets import check_config
from mmdet_hadaptive.preparation import PreparationError, prepare_dataset, splitting
from mmdet_hadaptive.preparation.anchors import choose_anchors
from mmdet_hadaptive.preparation.recipe import Recipe
from mmdet_hadaptive.preparation.source import SourceFolder
from mmdet_hadaptive.preparation.splitting import group_near_duplicates, split_groups

TOOL = Path('tools/prepare_dataset.py').resolve()


def content(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


@pytest.mark.parametrize('name', WRITERS)
def test_formats_give_the_same(tmp_path, name):
    folder, out = tmp_path / 'pets', tmp_path / 'out'
    WRITERS[name](folder)
    before = content(folder)
    result = prepare_dataset(folder, out)
    assert content(folder) == before
    assert result.format == name
    assert result.classes == ('cat', 'dog')
    assert result.counts == dict(train=(3, 3), val=(1, 1))
    found = read_back(out, 'train') | read_back(out, 'val')
    assert found.keys() == {'a', 'b', 'c', 'd'}
    for key, (_, _, boxes) in IMAGES.items():
        expected = [(CLASSES[c], [x1, y1, x2 - x1, y2 - y1]) for c, x1, y1, x2, y2 in boxes]
        for (label, box), (label_again, box_again) in zip(
            expected, found[Path(key).name], strict=True
        ):
            assert label == label_again
            assert box == pytest.approx(box_again, abs=1e-3)


def test_the_config_gives_images_and_boxes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_voc(tmp_path / 'pets')
    result = prepare_dataset('pets', 'out')
    # Paths hold wherever the training is started.
    monkeypatch.chdir('/')
    config = Config.fromfile(tmp_path / result.config)
    init_default_scope('mmdet')
    assert config.model.bbox_head.num_classes == 2
    flips = [step for step in config.train_pipeline if step['type'] == 'RandomFlip']
    assert [step['prob'] for step in flips] == [0.5]
    loaded = config.train_dataloader.dataset
    assert loaded.dataset.pipeline[-1]['type'] == 'PackDetInputs'
    dataset = DATASETS.build(loaded)
    # The image without boxes is left out.
    assert len(dataset) == 2 * loaded.times
    assert dataset[0]['inputs'].shape == (3, 320, 320)
    validation = DATASETS.build(config.val_dataloader.dataset)
    assert validation.metainfo['classes'] == ('cat', 'dog')
    item = validation[0]['data_samples']
    assert item.gt_instances.labels.tolist() == [0]
    assert config.val_evaluator.ann_file == config.val_dataloader.dataset.ann_file


def test_small_images_are_trained_on(tmp_path):
    images = {f'{split}/0': (28, 28, [(0, 4, 4, 20, 20)]) for split in ('train', 'valid')}
    write_voc(tmp_path / 'pets', images)
    config = Config.fromfile(prepare_dataset(tmp_path / 'pets', tmp_path / 'out').config)
    init_default_scope('mmdet')
    loaded = config.train_dataloader.dataset
    assert len(DATASETS.build(loaded)) == loaded.times
    assert not [finding for *_, found in check_config(config) for finding in found]


def test_what_is_wrong_with_a_folder_is_named(tmp_path):
    folder = tmp_path / 'pets'
    images = IMAGES | {
        'train/clipped': (80, 60, [(0, -20, 10, 40, 90)]),
        'train/outside': (80, 60, [(0, 100, 10, 140, 40)]),
        'train/resized': (80, 60, [(0, 10, 10, 40, 40)]),
        'train/unsized': (80, 60, [(0, 10, 10, 40, 40)]),
        'train/broken': (80, 60, [(0, 10, 10, 40, 40)]),
        'train/alone': (80, 60, [(0, 10, 10, 40, 40)]),
        'train/nameless': (80, 60, [(0, 10, 10, 40, 40)]),
        'train/bare': (80, 60, []),
        'train/no': (80, 60, []),
    }
    write_voc(folder, images)
    draw_image(folder / 'train/resized.png', 40, 30, 9)
    for name, old, new in (
        ('unsized', '>80<', '>0<'),
        ('nameless', 'cat', ' '),
    ):
        path = folder / f'train/{name}.xml'
        path.write_text(path.read_text().replace(old, new))
    (folder / 'train/broken.png').write_bytes((folder / 'train/a.png').read_bytes()[:60])
    (folder / 'train/alone.png').unlink()
    (folder / 'train/bare.xml').unlink()
    (folder / 'train/no.xml').write_text('<annotation>')
    # An image of another format than its name says is read all the same.
    (folder / 'train/b.png').rename(folder / 'train/b.jpg')
    result = prepare_dataset(folder, tmp_path / 'out')
    lines = '\n'.join(finding.describe() for finding in result.findings)
    for pattern in (
        r'1 boxes reach beyond their image \(\S*/clipped\.png: cat \[-20\.0, 10\.0, 40.*90\.0\]\)',
        r'1 boxes have less than one pixel inside their image \(\S*/outside\.png',
        r'1 images have another size .*/resized\.png: \(40, 30\), annotated \(80, 60\)',
        r'1 annotations name no size \(\S*/unsized\.png\)',
        r'1 images are empty, truncated or no images \(\S*/broken\.png',
        r'1 annotation files have no image, or several of that name \(\S*/alone\.xml\)',
        r'1 objects have no name or no four corners \(\S*/nameless\.xml: no name\)',
        r'2 images have no annotation file \(\S*/bare\.png, \S*/no\.png\)',
        r'1 files cannot be read as XML \(\S*/no\.xml',
        r'1 images have no object that can be read \(\S*/nameless\.png\)',
    ):
        assert re.search(pattern, lines), (pattern, lines)
    found = read_back(tmp_path / 'out', 'train')
    # An image is no background because its objects cannot be read.
    assert found.keys() == {'a', 'b', 'c', 'clipped', 'outside', 'unsized'}
    assert found['clipped'] == [('cat', [0, 10, 40, 50])]
    assert found['outside'] == []


def test_difficult_objects_are_ignored(tmp_path):
    write_voc(tmp_path / 'pets')
    path = tmp_path / 'pets/train/a.xml'
    path.write_text(path.read_text().replace('<difficult>0', '<difficult>1', 1))
    prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    coco = json.loads((tmp_path / 'out/annotations/instances_train.json').read_text())
    assert [item['iscrowd'] for item in coco['annotations']] == [1, 0, 0]


def test_images_that_no_folder_splits(tmp_path):
    rng = np.random.default_rng(0)
    images = {f'all/{i}': (80, 60, [(0, 10, 10, 40, 40)]) for i in range(20)}
    write_voc(tmp_path / 'pets', images)
    # The same picture, brighter and compressed: on one side with its original.
    for i in range(5):
        pixels = cv2.imread(str(tmp_path / f'pets/all/{i}.png'))
        noisy = np.clip(pixels * 0.9 + 10 + rng.normal(0, 1, pixels.shape), 0, 255)
        cv2.imwrite(str(tmp_path / f'pets/all/copy{i}.jpg'), noisy, [cv2.IMWRITE_JPEG_QUALITY, 80])
        shutil.copy(tmp_path / f'pets/all/{i}.xml', tmp_path / f'pets/all/copy{i}.xml')
    chosen = {}
    for seed in (0, 0, 1):
        out = tmp_path / f'out{len(chosen)}{seed}'
        result = prepare_dataset(tmp_path / 'pets', out, val_fraction=0.3, seed=seed)
        assert 5 <= result.counts['val'][0] <= 7
        assert result.counts['train'][0] + result.counts['val'][0] == 25
        names = set(read_back(out, 'val'))
        assert all((str(i) in names) == (f'copy{i}' in names) for i in range(5))
        assert chosen.setdefault(seed, names) == names
    assert chosen[0] != chosen[1]


def test_leaks_between_given_splits_are_named(tmp_path):
    write_voc(tmp_path / 'pets')
    for suffix in ('png', 'xml'):
        shutil.copy(tmp_path / f'pets/train/a.{suffix}', tmp_path / f'pets/valid/e.{suffix}')
    findings = prepare_dataset(tmp_path / 'pets', tmp_path / 'out').findings
    [finding] = [f for f in findings if 'nearly the same' in f.problem]
    assert [place.split('/')[-1] for place in finding.places] == ['a.png']
    assert '/valid/e.png like ' in finding.places[0]


def test_test_images_are_validated_on_only_if_there_are_no_others(tmp_path):
    write_yolo(tmp_path / 'pets')
    (tmp_path / 'pets/data.yaml').write_text('names: {0: cat, 1: dog}')
    (tmp_path / 'pets/valid').rename(tmp_path / 'pets/test')
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    assert result.counts == dict(train=(3, 3), val=(1, 1))
    shutil.copytree(tmp_path / 'pets/test', tmp_path / 'pets/validation')
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out2')
    assert result.counts == dict(train=(3, 3), val=(1, 1), test=(1, 1))
    config = Config.fromfile(result.config)
    assert config.test_dataloader.dataset.ann_file.endswith('instances_test.json')
    assert config.test_evaluator.ann_file.endswith('instances_test.json')


def test_yolo_lines(tmp_path):
    write_yolo(tmp_path / 'pets')
    label = tmp_path / 'pets/train/labels/c.txt'
    # A polygon, a box with a confidence, and what is neither.
    label.write_text(
        '1 0.1 0.2 0.5 0.2 0.5 0.6\n0 0.5 0.5 0.2 0.4 0.9\n\n0 0.5 0.5\nx 0 0 1 1\n0 0.5 nan 1 1\n'
    )
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    found = read_back(tmp_path / 'out', 'train')['c']
    assert [name for name, _ in found] == ['dog', 'cat']
    assert np.allclose([box for _, box in found], [[10, 10, 40, 20], [40, 15, 20, 20]], atol=1e-3)
    [finding] = [f for f in result.findings if 'polygon' in f.problem]
    assert [place.split(':')[1] for place in finding.places] == ['4', '5', '6']


def test_yolo_lists_of_images(tmp_path):
    folder = tmp_path / 'pets'
    images = {f'all/{Path(name).name}': image for name, image in IMAGES.items()}
    write_yolo(folder, images | {'other/b': IMAGES['train/c']})
    (folder / 'data.yaml').write_text('train: train.txt\nval: val.txt\nnames: [cat, dog]\n')
    # As darknet, Ultralytics and tools on Windows write them.
    (folder / 'train.txt').write_text('/elsewhere/a.png\n\n./all/images/b.png\n')
    (folder / 'val.txt').write_text('all\\images\\d.png\nall/images/gone.png\n')
    result = prepare_dataset(folder, tmp_path / 'out')
    # What no list names is trained on.
    assert read_back(tmp_path / 'out', 'train').keys() == {'a', 'b', 'c'}
    assert read_back(tmp_path / 'out', 'val').keys() == {'d'}
    [finding] = [f for f in result.findings if 'lists' in f.problem]
    assert finding.places == (f'{folder}/val.txt:2: all/images/gone.png',)


def test_coco_without_what_some_tools_leave_out(tmp_path):
    folder = tmp_path / 'pets'
    write_coco(folder)
    for path in folder.rglob('*.json'):
        coco = json.loads(path.read_text())
        for item in coco['annotations']:
            del item['iscrowd'], item['area'], item['id']
            if item['category_id']:
                x, y, width, height = item.pop('bbox')
                item['segmentation'] = [
                    [x, y, x + width, y, x, y + 1],
                    [x, y + height, x + width, y + height, x, y],
                ]
        path.write_text(json.dumps(coco))
    prepare_dataset(folder, tmp_path / 'out')
    written = json.loads((tmp_path / 'out/annotations/instances_train.json').read_text())
    assert [(a['area'], a['iscrowd']) for a in written['annotations']] == [
        (a['bbox'][2] * a['bbox'][3], 0) for a in written['annotations']
    ]
    assert [a['bbox'] for a in written['annotations']] == [
        [x1, y1, x2 - x1, y2 - y1]
        for name, (*_, boxes) in IMAGES.items()
        if 'train' in name
        for _, x1, y1, x2, y2 in boxes
    ]


@pytest.mark.parametrize('is_packed', [False, True])
def test_coco_with_masks_in_place_of_boxes(tmp_path, is_packed):
    folder = tmp_path / 'pets'
    write_coco(folder)
    boxes = []
    for path in folder.rglob('*.json'):
        coco = json.loads(path.read_text())
        sizes = {item['id']: (item['height'], item['width']) for item in coco['images']}
        for item in coco['annotations']:
            x, y, width, height = map(int, item.pop('bbox'))
            boxes.append([x, y, width, height])
            pixels = np.zeros(sizes[item['image_id']], np.uint8, order='F')
            pixels[y : y + height, x : x + width] = 1
            mask = run_lengths.encode(pixels)
            flat = np.flatnonzero(np.diff(pixels.ravel('F'), prepend=0, append=0).astype(bool))
            counts = np.diff(flat, prepend=0, append=pixels.size).tolist()
            item['segmentation'] = {
                'size': mask['size'],
                'counts': mask['counts'].decode() if is_packed else counts,
            }
        path.write_text(json.dumps(coco))
    prepare_dataset(folder, tmp_path / 'out')
    written = [
        item['bbox']
        for path in (tmp_path / 'out/annotations').iterdir()
        for item in json.loads(path.read_text())['annotations']
    ]
    assert sorted(written) == sorted(boxes)


@pytest.mark.parametrize(
    'mask',
    [
        dict(size=[10, 20], counts=['a']),
        dict(size=[10, 20], counts=[-5]),
        dict(size=[10, 20], counts=5),
        dict(size=[0, 20], counts='11'),
        # The last number goes on, behind the text or behind a zero character.
        dict(size=[10, 20], counts='555P'),
        dict(size=[10, 20], counts='555P\0555'),
        dict(size=['a', 20], counts='11'),
        dict(counts='11'),
    ],
)
def test_a_mask_that_is_none_is_refused(tmp_path, mask):
    folder = tmp_path / 'pets'
    write_coco(folder)
    path = next(folder.rglob('*.json'))
    coco = json.loads(path.read_text())
    del coco['annotations'][0]['bbox']
    coco['annotations'][0]['segmentation'] = mask
    path.write_text(json.dumps(coco))
    with pytest.raises(PreparationError, match='bbox'):
        prepare_dataset(folder, tmp_path / 'out')


def test_order_of_the_classes(tmp_path):
    write_voc(tmp_path / 'pets')
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out', classes=['dog', 'bird', 'cat'])
    assert result.classes == ('dog', 'bird', 'cat')


def spoil_nothing(folder):
    pass


def remove_names(folder):
    write_yolo(folder)
    (folder / 'data.yaml').unlink()


def add_class(folder):
    write_yolo(folder)
    (folder / 'train/labels/a.txt').write_text('7 0.5 0.5 0.1 0.1')


def write_two_formats(folder):
    write_voc(folder)
    write_coco(folder)


def write_images_only(folder):
    draw_image(folder / 'a.png', 80, 60, 0)


def write_no_boxes(folder):
    write_voc(folder, {name: (w, h, []) for name, (w, h, _) in IMAGES.items()})


def write_bad_coco(folder):
    write_coco(folder)
    path = folder / 'train/_annotations.coco.json'
    path.write_text(path.read_text().replace('"category_id": 1', '"category_id": 5'))


def write_one_image(folder):
    write_voc(folder, {'all/a': IMAGES['train/a']})


def write_one_image_twice(folder):
    write_voc(folder, {'all/a': IMAGES['train/a'], 'all/b': IMAGES['train/a']})
    shutil.copy(folder / 'all/a.png', folder / 'all/b.png')


def write_validation_only(folder):
    write_voc(folder, {'valid/d': IMAGES['valid/d']})


def write_coco_twice(folder):
    write_coco(folder)
    shutil.copy(folder / 'train/_annotations.coco.json', folder / 'train/again.json')


@pytest.mark.parametrize(
    ('write', 'options', 'message'),
    [
        (spoil_nothing, {}, 'is no folder: name the one with images'),
        (Path.mkdir, {}, r'has no images .*it is empty.*: name the folder that they are in'),
        (write_images_only, {}, 'has 1 images, but neither Pascal VOC XML nor YOLO'),
        (write_two_formats, {}, 'the formats voc, coco: choose one with --format'),
        (remove_names, {}, 'name them with --classes, in the order of their numbers'),
        (add_class, {}, r"1 lines have a class .* first .*/a\.txt:1: class 7; known are \['cat'"),
        (write_no_boxes, {}, 'have no boxes, the first is train/a.png: nothing to learn'),
        (write_bad_coco, {}, 'annotations have a category_id that does not exist'),
        (write_one_image, {}, r'1 image\(s\), all nearly the same, cannot be divided'),
        (write_one_image_twice, {}, r'2 image\(s\), .* or put some into a folder val'),
        (write_validation_only, {}, 'there are no training images, only val'),
        (write_coco_twice, {}, '3 images are annotated more than once, the first is .*a.png'),
        (
            write_voc,
            dict(annotation_format='voc2'),
            "annotation_format must be one of voc, yolo, coco, got 'voc2'",
        ),
        (write_voc, dict(val_fraction=1), 'val_fraction must be between 0 and 1, got 1'),
        (write_voc, dict(classes=['cat']), r"the classes \['dog'\] are not among those named"),
    ],
)
def test_refused_before_anything_is_written(tmp_path, write, options, message):
    folder, out = tmp_path / 'pets', tmp_path / 'out'
    write(folder)
    with pytest.raises(PreparationError, match=message):
        prepare_dataset(folder, out, **options)
    assert not out.exists()


def test_nothing_is_overwritten(tmp_path):
    write_voc(tmp_path / 'pets')
    before = content(tmp_path)
    with pytest.raises(PreparationError, match='exists and is not empty: remove it or name'):
        prepare_dataset(tmp_path / 'pets', tmp_path / 'pets')
    assert content(tmp_path) == before


def test_width_and_height_are_those_of_the_image(tmp_path):
    write_voc(
        tmp_path / 'pets',
        {f'{split}/0': (80, 48, [(0, 8, 8, 40, 40)]) for split in ('train', 'valid')},
    )
    prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    (image,) = json.loads((tmp_path / 'out/annotations/instances_train.json').read_text())['images']
    assert (image['width'], image['height']) == (80, 48)


def test_of_many_boxes_those_of_all_images_choose_the_anchors():
    generator = Recipe().template().model.bbox_head.anchor_generator
    small, large = torch.tensor([[0.0, 0, 2, 2]]), torch.tensor([[60.0, 60, 260, 260]])
    boxes = torch.cat([small.repeat(2_000, 1), large.repeat(6_000, 1)])
    _, own = choose_anchors(boxes, generator, (320, 320))
    assert own.share == pytest.approx(0.75)


def test_anchors_follow_the_boxes(tmp_path):
    # 12 x 12 pixels of the 320 x 320 input, of which the template's smallest anchor is far.
    images = {
        f'{split}/{i}': (640, 640, [(0, x, x, x + 24, x + 24) for x in (100, 300, 500)])
        for split, i in (('train', 0), ('train', 1), ('valid', 2))
    }
    write_voc(tmp_path / 'pets', images)
    result = prepare_dataset(tmp_path / 'pets', tmp_path / 'out')
    assert result.default_anchors.share == 0
    assert result.anchors.min_sizes[0] <= 14
    generator = Config.fromfile(result.config).model.bbox_head.anchor_generator
    assert (*generator.min_sizes,) == result.anchors.min_sizes
    assert (*generator.max_sizes,) == result.anchors.max_sizes


def test_boxes_that_no_anchor_reaches_are_named(tmp_path):
    images = {f'{split}/0': (640, 640, [(0, 10, 10, 630, 20)]) for split in ('train', 'valid')}
    write_voc(tmp_path / 'pets', images)
    findings = prepare_dataset(tmp_path / 'pets', tmp_path / 'out').findings
    [finding] = [f for f in findings if 'overlap with no anchor' in f.problem]
    assert '100% of the training boxes' in finding.problem
    assert '310 x 5 pixels of the 320 x 320 input' in finding.problem


def test_near_duplicates_are_like_the_first_of_their_group():
    # The third is like the second, and not like the first.
    assert group_near_duplicates([0, 0b111, 0b111111, 0xF << 40, 0]) == [[0, 1, 4], [2], [3]]
    # One bit too many, in each of the words.
    assert group_near_duplicates([0, sum(1 << (16 * i) for i in range(4))]) == [[0], [1]]


def test_the_time_for_near_duplicates_rises_with_their_number(monkeypatch):
    # All share three of four words, and none is like another: 200,000,000 comparisons in pairs.
    monkeypatch.setattr(splitting, '_COMPARED', 8)
    fingerprints = [
        int(f'{i:016b}'.replace('0', '01').replace('1', '10'), 2) for i in range(20_000)
    ]
    start = time.process_time()
    groups = group_near_duplicates([value << 16 | 0xFFFF for value in fingerprints])
    assert time.process_time() - start < 5
    assert sum(map(len, groups)) == 20_000


def test_division_keeps_groups_whole():
    groups = [[0, 1, 2, 3, 4, 5], [6], [7], [8], [9]]
    for seed in range(5):
        chosen = split_groups(groups, 0.2, seed)
        assert len(chosen) == 2
        assert not chosen & {0, 1, 2, 3, 4, 5}
    assert split_groups([[0, 1], [2, 3, 4]], 0.01, 0) == {0, 1}


def make_source(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return SourceFolder(root)


def test_the_nearest_image_is_meant(tmp_path):
    paths = ['train/images/1.jpg', 'valid/images/1.jpg', 'valid/2.jpg']
    source = make_source(tmp_path, *paths)

    def find(annotation, *args, **options):
        found = source.find(tmp_path / annotation, *args, **options)
        return found and found.relative_to(tmp_path).as_posix()

    assert find('valid/annots/1.xml') == paths[1]
    assert find('annots/1.xml') is None
    assert find('val.json', '1.jpg', split='val') == paths[1]
    assert find('test.json', '1.jpg', split='test') is None
    assert find('annots/2.xml') == paths[2]
    assert find('all.json', 'valid/images/1.jpg') == paths[1]
    assert source.split_of(tmp_path / 'train2017/val/1.jpg') == 'train'
    assert source.split_of(tmp_path / 'images/trainee/1.jpg') is None


def test_the_tool(tmp_path, run_warm):
    write_voc(tmp_path / 'pets (1)')
    output = run_warm(TOOL, tmp_path / 'pets (1)', cwd=tmp_path)
    assert 'voc, classes cat, dog' in output
    assert 'train: 3 images, 3 boxes\nval: 1 images, 1 boxes\n' in output
    # MMEngine prints lines for each weight if the optimizer has options for some of them.
    assert 'paramwise_options' not in output
    # The shell takes them as they are printed.
    train, test = (shlex.split(line) for line in output.splitlines()[-2:])
    config = 'pets (1)_prepared/pets (1)_prepared.py'
    assert train == ['python', 'tools/train.py', config]
    last = Config.fromfile(tmp_path / config).train_cfg.max_epochs
    checkpoint = f'work_dirs/pets (1)_prepared/epoch_{last}.pth'
    assert test[:4] == ['python', 'tools/test.py', config, checkpoint]
    output = run_warm(TOOL, tmp_path / 'no', cwd=tmp_path, code=1)
    assert 'nothing is prepared: ' in output
    assert 'Traceback' not in output
