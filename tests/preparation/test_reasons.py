"""What is not understood is named with its reason, and what misleads a detector is noticed."""

import errno
import json
import os
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from annotated_folders import put, write_flat, write_voc
from mmengine.config import Config

from mmdet_hadaptive.preparation import PreparationError, prepare, prepare_dataset
from mmdet_hadaptive.preparation.formats import read_folder
from mmdet_hadaptive.preparation.source import SourceFolder


def read(folder):
    return read_folder(SourceFolder(folder), None, ())[1]


def notes(found, words):
    return [finding for finding in found.findings if words in finding.problem]


def alter(pattern, change):
    def apply(folder):
        for path in sorted(folder.rglob(pattern)):
            put(path, change(path.read_text()))

    return apply


def scale(text):
    c, *values = text.split()
    return ' '.join([c, *(str(round(float(v) * 80)) for v in values)])


def replace_annotations(name, text):
    def apply(folder):
        for path in folder.rglob('*.xml'):
            path.unlink()
        put(folder / name, text)

    return apply


YOLO = 'p*.txt'
UNREADABLE = {
    'pixels': ('yolo', alter(YOLO, scale), r"labels/p0.txt:1: '0 24 24 32 32' counts in pixels"),
    'commas': ('yolo', alter(YOLO, lambda t: t.replace(' ', ',')), r'p0.txt:1: .* has commas'),
    'decimal commas': (
        'yolo',
        alter(YOLO, lambda t: t.replace('.', ',')),
        r'p0.txt:1: .* has decimal commas, write points',
    ),
    'names': ('yolo', alter(YOLO, lambda t: f'cat {t[2:]}'), r"'cat 0.*begins with a name"),
    'too few': ('yolo', alter(YOLO, lambda t: t[:9]), r'p0.txt:1: .* numbers, write 5'),
    'empty': ('yolo', alter(YOLO, lambda t: ''), 'all 10 text files of images are empty'),
    'CVAT': (
        'voc',
        replace_annotations('annotations.xml', '<annotations/>'),
        'annotations.xml holds <annotations>, not <annotation>',
    ),
    'LabelMe': (
        'voc',
        replace_annotations('p0.json', '{"shapes": [], "imagePath": "p0.png"}'),
        'p0.json has no images and no annotations and no categories',
    ),
    'results': ('voc', replace_annotations('a.json', '[]'), 'a.json holds a list, not a dict of'),
    'encoding': (
        'voc',
        alter('*.xml', lambda t: f'<?xml version="1.0" encoding="klingon"?>{t}'),
        r'p0.xml cannot be read as XML \(unknown encoding: klingon\)',
    ),
    'half a file': ('coco', alter('*.json', lambda t: t[:-9]), 'all.json cannot be read as JSON'),
}


@pytest.mark.parametrize('name', UNREADABLE)
def test_the_first_annotation_that_is_not_understood_is_named(tmp_path, name):
    kind, change, message = UNREADABLE[name]
    write_flat(tmp_path, kind)
    change(tmp_path)
    with pytest.raises(PreparationError, match=f'no annotations that can be read: .*{message}'):
        read(tmp_path)


UNUSABLE = {
    'decimal comma': (
        'voc',
        alter('*.xml', lambda t: t.replace('<xmin>8<', '<xmin>8,0<')),
        r"p0.xml: cat has xmin '8,0'",
    ),
    'rotated': (
        'voc',
        alter('*.xml', lambda t: t.replace('bndbox', 'robndbox')),
        'p0.xml: cat has no xmin',
    ),
    'parts of the image': (
        'voc',
        alter('*.xml', lambda t: re.sub(r'(?<=m..>)(\d+)(?=<)', r'0.\1', t)),
        r'less than one pixel inside .*cat \[0.8, 0.6, 0.4, 0.3\]',
    ),
    'all difficult': (
        'voc',
        alter('*.xml', lambda t: t.replace('<difficult>0', '<difficult>1')),
        r'training images have 8 boxes, and all are ignored \(difficult',
    ),
    'all crowds': (
        'coco',
        alter('*.json', lambda t: t.replace('"iscrowd": 0', '"iscrowd": 1')),
        r'training images have 8 boxes, and all are ignored \(difficult in Pascal VOC, iscrowd',
    ),
}


