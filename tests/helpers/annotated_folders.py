"""Writes the same small data set in every format, and reads what is made of it."""

import json
from pathlib import Path

import cv2
import numpy as np

CLASSES = ['cat', 'dog']
# Width, height and boxes (class, x1, y1, x2, y2) of images that are not square.
IMAGES = {
    f'{split}/{name}': (width, height, boxes)
    for split, name, width, height, boxes in (
        ('train', 'a', 80, 60, [(0, 8, 6, 40, 30), (1, 40, 30, 80, 60)]),
        ('train', 'b', 60, 80, [(1, 3, 8, 30, 72)]),
        ('train', 'c', 100, 50, []),
        ('valid', 'd', 80, 60, [(0, 16, 12, 64, 48)]),
    )
}


def draw_image(path, width, height, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    cv2.imwrite(str(path), cv2.resize(small, (width, height)))


def write_voc(root, images=IMAGES):
    for seed, (name, (width, height, boxes)) in enumerate(images.items()):
        draw_image(root / f'{name}.png', width, height, seed)
        objects = ''.join(
            f'<object><name>{CLASSES[c]}</name><difficult>0</difficult><bndbox><xmin>{x1}</xmin>'
            f'<ymin>{y1}</ymin><xmax>{x2}</xmax><ymax>{y2}</ymax></bndbox></object>'
            for c, x1, y1, x2, y2 in boxes
        )
        (root / f'{name}.xml').write_text(
            f'<annotation><filename>elsewhere.jpg</filename><size><width>{width}</width>'
            f'<height>{height}</height><depth>3</depth></size>{objects}</annotation>'
        )


def write_yolo(root, images=IMAGES):
    for seed, (name, (width, height, boxes)) in enumerate(images.items()):
        split, stem = name.split('/')
        draw_image(root / split / 'images' / f'{stem}.png', width, height, seed)
        lines = [
            f'{c} {(x1 + x2) / 2 / width} {(y1 + y2) / 2 / height} {(x2 - x1) / width} '
            f'{(y2 - y1) / height}'
            for c, x1, y1, x2, y2 in boxes
        ]
        label = root / split / 'labels' / f'{stem}.txt'
        label.parent.mkdir(exist_ok=True)
        if lines:
            label.write_text('\n'.join(lines))
    (root / 'data.yaml').write_text(
        'train: ../train/images\nval: ../valid/images\nnames: [cat, dog]\n'
    )


def write_coco(root, images=IMAGES):
    for split in ('train', 'valid'):
        chosen = [(n, i) for n, i in images.items() if n.startswith(split)]
        if not chosen:
            continue
        coco = dict(
            images=[],
            annotations=[],
            categories=[dict(id=i, name=n) for i, n in enumerate(CLASSES)],
        )
        for name, (width, height, boxes) in chosen:
            image_id = len(coco['images'])
            draw_image(root / f'{name}.png', width, height, [*images].index(name))
            coco['images'].append(
                dict(id=image_id, file_name=f'{Path(name).name}.png', width=width, height=height)
            )
            coco['annotations'] += [
                dict(
                    id=len(coco['annotations']) + i + 1,
                    image_id=image_id,
                    category_id=c,
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=0,
                )
                for i, (c, x1, y1, x2, y2) in enumerate(boxes)
            ]
        (root / split / '_annotations.coco.json').write_text(json.dumps(coco))


WRITERS = dict(voc=write_voc, yolo=write_yolo, coco=write_coco)


def read_back(out, split):
    """Boxes by the name of their image."""
    coco = json.loads((out / f'annotations/instances_{split}.json').read_text())
    names = {c['id']: c['name'] for c in coco['categories']}
    boxes = {image['file_name']: [] for image in coco['images']}
    files = {image['id']: image['file_name'] for image in coco['images']}
    for item in coco['annotations']:
        boxes[files[item['image_id']]].append((names[item['category_id']], item['bbox']))
    return {Path(name).stem: value for name, value in boxes.items()}


def write_flat(root, kind, number=10):
    """So many images of a format in one folder, that names no split: p0, p1, ..."""
    images = {f'train/p{i}': (80, 60, [(i % 2, 8, 6, 40, 30)]) for i in range(number)}
    WRITERS[kind](root, images)
    if kind == 'voc':
        (root / 'train').rename(root / 'JPEGImages')
        (root / 'Annotations').mkdir()
        for path in (root / 'JPEGImages').glob('*.xml'):
            path.rename(root / 'Annotations' / path.name)
    if kind == 'yolo':
        for name in ('images', 'labels'):
            (root / 'train' / name).rename(root / name)
        (root / 'train').rmdir()
        (root / 'data.yaml').write_text('names: [cat, dog]\n')
    if kind == 'coco':
        (root / 'train/_annotations.coco.json').rename(root / 'all.json')
        (root / 'train').rename(root / 'images')
    return root


def put(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
