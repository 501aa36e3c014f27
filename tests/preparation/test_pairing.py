"""Which files are read, and which image an annotation is about."""

import json
import os
import shutil
import unicodedata

import cv2
import numpy as np
import pytest
from annotated_folders import draw_image, put, write_flat, write_yolo

from mmdet_hadaptive.preparation import PreparationError, prepare_dataset
from mmdet_hadaptive.preparation.formats import read_folder
from mmdet_hadaptive.preparation.source import SourceFolder


def read(folder):
    return read_folder(SourceFolder(folder), None, ())[1]


def notes(labeled, words):
    return [finding for finding in labeled.findings if words in finding.problem]


def names(labeled):
    return sorted(image.path.name for image in labeled.images)


@pytest.mark.parametrize('kind', ['voc', 'yolo', 'coco'])
def test_what_programs_hide_is_passed_over(tmp_path, kind):
    write_flat(tmp_path, kind, 3)
    kept = names(read(tmp_path))
    copy = tmp_path.parent / f'{tmp_path.name}_copy'
    shutil.copytree(tmp_path, copy)
    for name in ('.ipynb_checkpoints', '__MACOSX', '@eaDir', '.Trash-1000'):
        shutil.copytree(copy, tmp_path / name)
    for path in [*tmp_path.rglob('*')]:
        if path.is_file():
            (path.parent / f'._{path.name}').write_bytes(b'\0\5\x16\7Mac OS X\xb0')
    assert names(read(tmp_path)) == kept
    # A folder that somebody names is none of them.
    copy = copy.rename(tmp_path.parent / f'.{kind}')
    assert names(read(copy)) == kept


def test_yaml_files_of_others(tmp_path):
    write_flat(tmp_path, 'yolo', 3)
    for name, text in (
        ('broken.yaml', 'a: [\n'),
        ('two.yml', 'a: 1\n---\nb: 2\n'),
        ('ci.yaml', 'names: {push: x}\n'),
        ('jobs.yaml', 'names: [{push: x}]\n'),
        ('meta.yaml', 'created: 2024-02-30\n'),
    ):
        put(tmp_path / name, text)
    (tmp_path / 'latin.yaml').write_bytes(b'names: [b\xf6se]')
    labeled = read(tmp_path)
    assert labeled.classes == ['cat', 'dog']
    [finding] = notes(labeled, 'YAML files do not describe a data set')
    assert len(finding.places) == 6
    # Where one of them should have named the classes, the error says so.
    (tmp_path / 'data.yaml').unlink()
    with pytest.raises(PreparationError, match=r'are called.*broken.yaml: while parsing'):
        read(tmp_path)


@pytest.mark.parametrize('place', ['0.8', 'true', '{images: a, labels: b}'])
def test_places_in_a_yaml_file_that_are_none(tmp_path, place):
    write_flat(tmp_path, 'yolo', 3)
    put(tmp_path / 'data.yaml', f'names: [cat, dog]\ntrain: {place}\n')
    labeled = read(tmp_path)
    assert len(labeled.images) == 3
    [finding] = notes(labeled, 'folders or lists of images that the description names')
    assert f'{tmp_path}/data.yaml: train: ' in finding.places[0]


def move(folder, pattern, rename):
    for path in sorted(folder.rglob(pattern)):
        path.rename(path.with_name(rename(path)))


def number_xml(folder):
    for path in folder.rglob('*.xml'):
        put(path, path.read_text().replace('elsewhere.jpg', f'{path.stem}.png'))
    move(folder, '*.xml', lambda path: f'00{path.name}')


def encode_names(folder):
    move(folder, '*.png', lambda path: f'my {path.name}')
    for path in folder.rglob('*.xml'):
        put(path, path.read_text().replace('elsewhere.jpg', f'my%20{path.stem}.png'))
    move(folder, '*.xml', lambda path: f'00{path.name}')


def write_capitals(folder):
    move(folder, '*.png', lambda path: path.name.upper())
    move(folder, '*.xml', lambda path: f'{path.stem}.XML')


def decompose_accents(folder):
    # As a Mac stores what others compose.
    move(folder, '*.png', lambda path: unicodedata.normalize('NFD', 'é') + path.name)
    move(folder, '*.xml', lambda path: unicodedata.normalize('NFC', 'é') + path.name)


def change_suffix(folder):
    for path in folder.rglob('*.png'):
        path.rename(path.with_suffix('.jpg_large'))


