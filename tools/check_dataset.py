"""Checks the data sets of a config before training: annotations, classes, boxes, every image."""

import argparse
import sys
from pathlib import Path
from typing import Any

from mmdet.registry import DATASETS
from mmengine.config import Config, ConfigDict, DictAction
from mmengine.registry import init_default_scope

from mmdet_hadaptive.datasets import Finding, check_coco


def coco_datasets(dataset: ConfigDict) -> list[ConfigDict]:
    """The data sets with an annotation file, below wrappers such as RepeatDataset."""
    if 'ann_file' in dataset:
        return [dataset]
    inner = dataset.get('dataset', dataset.get('datasets', []))
    parts = inner if isinstance(inner, (list, tuple)) else [inner]
    return [found for part in parts for found in coco_datasets(part)]


def main() -> None:
    """Prints the findings and exits with 1 if one of them is an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a detection config with data sets in COCO format')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmdet'))
    errors = 0
    seen: list[Any] = []
    for split in ('train', 'val', 'test'):
        loader = config.get(f'{split}_dataloader')
        for dataset in coco_datasets(loader.dataset) if loader else []:
            root = Path(dataset.get('data_root') or '')
            folder = root / dataset.get('data_prefix', {}).get('img', '')
            place = (root / dataset.ann_file, folder)
            if place in seen:
                continue
            seen.append(place)
            classes = (dataset.get('metainfo') or {}).get('classes')
            classes = classes or DATASETS.get(dataset.type).METAINFO['classes']
            findings = check_coco(
                *place, classes, read_images=True, test_mode=dataset.get('test_mode', False)
            )
            num_classes = config.model.get('bbox_head', {}).get('num_classes', len(classes))
            if num_classes != len(classes):
                findings.append(
                    Finding(
                        True,
                        f'model.bbox_head.num_classes is {num_classes}, the data set has '
                        f'{len(classes)} classes',
                        f'Set num_classes={len(classes)}',
                    )
                )
            print(f'{split} {place[0]}:', '' if findings else 'nothing wrong')
            for finding in findings:
                print(f'  {finding.describe()}')
            errors += sum(finding.is_error for finding in findings)
    sys.exit(1 if errors else 0)


if __name__ == '__main__':
    main()
