"""Writes annotations in COCO's format and a config for a folder of annotated images."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.hub import get_config
from torch import Tensor

from ..datasets import Finding, check_coco
from ..datasets.findings import find_places
from ..utils.files import write_whole
from .anchors import Anchors, choose_anchors
from .annotations import LabeledFolder, LabeledImage
from .config_text import TEMPLATE, render_config
from .errors import PreparationError
from .formats import FORMATS, find_format
from .splitting import ImageFile, group_near_duplicates, read_image_files, split_groups

# Share of boxes that overlap with an anchor, below which there is a remark.
_FEW = 0.8


@dataclass(frozen=True)
class PreparedDataset:
    """What was written.

    Attributes:
        format: One of ``FORMATS``.
        config: The config.
        classes: Names, in the order of the labels.
        counts: Images and boxes of each split.
        anchors: The chosen ones.
        default_anchors: Those of the template.
        findings: What was left out, changed or noticed.
    """

    format: str
    config: Path
    classes: tuple[str, ...]
    counts: dict[str, tuple[int, int]]
    anchors: Anchors
    default_anchors: Anchors
    findings: list[Finding]


def prepare_dataset(
    folder: str | Path,
    out: str | Path,
    annotation_format: str | None = None,
    classes: Sequence[str] = (),
    val_fraction: float = 0.2,
    seed: int = 0,
) -> PreparedDataset:
    """Makes a folder of annotated images a data set that a config trains on.

    Writes ``annotations/instances_*.json`` with paths to the images where they are, and a config
    called as ``out``. The folder is only read. Images are divided as the folder says; if it does
    not, at random, near-duplicates on one side. Boxes are clipped to the image as it is decoded;
    what cannot be used is left out and named.

    Args:
        folder: Images and annotations.
        out: What is written into; must not exist, or be empty.
        annotation_format: 'voc', 'yolo' or 'coco'; found by itself by default.
        classes: Order of the classes, for YOLO also their names.
        val_fraction: Share of validation images, 0 < val_fraction < 1, where the folder names none.
        seed: Of the division.

    Returns:
        What was written.

    Raises:
        PreparationError: If an argument is out of its limits or the folder cannot be used; then
            nothing has been written.
    """
    folder, out = Path(folder), Path(out)
    if not folder.is_dir():
        raise PreparationError(f'{folder} is no folder: name the one with images and annotations')
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PreparationError(f'{out} exists and is not empty: remove it or name another folder')
    if not 0 < val_fraction < 1:
        raise PreparationError(f'val_fraction must be between 0 and 1, got {val_fraction}')
    name = annotation_format or find_format(folder)
    if name not in FORMATS:
        raise PreparationError(
            f'annotation_format must be one of {", ".join(FORMATS)}, got {name!r}'
        )
    labeled = FORMATS[name](folder, classes)
    _refuse_repeated(labeled)
    _leave_out_bare_tests(labeled)
    images, files, findings = _read_usable(labeled)
    splits, notes = _split(images, files, val_fraction, seed)
    findings += notes
    cocos = {}
    for split in ('train', 'val', 'test'):
        chosen = [i for i, chosen_split in enumerate(splits) if chosen_split == split]
        if chosen:
            cocos[split], notes = _to_coco(
                [images[i] for i in chosen], [files[i] for i in chosen], labeled.classes, folder
            )
            findings += notes
    template = get_config(TEMPLATE)
    height, width = _input_size(template)
    boxes = _boxes_in_input(cocos['train'], height, width)
    if not len(boxes):
        raise PreparationError(f'the training images of {folder} have no boxes: nothing to learn')
    if not cocos['val']['annotations']:
        is_drawn = not any(image.split in ('val', 'test') for image in images)
        remedy = (
            'draw others with --seed, or a larger --val-fraction'
            if is_drawn
            else 'put their annotations beside those of the training images, or remove them'
        )
        raise PreparationError(
            f'the validation images of {folder} have no boxes, the first is '
            f'{cocos["val"]["images"][0]["file_name"]}: {remedy}'
        )
    learned = {item['category_id'] for item in cocos['train']['annotations'] if not item['iscrowd']}
    findings += find_places(
        False,
        'classes have no training box',
        'The detector cannot learn them',
        (name for label, name in enumerate(labeled.classes, 1) if label not in learned),
    )
    generator = template.model.bbox_head.anchor_generator
    anchors, default = choose_anchors(boxes, generator, (height, width))
    if anchors.share < _FEW:
        findings.append(
            Finding(
                False,
                f'{1 - anchors.share:.0%} of the training boxes overlap with no anchor by an IoU '
                f'of 0.5; the median box has {_median_size(boxes)} pixels of the '
                f'{width} x {height} input',
                'Small objects need a larger input or tiles, long ones ratios of their own: change '
                'the pipelines and the anchor_generator of the config',
            )
        )

    for split, coco in cocos.items():
        write_whole(json.dumps(coco), out / f'annotations/instances_{split}.json')
    config = out / f'{out.resolve().name}.py'
    text = render_config(folder, out, name, labeled.classes, anchors, 'test' in cocos)
    for split in cocos:
        findings += check_coco(
            out / f'annotations/instances_{split}.json',
            folder,
            labeled.classes,
            test_mode=split != 'train',
        )
    write_whole(text, config)
    counts = {s: (len(c['images']), len(c['annotations'])) for s, c in cocos.items()}
    return PreparedDataset(name, config, tuple(labeled.classes), counts, anchors, default, findings)


def _refuse_repeated(labeled: LabeledFolder) -> None:
    counts = Counter(image.path for image in labeled.images)
    repeated = [path for path, count in counts.items() if count > 1]
    if repeated:
        raise PreparationError(
            f'{len(repeated)} images are annotated more than once, the first is {repeated[0]}: '
            'name a folder with one set of annotations'
        )


def _leave_out_bare_tests(labeled: LabeledFolder) -> None:
    """Competitions keep the boxes of their test images."""
    tests = [image for image in labeled.images if image.split == 'test']
    if not any(image.boxes for image in tests):
        labeled.images = [image for image in labeled.images if image.split != 'test']
        labeled.findings += find_places(
            False, 'test images, none with a box', 'They are left out', (str(i.path) for i in tests)
        )


def _read_usable(
    labeled: LabeledFolder,
) -> tuple[list[LabeledImage], list[ImageFile], list[Finding]]:
    """Those of the images that can be read and have the size that their annotation names."""
    images, files = [], []
    unreadable, resized, unsized = [], [], []
    for image, file in zip(
        labeled.images, read_image_files([i.path for i in labeled.images]), strict=True
    ):
        if file.size is None:
            unreadable.append(f'{image.path}: {file.error}')
        elif image.size not in (None, file.size):
            resized.append(f'{image.path}: {file.size}, annotated {image.size}')
        else:
            images.append(image)
            files.append(file)
            if image.size is None and not image.relative:
                unsized.append(str(image.path))
    if not images:
        notes = [finding.describe(1) for finding in labeled.findings]
        problem = (unreadable + resized + notes or ['there is none with an annotation'])[0]
        raise PreparationError(f'no image can be used, the first: {problem}: correct the folder')
    return (
        images,
        files,
        [
            *labeled.findings,
            *find_places(
                False, 'images are empty, truncated or no images', 'They are left out', unreadable
            ),
            *find_places(
                False,
                'images have another size (width, height) than their annotation names',
                'They are left out, as nobody knows what the boxes refer to; if width and height '
                'are swapped, boxes were drawn before the image was turned as its EXIF data says',
                resized,
            ),
            *find_places(False, 'annotations name no size', 'That of the image is taken', unsized),
        ],
    )


def _split(
    images: Sequence[LabeledImage], files: Sequence[ImageFile], val_fraction: float, seed: int
) -> tuple[list[str], list[Finding]]:
    """A split for each image, and what is to be said about them."""
    splits = [image.split for image in images]
    groups = group_near_duplicates([file.fingerprint for file in files])
    notes = []
    named = Counter(splits)
    if named['val'] or named['test']:
        notes += find_places(
            False,
            'images are in no split',
            'They are trained on',
            (str(i.path) for i, split in zip(images, splits, strict=True) if split is None),
        )
    splits = [split or 'train' for split in splits]
    if not named['val'] and named['test']:
        notes.append(
            Finding(False, 'there are test, but no validation images', 'They are validated on')
        )
        splits = ['val' if split == 'test' else split for split in splits]
    elif not named['val']:
        if len(groups) < 2:
            raise PreparationError(
                f'{len(images)} image(s), all nearly the same, cannot be divided into two sets: '
                'add others, or put some into a folder val'
            )
        chosen = split_groups(groups, val_fraction, seed)
        splits = ['val' if i in chosen else 'train' for i in range(len(images))]
        notes.append(
            Finding(
                False,
                f'the folder names no validation images; {len(chosen)} were drawn with seed {seed}',
                'To choose them, put images into folders train and val',
            )
        )
    if 'train' not in splits:
        raise PreparationError(
            f'there are no training images, only {", ".join(sorted(set(splits)))}: name the folder '
            'that has both, or one whose name is no split'
        )
    leaks = []
    for group in groups:
        learned = [i for i in group if splits[i] == 'train']
        leaks += [
            f'{images[i].path} like {images[learned[0]].path}'
            for i in group
            if learned and splits[i] != 'train'
        ]
    return splits, notes + find_places(
        False,
        'validation or test images look nearly the same as training images',
        'They flatter the detector: put such images into one split',
        leaks,
    )


def _to_coco(
    images: Sequence[LabeledImage], files: Sequence[ImageFile], classes: Sequence[str], folder: Path
) -> tuple[dict[str, Any], list[Finding]]:
    labels = {name: index for index, name in enumerate(classes, 1)}
    coco: dict[str, Any] = dict(
        images=[],
        annotations=[],
        categories=[dict(id=index, name=name) for name, index in labels.items()],
    )
    empty, clipped = [], []
    for image_id, (image, file) in enumerate(zip(images, files, strict=True), 1):
        width, height = file.size
        coco['images'].append(
            dict(
                id=image_id,
                file_name=os.path.relpath(image.path, folder),
                width=width,
                height=height,
            )
        )
        scale = (width, height) if image.relative else (1, 1)
        for box in image.boxes:
            corners = [value * scale[i % 2] for i, value in enumerate(box.corners)]
            x1, y1, x2, y2 = (
                min(max(value, 0), file.size[i % 2]) for i, value in enumerate(corners)
            )
            place = f'{image.path}: {box.name} {[round(value, 1) for value in corners]}'
            if x2 - x1 < 1 or y2 - y1 < 1:
                empty.append(place)
                continue
            # Rounding of relative corners is no mistake.
            if max(abs(a - b) for a, b in zip(corners, (x1, y1, x2, y2), strict=True)) > 1:
                clipped.append(place)
            coco['annotations'].append(
                dict(
                    id=len(coco['annotations']) + 1,
                    image_id=image_id,
                    category_id=labels[box.name],
                    bbox=[x1, y1, x2 - x1, y2 - y1],
                    area=(x2 - x1) * (y2 - y1),
                    iscrowd=int(box.ignored),
                )
            )
    return coco, [
        *find_places(
            False, 'boxes are under one pixel or outside their image', 'They are left out', empty
        ),
        *find_places(False, 'boxes reach beyond their image', 'They are clipped', clipped),
    ]


def _input_size(template: Config) -> tuple[int, int]:
    """Height and width of the template's input."""
    resize = next(step for step in template.test_pipeline if step['type'] == 'Resize')
    return resize['scale'][1], resize['scale'][0]


def _boxes_in_input(coco: dict[str, Any], height: int, width: int) -> Tensor:
    """(N, 4): corners of the boxes that are learned, in pixels of the resized image."""
    sizes = {image['id']: (image['width'], image['height']) for image in coco['images']}
    boxes = []
    for item in coco['annotations']:
        if not item['iscrowd']:
            x, y, w, h = item['bbox']
            x_scale, y_scale = (
                width / sizes[item['image_id']][0],
                height / sizes[item['image_id']][1],
            )
            boxes.append((x * x_scale, y * y_scale, (x + w) * x_scale, (y + h) * y_scale))
    return torch.tensor(boxes).view(-1, 4)


def _median_size(boxes: Tensor) -> str:
    width, height = (boxes[:, 2:] - boxes[:, :2]).median(0).values.tolist()
    return f'{width:.0f} x {height:.0f}'
