"""Exports a detector to another runtime, compared with PyTorch before anything is written."""

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction

from mmdet_hadaptive.export import EXPORTERS, FORMATS, MODES, ExportError, export_detector


def batch_size(text: str) -> int | None:
    """A number, or None for 'dynamic'."""
    return None if text == 'dynamic' else int(text)


def main() -> None:
    """Writes the file and prints what it takes and gives."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config')
    parser.add_argument('checkpoint')
    suffixes = ', '.join(
        f'{format.suffix or "a folder"} for {name}' for name, format in FORMATS.items()
    )
    parser.add_argument('out', type=Path, help=f'the file to write: {suffixes}')
    parser.add_argument('--format', choices=FORMATS, default='onnx', help='default onnx')
    parser.add_argument(
        '--mode',
        choices=MODES,
        default='nms',
        help='what comes out: features, outputs of the head, all boxes, or detections (default)',
    )
    parser.add_argument(
        '--batch', type=batch_size, default=1, help="images at a time, or 'dynamic'; default 1"
    )
    parser.add_argument(
        '--normalize', action='store_true', help='take pixel values (BGR) and normalise inside'
    )
    parser.add_argument('--exporter', choices=EXPORTERS, default='dynamo')
    parser.add_argument('--opset', type=int, default=18, help='ONNX opset (default 18)')
    parser.add_argument(
        '--size', type=int, nargs=2, metavar=('H', 'W'), help="default: the test pipeline's"
    )
    parser.add_argument('--image', help='for the comparison; default: the first of the test data')
    parser.add_argument(
        '--tolerance',
        type=float,
        default=1e-3,
        help='largest difference to accept, default 1e-3; inf: even an image without detections',
    )
    parser.add_argument(
        '--prune',
        type=float,
        nargs='?',
        const=1e-3,
        metavar='LOSS',
        help='remove the products that the validation mAP does not need; it may fall by LOSS, '
        'default 1e-3',
    )
    parser.add_argument(
        '--onnxruntime-web',
        type=Path,
        metavar='PATH',
        help='for web: the package (.tgz) or its folder, if npm is not to download it',
    )
    parser.add_argument(
        '--int8',
        type=float,
        nargs='?',
        const=1e-2,
        metavar='LOSS',
        help='compute with 8-bit integers; the validation mAP may fall by LOSS, default 1e-2',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings that replace those of the config',
    )
    args = vars(parser.parse_args())
    try:
        config = Config.fromfile(args.pop('config'))
        config.merge_from_dict(args.pop('cfg_options'))
        report = export_detector(config, **args)
    except (ExportError, OSError) as error:
        raise SystemExit(f'nothing is written: {error}') from error
    if report.pruning:
        print(report.pruning)
    print(f'images    {report.input_shape}')
    for name, shape in report.output_shapes.items():
        print(f'{name:9} {shape}')
    print(f'largest difference from PyTorch on {report.image}: {report.difference:.1e}')
    if report.quantization:
        print(report.quantization)
    mebibytes = sum(file.stat().st_size for file in report.files) / 2**20
    written = [args['out']] if args['format'] == 'web' else report.files
    print(f'written: {", ".join(map(str, written))} ({mebibytes:.1f} MiB)')
    if args['format'] == 'web':
        print(f'open http://localhost:8000 after: python -m http.server -d {args["out"]}')


if __name__ == '__main__':
    main()