@pytest.mark.parametrize(
    'change', [number_xml, encode_names, write_capitals, decompose_accents, change_suffix]
)
def test_an_annotation_finds_its_image(tmp_path, change):
    write_flat(tmp_path, 'voc', 3)
    change(tmp_path)
    labeled = read(tmp_path)
    assert [len(image.boxes) for image in labeled.images] == [1, 1, 1]
    assert labeled.findings == []


def test_coco_names_images_as_servers_do(tmp_path):
    write_flat(tmp_path, 'coco', 3)
    text = (tmp_path / 'all.json').read_text()
    put(tmp_path / 'all.json', text.replace('"p', '"/data/local-files/?d=images/p'))
    assert names(read(tmp_path)) == ['p0.png', 'p1.png', 'p2.png']


@pytest.mark.parametrize('kind', ['voc', 'yolo', 'coco'])
def test_an_image_that_nobody_reads_is_named(tmp_path, kind):
    write_flat(tmp_path, kind, 3)
    for path in tmp_path.rglob('p0.png'):
        path.unlink()
        path.with_suffix('.heic').write_bytes(b'what nobody reads')
    labeled = read(tmp_path)
    assert names(labeled) == ['p1.png', 'p2.png']
    assert any('p0.heic cannot be read' in place for f in labeled.findings for place in f.places)
    for path in tmp_path.rglob('*.png'):
        path.unlink()
    with pytest.raises(PreparationError, match=r'no images that can be read .*1 \.heic.*\.jpg'):
        read(tmp_path)


def test_an_annotation_that_names_another_image(tmp_path):
    write_flat(tmp_path, 'voc', 3)
    path = tmp_path / 'Annotations/p0.xml'
    put(path, path.read_text().replace('elsewhere.jpg', 'p1.png'))
    labeled = read(tmp_path)
    assert names(labeled) == ['p0.png', 'p1.png', 'p2.png']
    [finding] = notes(labeled, 'name another image')
    assert finding.places == (f'{path}: p1.png',)


@pytest.mark.parametrize('place', ['beside', 'folder'])
def test_masks_are_no_photos_without_objects(tmp_path, place):
    write_flat(tmp_path, 'yolo', 3)
    for image in sorted(tmp_path.rglob('*.png')):
        if place == 'beside':
            cv2.imwrite(str(image.with_suffix('.jpg')), cv2.imread(str(image)))
        else:
            draw_image(tmp_path / 'masks' / image.name, 80, 60, 9)
    # A photo without objects has a name of its own.
    draw_image(tmp_path / 'images/empty.png', 80, 60, 10)
    labeled = read(tmp_path)
    suffix = 'jpg' if place == 'beside' else 'png'
    assert names(labeled) == ['empty.png', *(f'p{i}.{suffix}' for i in range(3))]
    assert all('masks' not in image.path.parts for image in labeled.images)
    [finding] = notes(labeled, 'the name of one that has')
    assert len(finding.places) == 3


def test_images_without_objects_that_are_numbered_anew_in_each_split(tmp_path):
    write_yolo(
        tmp_path, {f'{split}/1': (80, 60, [(0, 8, 6, 40, 30)]) for split in ('train', 'val')}
    )
    (tmp_path / 'val/labels/1.txt').unlink()
    assert [len(image.boxes) for image in read(tmp_path).images] == [1, 0]


def rename_folders(folder):
    (folder / 'images').rename(folder / 'photos')
    (folder / 'labels').rename(folder / 'boxes')


def add_suffix(folder):
    move(folder, 'p*.txt', lambda path: f'{path.stem}.png.txt')


def write_txt_capitals(folder):
    move(folder, 'p*.txt', lambda path: f'{path.stem}.TXT')


def write_utf16(folder):
    for path in folder.rglob('p*.txt'):
        path.write_text(path.read_text(), encoding='utf-16')


@pytest.mark.parametrize('change', [rename_folders, add_suffix, write_txt_capitals, write_utf16])
def test_a_text_file_finds_its_image(tmp_path, change):
    write_flat(tmp_path, 'yolo', 3)
    change(tmp_path)
    labeled = read(tmp_path)
    assert [len(image.boxes) for image in labeled.images] == [1, 1, 1]
    assert labeled.findings == []


def test_folders_of_cameras(tmp_path):
    for camera, size in (('cam1', 80), ('cam2', 40)):
        write_flat(tmp_path / camera, 'voc', 2)
        for path in (tmp_path / camera).rglob('*.xml'):
            put(path, path.read_text().replace('<width>80', f'<width>{size}'))
        for kind in ('JPEGImages', 'Annotations'):
            (tmp_path / kind).mkdir(exist_ok=True)
            (tmp_path / camera / kind).rename(tmp_path / kind / camera)
    found = {image.path.parent.name: image.size for image in read(tmp_path).images}
    assert found == dict(cam1=(80, 60), cam2=(40, 60))


