"""Writes annotations in COCO's format and a config for a folder of annotated images."""

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from torch import Tensor

from ..datasets.check import check_annotations, count_boxes
from ..datasets.decoding import MAX_PIXELS
from ..datasets.findings import Finding, note
from ..utils.files import write_whole
from .anchors import Anchors, choose_anchors
from .annotations import LabeledFolder, LabeledImage, PreparationError
from .config_text import render_config
from .conversion import to_coco
from .formats import read_folder
from .recipe import Recipe, Schedule
from .source import SourceFolder
from .splitting import ImageFile, divide, read_image_files

# If a smaller share of boxes overlaps with an anchor, a note is printed.
_FEW = 0.8
_SPLITS = ('train', 'val', 'test')


@dataclass(frozen=True)
class PreparedDataset:
    """A prepared data set.

    Attributes:
        format: The format of the annotations, one of ``FORMATS``.
        config: The config.
        classes: Names, in the order of the labels.
        counts: Images and boxes of each split.
        anchors: The chosen anchors.
        default_anchors: The anchors of the template.
        schedule: The length of the training.
        findings: What was left out, changed or noticed.
    """

    format: str
    config: Path
    classes: tuple[str, ...]
    counts: dict[str, tuple[int, int]]
    anchors: Anchors
    default_anchors: Anchors
    schedule: Schedule
    findings: list[Finding]


def prepare_dataset(
    folder: str | Path,
    out: str | Path,
    annotation_format: str | None = None,
    classes: Sequence[str] = (),
    val_fraction: float = 0.2,
    seed: int = 0,
    group_near_duplicates: bool = True,
    recipe: Recipe | None = None,
) -> PreparedDataset:
    """Makes a data set and its config from a folder of annotated images.

    It writes ``annotations/instances_*.json`` with the paths of the images, and a config with the
    name of ``out``. The folder is not changed. The splits come from the folder. If it has none,
    they are drawn at random, with near-duplicates in the same split. Boxes are clipped to the
    decoded image. Unusable images and boxes are left out and named.

    Args:
        folder: The folder with images and annotations.
        out: The folder to write to. It must be empty, or not exist.
        annotation_format: 'voc', 'yolo' or 'coco'. By default it is found automatically.
        classes: The order of the classes. For YOLO also their names.
        val_fraction: The share of validation images if the folder names none, in 0..1 (exclusive).
        seed: The seed for drawing them.
        group_near_duplicates: Whether near-duplicates are drawn for the same split, and named if
            the folder has them in different splits.
        recipe: The network and its training. The default is that of the template.

    Returns:
        The prepared data set.

    Raises:
        PreparationError: If an argument is out of its limits, or if the folder cannot be used.
            Then nothing is written.
        OSError: If a file cannot be read or written. Then nothing remains of the output.
    """
    folder, out = Path(folder), Path(out)
    _check_arguments(folder, out, classes, val_fraction)
    source = SourceFolder(folder)
    name, labeled = read_folder(source, annotation_format, classes)
    _refuse_repeated(labeled)
    _leave_out_bare_tests(labeled)
    images, files, findings = _read_usable(labeled)
    splits, notes = divide(images, files, labeled, val_fraction, seed, group_near_duplicates)
    findings += notes
    cocos, notes = _convert(images, files, splits, labeled.classes, folder)
    findings += notes
    _refuse_bare(cocos, labeled, images, notes)
    findings += _check(cocos, labeled.classes, out)
    recipe = recipe or Recipe()
    template = recipe.template()
    anchors, default, notes = _choose_anchors(cocos['train'], template)
    findings += notes
    boxed = {item['image_id'] for item in cocos['train']['annotations'] if not item['iscrowd']}
    text = render_config(
        folder, out, name, labeled.classes, anchors, 'test' in cocos, recipe, template, len(boxed)
    )
    config = out / f'{out.resolve().name}.py'
    _write(
        {_annotation_file(out, split): json.dumps(coco) for split, coco in cocos.items()}
        | {config: text},
        out,
    )
    counts = {s: (len(c['images']), len(c['annotations'])) for s, c in cocos.items()}
    schedule = recipe.schedule(len(boxed))
    return PreparedDataset(
        name, config, tuple(labeled.classes), counts, anchors, default, schedule, findings
    )