@pytest.mark.parametrize('name', UNUSABLE)
def test_boxes_that_cannot_be_used_are_not_said_to_be_absent(tmp_path, name):
    kind, change, message = UNUSABLE[name]
    write_flat(tmp_path / 'set', kind)
    change(tmp_path / 'set')
    with pytest.raises(PreparationError, match=message):
        prepare_dataset(tmp_path / 'set', tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_validation_without_a_box_that_counts(tmp_path):
    write_voc(
        tmp_path / 'set',
        {f'{split}/{i}': (80, 60, [(0, 8, 6, 40, 30)]) for split in ('train', 'val') for i in '01'},
    )
    alter('val/*.xml', lambda t: t.replace('<difficult>0', '<difficult>true'))(tmp_path / 'set')
    with pytest.raises(PreparationError, match='validation images have 2 boxes, and all are ign'):
        prepare_dataset(tmp_path / 'set', tmp_path / 'out')
    alter('*.xml', lambda t: re.sub(r'<difficult>\w+', '<difficult>Unspecified', t))(
        tmp_path / 'set'
    )
    assert prepare_dataset(tmp_path / 'set', tmp_path / 'out').counts['val'] == (2, 2)


@pytest.mark.parametrize(
    ('kind', 'change'),
    [
        (
            'voc',
            alter('*.xml', lambda t: t.replace('>8<', '>40<', 1).replace('>40</xmax', '>8</xmax')),
        ),
        ('coco', alter('*.json', lambda t: t.replace('[8, 6, 32, 24]', '[40, 6, -32, 24]'))),
    ],
)
def test_swapped_corners_are_swapped_back(tmp_path, kind, change):
    write_flat(tmp_path / 'set', kind)
    change(tmp_path / 'set')
    result = prepare_dataset(tmp_path / 'set', tmp_path / 'out')
    places = [place for f in notes(result, 'xmin > xmax') for place in f.places]
    assert len(places) == 10
    coco = json.loads((tmp_path / 'out/annotations/instances_train.json').read_text())
    assert {(*item['bbox'],) for item in coco['annotations']} == {(8, 6, 32, 24)}


def test_boxes_that_are_there_twice(tmp_path):
    write_flat(tmp_path / 'set', 'yolo')
    # Exactly, and with other digits.
    alter(YOLO, lambda t: f'{t}\n{t}\n{t[0]} 0.3001 0.2999 0.4002 0.4')(tmp_path / 'set')
    result = prepare_dataset(tmp_path / 'set', tmp_path / 'out')
    assert result.counts == dict(train=(8, 8), val=(2, 2))
    assert sum(len(f.places) for f in notes(result, 'boxes are there more than once')) == 20
    # Another class on the same place is another box.
    alter('p0.txt', lambda t: f'{t}\n1 {t.splitlines()[0][2:]}')(tmp_path / 'set')
    result = prepare_dataset(tmp_path / 'set', tmp_path / 'out2')
    assert sum(boxes for _, boxes in result.counts.values()) == 11


def test_images_of_which_no_line_can_be_read_are_no_background(tmp_path):
    write_flat(tmp_path, 'yolo')
    alter('p[0-4].txt', scale)(tmp_path)
    labeled = read(tmp_path)
    assert [image.path.stem for image in labeled.images] == [f'p{i}' for i in range(5, 10)]
    [finding] = notes(labeled, 'images have no line that can be read')
    assert len(finding.places) == 5
    [finding] = notes(labeled, 'lines are not')
    assert 'p0.txt:1: ' in finding.places[0]


def write_lists(*texts):
    def apply(folder):
        for name, text in zip(('data.yaml', 'labels/classes.txt'), texts, strict=False):
            put(folder / name, text)

    return apply


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (write_lists('names: [cat, dog, cat]'), "the class 'cat' is listed twice"),
        (write_lists('nc: 3\nnames: [cat, dog]'), r'data.yaml says nc: 3, but names 2 classes'),
        (write_lists('names: [cat, dog]', 'dog\ncat'), 'do not list the same classes'),
        (lambda folder: 'cat', "classes must be a list of names, got the text 'cat'"),
        (lambda folder: ['cat', 'dog', 'cat'], "the class 'cat' is listed twice"),
    ],
)
def test_lists_of_classes_that_do_not_agree(tmp_path, change, message):
    write_flat(tmp_path / 'set', 'yolo')
    classes = change(tmp_path / 'set') or ()
    with pytest.raises(PreparationError, match=message):
        prepare_dataset(tmp_path / 'set', tmp_path / 'out', classes=classes)
    assert not (tmp_path / 'out').exists()