def write_cameras(folder, images, labels):
    """Images of one size and text files; those in cam1 are about the class 0, others about 1."""
    for name in images:
        draw_image(folder / name, 80, 60, len(name))
    for name in labels:
        put(folder / name, f'{int("cam1" not in name)} .5 .5 .4 .4')
    put(folder / 'data.yaml', 'names: [cat, dog]\n')


@pytest.mark.parametrize(
    ('images', 'labels', 'alone'),
    [
        # The images of cam1 are not there; those of cam2 without objects have no text file.
        (
            ['images/cam2/0.jpg', 'images/cam2/1.jpg'],
            ['labels/cam1/0.txt', 'labels/cam1/1.txt', 'labels/cam2/0.txt'],
            ['labels/cam1/0.txt', 'labels/cam1/1.txt'],
        ),
        (['x.jpg'], ['x.cam1.txt', 'x.txt'], ['x.cam1.txt']),
        (['images/x.jpg'], ['cam1/pre/labels/x.txt', 'labels/x.txt'], ['cam1/pre/labels/x.txt']),
    ],
)
def test_an_image_has_the_nearest_text_file(tmp_path, images, labels, alone):
    write_cameras(tmp_path, images, labels)
    labeled = read(tmp_path)
    assert [box.name for image in labeled.images for box in image.boxes] == ['dog']
    [finding] = notes(labeled, 'text files have no image, or several')
    assert finding.places == tuple(f'{tmp_path}/{name}' for name in alone)


def test_an_image_with_two_text_files_that_are_as_near(tmp_path):
    write_cameras(tmp_path / 'set', ['images/x.jpg'], ['ann/x.txt', 'ben/x.txt'])
    message = r'x.jpg, in .*/ann/x.txt and .*/ben/x.txt: name a folder with one set'
    with pytest.raises(PreparationError, match=message):
        prepare_dataset(tmp_path / 'set', tmp_path / 'out')


def test_a_text_file_in_another_folder_is_named(tmp_path):
    write_cameras(tmp_path, ['images/cam2/0.jpg'], ['labels/cam1/0.txt'])
    [finding] = notes(read(tmp_path), 'in another folder')
    assert finding.places == (f'{tmp_path}/images/cam2/0.jpg: {tmp_path}/labels/cam1/0.txt',)


def lose_camera(folder, kind, listed):
    """Of the cameras whose pictures are annotated, only those of cam2 are there: 0, 1 and 2.

    The annotations of cam1 are of 0 and 1, those of cam2 of 0 and 2.
    """
    annotated = [f'{camera}/{i}' for camera in listed for i in ('01' if camera == 'cam1' else '02')]
    for i in range(3):
        draw_image(folder / f'JPEGImages/cam2/{i}.jpg', 80, 60, i)
    if kind == 'coco':
        images = [
            dict(id=i, file_name=f'{name}.jpg', width=80, height=60)
            for i, name in enumerate(annotated)
        ]
        boxes = [
            dict(id=i, image_id=i, category_id=int(name[3]), bbox=[8, 6, 32, 24])
            for i, name in enumerate(annotated)
        ]
        classes = [dict(id=1, name='cat'), dict(id=2, name='dog')]
        put(
            folder / 'all.json',
            json.dumps(dict(images=images, annotations=boxes, categories=classes)),
        )
    for name in annotated if kind == 'voc' else ():
        box = '<xmin>8</xmin><ymin>6</ymin><xmax>40</xmax><ymax>30</ymax>'
        put(
            folder / f'Annotations/{name}.xml',
            f'<annotation><object><name>{"cat" if "cam1" in name else "dog"}</name>'
            f'<bndbox>{box}</bndbox></object></annotation>',
        )


@pytest.mark.parametrize('kind', ['voc', 'coco'])
def test_images_of_a_camera_do_not_stand_for_those_of_another(tmp_path, kind):
    lose_camera(tmp_path, kind, ['cam1', 'cam2'])
    labeled = read(tmp_path)
    found = {image.path.stem: [box.name for box in image.boxes] for image in labeled.images}
    assert found == {'0': ['dog'], '2': ['dog']}
    [finding] = notes(labeled, 'or several of that name')
    assert len(finding.places) == 2
    assert not notes(labeled, 'in another folder')