def _check_arguments(folder: Path, out: Path, classes: Sequence[str], val_fraction: float) -> None:
    if not folder.is_dir():
        raise PreparationError(f'{folder} is no folder: name the one with images and annotations')
    for path in (folder.resolve(), out.resolve()):
        try:
            str(path).encode()
        except UnicodeEncodeError as error:
            raise PreparationError(
                f'the name of the folder {str(path)!r} is not in UTF-8, and no config can hold it: '
                'rename it'
            ) from error
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise PreparationError(f'{out} exists and is not empty: remove it or name another folder')
    if isinstance(classes, str):
        raise PreparationError(f'classes must be a list of names, got the text {classes!r}')
    if not 0 < val_fraction < 1:
        raise PreparationError(f'val_fraction must be between 0 and 1, got {val_fraction}')


def _refuse_repeated(labeled: LabeledFolder) -> None:
    annotations: dict[Path, list[Path | None]] = defaultdict(list)
    for image in labeled.images:
        annotations[image.path].append(image.annotation)
    repeated = [path for path, found in annotations.items() if len(found) > 1]
    if repeated:
        found = ' and '.join(map(str, annotations[repeated[0]]))
        raise PreparationError(
            f'{len(repeated)} images are annotated more than once, the first is {repeated[0]}, in '
            f'{found}: name a folder with one set of annotations'
        )


def _leave_out_bare_tests(labeled: LabeledFolder) -> None:
    """Leaves the test images out if none has a box, as in competitions."""
    tests = [image for image in labeled.images if image.split == 'test']
    if not any(image.boxes for image in tests):
        labeled.images = [image for image in labeled.images if image.split != 'test']
        labeled.findings += note(
            'test images, none with a box', 'They are left out', (str(i.path) for i in tests)
        )


def _read_usable(
    labeled: LabeledFolder,
) -> tuple[list[LabeledImage], list[ImageFile], list[Finding]]:
    """Returns the readable images that have the size in their annotation."""
    images, files = [], []
    unreadable, deep, huge, resized, unsized = [], [], [], [], []
    for image, file in zip(
        labeled.images, read_image_files([i.path for i in labeled.images]), strict=True
    ):
        if file.size is None:
            problems = deep if file.is_deep else huge if file.is_huge else unreadable
            problems.append(f'{image.path}: {file.error}')
        elif image.size not in (None, file.size):
            resized.append(f'{image.path}: {file.size}, annotated {image.size}')
        else:
            images.append(image)
            files.append(file)
            if image.size is None and not image.relative:
                unsized.append(str(image.path))
    if not images:
        notes = [finding.describe(1) for finding in labeled.findings]
        problem = (
            unreadable + deep + huge + resized + notes or ['there is none with an annotation']
        )[0]
        raise PreparationError(f'no image can be used, the first: {problem}: correct the folder')
    return (
        images,
        files,
        [
            *labeled.findings,
            *note('images are empty, truncated or no images', 'They are left out', unreadable),
            *note(
                'images have not 8 bits per channel',
                f'They are left out; {"".join(deep[:1])}',
                (place.partition(': ')[0] for place in deep),
            ),
            *note(
                f'images have more than {MAX_PIXELS:,} pixels, which Pillow does not decode',
                'They are left out: cut them into tiles, and their boxes with them',
                (place.partition(': ')[0] for place in huge),
            ),
            *note(
                'images have another size (width, height) than their annotation names',
                'They are left out, as nobody knows what the boxes refer to; if width and height '
                'are swapped, boxes were drawn before the image was turned as its EXIF data says',
                resized,
            ),
            *note('annotations name no size', 'That of the image is taken', unsized),
        ],
    )


def _convert(
    images: Sequence[LabeledImage],
    files: Sequence[ImageFile],
    splits: Sequence[str],
    classes: Sequence[str],
    folder: Path,
) -> tuple[dict[str, dict[str, Any]], list[Finding]]:
    """Returns the content of each split's annotation file."""
    cocos, findings = {}, []
    for split in _SPLITS:
        chosen = [i for i, chosen_split in enumerate(splits) if chosen_split == split]
        if chosen:
            cocos[split], notes = to_coco(
                [images[i] for i in chosen], [files[i] for i in chosen], classes, folder
            )
            findings += notes
    return cocos, findings


