"""Evaluates an exported detector on the test data of its config, in the runtime of its format."""

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction

try:
    from mmdet_hadaptive.export import ExportError, evaluate_exported
except ImportError as error:
    raise SystemExit(f'error: {error}') from error


def main() -> None:
    """Runs MMEngine's test loop with the detector in its runtime, which prints the metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='The config that the detector was exported with.')
    parser.add_argument('model', type=Path, help='The file that tools/export.py wrote.')
    parser.add_argument(
        '--work-dir',
        type=Path,
        default=Path('work_dirs/validate'),
        help="The folder of MMEngine's logs. The default is work_dirs/validate.",
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        metavar='KEY=VALUE',
        help='Changes of the config, such as test_dataloader.batch_size=4.',
    )
    args = parser.parse_args()
    try:
        config = Config.fromfile(args.config)
        config.merge_from_dict(args.cfg_options)
        evaluate_exported(config, args.model, args.work_dir)
    except (ExportError, OSError) as error:
        raise SystemExit(f'error: {error}') from error


if __name__ == '__main__':
    main()