@pytest.mark.parametrize('kind', ['voc', 'coco'])
def test_an_image_in_another_folder_is_named(tmp_path, kind):
    # The folder may have been renamed.
    lose_camera(tmp_path, kind, ['cam1'])
    labeled = read(tmp_path)
    assert names(labeled) == ['0.jpg', '1.jpg']
    [finding] = notes(labeled, 'in another folder')
    assert len(finding.places) == 2
    assert f'{tmp_path}/JPEGImages/cam2/0.jpg' in finding.places[0]


def test_folders_that_were_moved_as_a_whole(tmp_path):
    lose_camera(tmp_path, 'coco', ['cam1', 'cam2'])
    shutil.copytree(tmp_path / 'JPEGImages/cam2', tmp_path / 'JPEGImages/cam1')
    put(tmp_path / 'all.json', (tmp_path / 'all.json').read_text().replace('"cam', '"set/cam'))
    found = [(image.path.parent.name, image.boxes[0].name) for image in read(tmp_path).images]
    assert sorted(found) == [('cam1', 'cat')] * 2 + [('cam2', 'dog')] * 2


def listed_twice(folder, **other):
    write_flat(folder, 'coco', 3)
    coco = json.loads((folder / 'all.json').read_text())
    coco['images'].append(dict(coco['images'][0], id=7, **other))
    # One box of the first entry again, and one more.
    box = dict(coco['annotations'][0], image_id=7)
    coco['annotations'] += [dict(box, id=8), dict(box, id=9, bbox=[50, 40, 20, 15])]
    put(folder / 'all.json', json.dumps(coco))


def test_an_image_that_a_file_lists_twice(tmp_path):
    listed_twice(tmp_path / 'set')
    result = prepare_dataset(tmp_path / 'set', tmp_path / 'out', val_fraction=0.4)
    assert sum(boxes for _, boxes in result.counts.values()) == 4
    [finding] = notes(result, 'images are listed more than once')
    assert finding.places == (f'{tmp_path}/set/all.json: p0.png, ids 0 and 7',)
    listed_twice(tmp_path / 'other', width=60, height=80)
    message = 'images 0 and 7 for one file, and they do not agree .p0.png with 80 x 60, p0.png with'
    with pytest.raises(PreparationError, match=message):
        read(tmp_path / 'other')


def test_an_image_in_two_files(tmp_path):
    write_flat(tmp_path / 'set', 'coco')
    shutil.copy(tmp_path / 'set/all.json', tmp_path / 'set/ben.json')
    with pytest.raises(PreparationError, match=r'p0.png, in .*all.json and .*ben.json: name'):
        prepare_dataset(tmp_path / 'set', tmp_path / 'out')


def test_a_folder_that_cannot_be_entered_is_named(tmp_path, monkeypatch):
    write_flat(tmp_path, 'voc', 3)
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith('JPEGImages'):
            raise PermissionError(13, 'Permission denied', str(path))
        return scandir(path)

    monkeypatch.setattr(os, 'scandir', refuse)
    with pytest.raises(PermissionError, match='JPEGImages'):
        read(tmp_path)


def test_images_with_other_than_8_bits(tmp_path):
    write_flat(tmp_path / 'set', 'voc')
    for path in sorted((tmp_path / 'set').rglob('*.png')):
        if path.stem in ('p0', 'p1'):
            cv2.imwrite(str(path), cv2.imread(str(path)).astype(np.uint16) * 16)
    result = prepare_dataset(tmp_path / 'set', tmp_path / 'out')
    assert sum(images for images, _ in result.counts.values()) == 8
    [finding] = notes(result, 'images have not 8 bits')
    assert 'p0.png: values of the type uint16' in finding.remedy
    assert 'convertScaleAbs' in finding.remedy


def test_images_with_too_many_pixels(tmp_path, monkeypatch):
    write_flat(tmp_path / 'set', 'voc')
    for name in ('p0', 'p1'):
        path = tmp_path / f'set/JPEGImages/{name}.png'
        cv2.imwrite(str(path), cv2.resize(cv2.imread(str(path)), (160, 120)))
    monkeypatch.setattr('PIL.Image.MAX_IMAGE_PIXELS', 80 * 60)
    result = prepare_dataset(tmp_path / 'set', tmp_path / 'out')
    assert sum(images for images, _ in result.counts.values()) == 8
    [finding] = notes(result, 'images have more than 178,956,970 pixels')
    assert finding.places == tuple(f'{tmp_path}/set/JPEGImages/{name}.png' for name in ('p0', 'p1'))
    assert 'cut them into tiles' in finding.remedy
    assert not notes(result, 'empty, truncated')