def _refuse_bare(
    cocos: Mapping[str, dict[str, Any]],
    labeled: LabeledFolder,
    images: Sequence[LabeledImage],
    notes: Sequence[Finding],
) -> None:
    """Refuses training or validation images without any usable box."""
    for split, adjective in (('train', 'training'), ('val', 'validation')):
        coco = cocos[split]
        if count_boxes(coco, labeled.classes):
            continue
        ignored = len(coco['annotations'])
        have = (
            f'have {ignored} boxes, and all are ignored (difficult in Pascal VOC, iscrowd in COCO)'
            if ignored
            else 'have no boxes'
        )
        first = coco['images'][0]['file_name']
        reasons = ''.join(
            f' ({finding.describe(1)})' for finding in [*labeled.findings, *notes][:3]
        )
        remedy = 'mark objects that are to be learned as such' if ignored else ''
        if split == 'train':
            remedy = f'nothing to learn; {remedy}' if remedy else 'nothing to learn'
        elif not any(image.split in ('val', 'test') for image in images):
            remedy = 'draw others with --seed, or a larger --val-fraction'
        elif not remedy:
            remedy = 'put their annotations beside those of the training images, or remove them'
        raise PreparationError(
            f'the {adjective} images {have}, the first is {first}: {remedy}{reasons}'
        )


def _check(cocos: Mapping[str, dict[str, Any]], classes: Sequence[str], out: Path) -> list[Finding]:
    """Returns the findings of tools/check_dataset.py, except for images, which were read before."""
    findings: list[Finding] = []
    for split, coco in cocos.items():
        file = _annotation_file(out, split)
        found = check_annotations(coco, file, None, classes, test_mode=split != 'train')
        errors = [finding for finding in found if finding.is_error]
        if errors:
            raise PreparationError(f'{file} would have errors: {errors[0].describe(3)}')
        findings += found
    learned = {item['category_id'] for item in cocos['train']['annotations'] if not item['iscrowd']}
    return findings + note(
        'classes have no training box',
        'The detector cannot learn them',
        (name for label, name in enumerate(classes, 1) if label not in learned),
    )


def _choose_anchors(
    coco: dict[str, Any], template: Config
) -> tuple[Anchors, Anchors, list[Finding]]:
    """Returns the anchors for the training boxes, those of the template, and findings."""
    height, width = _input_size(template)
    boxes = _boxes_in_input(coco, height, width)
    generator = template.model.bbox_head.anchor_generator
    anchors, default = choose_anchors(boxes, generator, (height, width))
    if anchors.share >= _FEW:
        return anchors, default, []
    return (
        anchors,
        default,
        note(
            f'{1 - anchors.share:.0%} of the training boxes overlap with no anchor by an IoU of '
            f'0.5; the median box has {_median_size(boxes)} pixels of the {width} x {height} input',
            'Small objects need a larger input (--size) or tiles, long ones ratios of their own in '
            'the anchor_generator of the config',
        ),
    )


def _annotation_file(out: Path, split: str) -> Path:
    return out / f'annotations/instances_{split}.json'


def _write(files: Mapping[Path, str], out: Path) -> None:
    """Writes all files or none."""
    existed = out.exists()
    try:
        for path, content in files.items():
            write_whole(content, path)
    except BaseException:
        for path in files:
            path.unlink(missing_ok=True)
        shutil.rmtree(out / 'annotations', ignore_errors=True)
        if not existed:
            shutil.rmtree(out, ignore_errors=True)
        raise


def _input_size(template: Config) -> tuple[int, int]:
    """Returns height and width of the template's input."""
    resize = next(step for step in template.test_pipeline if step['type'] == 'Resize')
    return resize['scale'][1], resize['scale'][0]


def _boxes_in_input(coco: dict[str, Any], height: int, width: int) -> Tensor:
    """Returns the corners of the boxes to learn, (N, 4), in pixels of the resized image."""
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
