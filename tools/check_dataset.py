"""Checks the data sets of a config before a training: annotations, classes, boxes and images."""

import argparse
import sys

from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope

from mmdet_hadaptive.datasets.check_config import NOT_CHECKED, check_config
from mmdet_hadaptive.utils.installation import silence_pkg_resources


def main() -> None:
    """Prints the findings and exits with 1 if one of them is an error."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='a detection config with data sets in COCO format')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    silence_pkg_resources()
    try:
        config = Config.fromfile(args.config)
    except OSError as error:
        sys.exit(f'error: {args.config} cannot be read: {error}')
    config.merge_from_dict(args.cfg_options)
    init_default_scope(config.get('default_scope', 'mmdet'))
    errors = checked = 0
    for split, annotation_file, findings in check_config(config):
        print(f'{split} {annotation_file}:', '' if findings else 'nothing wrong')
        for finding in findings:
            print(f'  {finding.describe()}')
        errors += sum(finding.is_error for finding in findings)
        checked += not any(finding.problem.endswith(NOT_CHECKED) for finding in findings)
    if not checked:
        sys.exit(f"error: {args.config} has no data set in COCO's format: nothing was checked")
    sys.exit(1 if errors else 0)


if __name__ == '__main__':
    main()
