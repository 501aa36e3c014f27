"""Evaluates an exported model on the test data of its config."""

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction

from mmdet_hadaptive.export import ExportError, evaluate_exported


def main() -> None:
    """Runs MMEngine's test loop with the model in its runtime; it prints the metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('model', type=Path, help='a file of tools/export.py')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/validate'))
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    try:
        config = Config.fromfile(args.config)
        config.merge_from_dict(args.cfg_options)
        evaluate_exported(config, args.model, args.work_dir)
    except (ExportError, OSError) as error:
        raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
    main()
