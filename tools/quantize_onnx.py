"""Quantises an exported model to INT8, with ranges measured on its config's training images."""

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction

from mmdet_hadaptive.export import ExportError, quantize_onnx


def main() -> None:
    """Writes the quantised model and prints what it consists of."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('model', type=Path, help='an ONNX file of tools/export.py')
    parser.add_argument('out', type=Path, help='the ONNX file to write')
    parser.add_argument(
        '--num-images', type=int, default=100, help='training images to measure on, default 100'
    )
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={})
    args = parser.parse_args()
    config = Config.fromfile(args.config)
    config.merge_from_dict(args.cfg_options)
    try:
        report = quantize_onnx(config, args.model, args.out, args.num_images)
    except (ExportError, OSError) as error:
        raise SystemExit(f'nothing is written: {error}') from error
    print(f'{report.num_convolutions} convolutions, measured on {report.num_images} images')
    before, after = (file.stat().st_size / 2**20 for file in (args.model, report.file))
    print(f'written: {report.file} ({after:.1f} MiB, before {before:.1f} MiB)')


if __name__ == '__main__':
    main()
