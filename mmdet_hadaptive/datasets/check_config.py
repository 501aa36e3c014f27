"""Checks the data sets of a config, and whether its model fits them."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from mmdet.datasets import CocoDataset, CocoPanopticDataset
from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict

from ..utils.configs import coco_datasets, walk
from .check import check_annotations, count_boxes, describe_classes, read_coco
from .findings import Finding, error, note

# The end of a finding about a data set of another format.
NOT_CHECKED = 'is not checked'
# Parts of a detector with classes of their own: a region proposal network has one class, a branch
# for semantic segmentation has those of its maps, a backbone has those of ImageNet.
_OTHER_CLASSES = ('rpn_head', 'semantic_head', 'backbone')


def check_config(config: Config) -> Iterator[tuple[str, Path, list[Finding]]]:
    """Checks the data sets of a config in COCO's format and decodes all images.

    Args:
        config: The config of a detector.

    Yields:
        For each annotation file: the split ('train', 'val' or 'test'), the file, and the findings
        of :func:`check_annotations` and :func:`check_num_classes`. Findings also name classes that
        differ from the first data set's, an evaluator with another file, and a validation without
        boxes. A data set in another format has the finding that it was not checked.
    """
    seen = set()
    first: tuple[Path, list[str]] | None = None
    for split in ('train', 'val', 'test'):
        loader = config.get(f'{split}_dataloader')
        files: list[Path] = []
        results: list[tuple[Path, list[Finding]]] = []
        for dataset in coco_datasets(loader.dataset) if loader else []:
            root = Path(dataset.get('data_root') or '')
            annotation_file = root / dataset.ann_file
            folder = root / (dataset.get('data_prefix') or {}).get('img', '')
            files.append(annotation_file)
            kind = DATASETS.get(dataset.type) if isinstance(dataset.type, str) else dataset.type
            if not _is_checked(kind):
                results.append((annotation_file, _describe_kind(dataset.type, kind)))
                continue
            classes = kind._load_metainfo(dataset.get('metainfo'))['classes']
            if isinstance(classes, str):
                problem = describe_classes(classes)
                results.append((annotation_file, error(problem, 'Every letter would be a class')))
                continue
            classes = [*classes]
            if (annotation_file, folder, *classes) in seen:
                continue
            seen.add((annotation_file, folder, *classes))
            first = first or (annotation_file, classes)
            test_mode = dataset.get('test_mode', False)
            coco, findings = read_coco(annotation_file, test_mode)
            if not findings:
                findings = check_annotations(
                    coco, annotation_file, folder, classes, True, test_mode
                )
                if not test_mode:
                    findings += _check_sizes(coco, dataset.get('filter_cfg'))
                if split == 'val' and not count_boxes(coco, classes):
                    findings += error(
                        f'none of the {len(coco["annotations"])} boxes is counted, so that mAP is '
                        '-1 and no checkpoint is better than another',
                        'Validate on images with boxes that are no crowds (iscrowd=0)',
                    )
            findings += check_num_classes(config.model, len(classes))
            if classes != first[1]:
                findings += error(
                    f'the classes are {classes}, those of {first[0]} are {first[1]}, so that '
                    'labels would carry wrong names',
                    'Let all data sets name the same classes in the same order, and their files '
                    'list them so',
                )
            results.append((annotation_file, findings))
        evaluator = config.get(f'{split}_evaluator')
        findings = _check_evaluator(f'{split}_evaluator', evaluator, files)
        if findings and not results:
            results.append((files[0], []))
        for annotation_file, others in results:
            yield split, annotation_file, others + findings
            findings = []


def _is_checked(kind: type | None) -> bool:
    """Returns whether a data set's class reads COCO's boxes."""
    return (
        isinstance(kind, type)
        and issubclass(kind, CocoDataset)
        and not issubclass(kind, CocoPanopticDataset)
    )


def _describe_kind(name: Any, kind: type | None) -> list[Finding]:
    if kind is None:
        return error(
            f'the type {name!r} is not registered',
            'Correct it, or name its module in custom_imports of the config',
        )
    return note(
        f'{kind.__name__} {NOT_CHECKED}',
        "Only data sets in COCO's format are: train on it, or convert it with "
        'tools/prepare_dataset.py',
    )


def check_num_classes(model: ConfigDict, num_classes: int) -> list[Finding]:
    """Compares every head of a detector with the number of classes in a data set.

    Args:
        model: The config of the detector.
        num_classes: The classes of the data set.

    Returns:
        An error for each head with another number.
    """
    return [
        finding
        for path, found, wanted in _class_numbers(model, num_classes)
        if found != wanted
        for finding in error(
            f'model.{path} is {found}, the data set has {num_classes} classes',
            f'Set {path.rpartition(".")[2]}={wanted}',
        )
    ]


def _check_sizes(coco: dict[str, Any], filter_cfg: dict[str, Any] | None) -> list[Finding]:
    """Names the images that a data set leaves out of the training because they are too small."""
    smallest = (filter_cfg or {}).get('min_size', 0)
    small = [
        image['file_name']
        for image in coco['images']
        if min(image['width'], image['height']) < smallest
    ]
    report = error if len(small) == len(coco['images']) else note
    return report(
        f'images have a side of less than {smallest} pixels',
        'Training leaves them out: write filter_cfg=dict(min_size=1) into the data set to keep '
        'them',
        small,
    )


def _check_evaluator(name: str, evaluator: Any, files: Sequence[Path]) -> list[Finding]:
    """Finds metrics whose annotations are not those of the data sets."""
    # The annotations of several data sets may have been joined.
    if len(set(files)) != 1:
        return []
    found = [
        ('.'.join(map(str, (name, *path))), node.get('ann_file')) for path, node in walk(evaluator)
    ]
    return [
        finding
        for place, file in found
        if file and Path(file).resolve() != files[0].resolve()
        for finding in error(
            f'{place}.ann_file is {file}, but the images are those of {files[0]}',
            f'Set {place}.ann_file={str(files[0])!r}',
        )
    ]


def _class_numbers(model: ConfigDict, num_classes: int) -> Iterator[tuple[str, int, int]]:
    """Yields each setting of a number of classes, its value, and the value that it should have."""
    for path, node in walk(model):
        if not set(path).isdisjoint(_OTHER_CLASSES):
            continue
        # The classes of a panoptic data set are both things and stuff.
        stuff = node.get('num_stuff_classes') or 0
        for key, wanted in (
            ('num_classes', num_classes),
            ('num_things_classes', num_classes - stuff),
        ):
            if isinstance(node.get(key), int):
                yield '.'.join(map(str, (*path, key))), node[key], wanted