def test_names_of_classes_that_differ_in_capitals(tmp_path):
    write_flat(tmp_path, 'voc')
    alter('p0.xml', lambda t: t.replace('cat', 'Cat '))(tmp_path)
    labeled = read(tmp_path)
    assert labeled.classes == ['Cat', 'cat', 'dog']
    [finding] = notes(labeled, 'names of classes differ in capitals')
    assert finding.places == ('Cat, cat',)


def test_numbered_names_are_read_by_their_numbers(tmp_path):
    write_flat(tmp_path, 'yolo')
    put(tmp_path / 'data.yaml', 'names: {1: dog, 0: cat}')
    labeled = read(tmp_path)
    assert labeled.classes == ['cat', 'dog']
    assert [image.boxes[0].name for image in labeled.images[:2]] == ['cat', 'dog']


def test_anchors_are_for_boxes_as_the_input_is_resized():
    # 160 x 40 of an image of 640 x 160 is a quarter of each side.
    coco = dict(
        images=[dict(id=1, width=640, height=160)],
        annotations=[dict(image_id=1, bbox=[320, 40, 160, 40], iscrowd=0)],
    )
    boxes = prepare._boxes_in_input(coco, height=320, width=480)
    assert boxes.tolist() == [[240, 80, 360, 160]]


def camera(folder, number):
    """One picture of a fixed camera again and again, each with its own noise."""
    write_flat(folder, 'voc', number)
    rng = np.random.default_rng(0)
    first = cv2.imread(str(folder / 'JPEGImages/p0.png')).astype(np.float32)
    for path in folder.rglob('*.png'):
        noisy = np.clip(first + rng.normal(0, 2, first.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(path), noisy)


def test_pictures_of_a_fixed_camera_are_divided(tmp_path):
    camera(tmp_path / 'set', 40)
    result = prepare_dataset(tmp_path / 'set', tmp_path / 'out')
    assert result.counts == dict(train=(32, 32), val=(8, 8))
    [finding] = notes(result, 'larger than the validation set')
    assert finding.places[0].startswith('40 images like ')
    assert not notes(result, 'nearly the same as training images')


def test_near_duplicates_can_be_ignored(tmp_path):
    camera(tmp_path / 'set', 2)
    with pytest.raises(PreparationError, match='all nearly the same'):
        prepare_dataset(tmp_path / 'set', tmp_path / 'out')
    result = prepare_dataset(tmp_path / 'set', tmp_path / 'out', group_near_duplicates=False)
    assert result.counts == dict(train=(1, 1), val=(1, 1))


@pytest.mark.parametrize('name', ['a {{ fileDirname }} {{_base_.x}}', "it's (1) $HOME {x}"])
def test_names_of_folders_stay_what_they_are(tmp_path, name):
    write_flat(tmp_path / name, 'voc')
    result = prepare_dataset(tmp_path / name, tmp_path / 'out' / name)
    config = Config.fromfile(result.config)
    assert config.data_root == f'{tmp_path / name}/'
    assert config.val_evaluator.ann_file == f'{tmp_path}/out/{name}/annotations/instances_val.json'


def test_a_folder_whose_name_is_not_in_utf8(tmp_path):
    write_flat(tmp_path / 'set', 'voc', 3)
    strange = Path(os.fsdecode(os.fsencode(tmp_path) + b'/b\xf6se'))
    (tmp_path / 'set').rename(strange)
    with pytest.raises(PreparationError, match=r"b\\udcf6se' is not in UTF-8.*: rename it"):
        prepare_dataset(strange, tmp_path / 'out')


@pytest.mark.parametrize('existed', [False, True])
def test_a_disk_that_is_full_half_way(tmp_path, monkeypatch, existed):
    write_flat(tmp_path / 'set', 'voc')
    out = tmp_path / 'out'
    if existed:
        out.mkdir()
    write_whole = prepare.write_whole

    def fill(content, path):
        if path.suffix == '.py':
            raise OSError(errno.ENOSPC, 'No space left on device', str(path))
        write_whole(content, path)

    monkeypatch.setattr(prepare, 'write_whole', fill)
    with pytest.raises(OSError, match='No space left'):
        prepare_dataset(tmp_path / 'set', out)
    assert out.exists() == existed
    monkeypatch.undo()
    assert prepare_dataset(tmp_path / 'set', out).config.is_file()
