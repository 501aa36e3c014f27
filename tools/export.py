"""Exports a detector to another runtime, after a comparison with PyTorch."""

import argparse
from pathlib import Path

from mmengine.config import Config, DictAction

from mmdet_hadaptive.utils.installation import silence_pkg_resources

try:
    from mmdet_hadaptive.export import EXPORTERS, FORMATS, OUTPUTS, ExportError, export_detector
except ImportError as error:
    raise SystemExit(f'error: {error}') from error


def batch_size(text: str) -> int | None:
    """Reads a number, or None for 'dynamic'."""
    return None if text == 'dynamic' else int(text)


def main() -> None:
    """Writes the file and prints its inputs and outputs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config of the detector')
    parser.add_argument('checkpoint', help='file, URL or hadaptive://NAME of its weights')
    suffixes = ', '.join(
        f'{format.suffix or "a folder"} for {name}' for name, format in FORMATS.items()
    )
    parser.add_argument('out', type=Path, help=f'file to write: {suffixes}')
    parser.add_argument(
        '--format', choices=FORMATS, default='onnx', help='format of the file (default: onnx)'
    )
    parser.add_argument(
        '--outputs',
        choices=OUTPUTS,
        default='detections',
        help='what the model returns: feature maps of the backbone, outputs of the head, all '
        'decoded boxes with their scores, or detections after NMS (default); formats other than '
        'onnx have only detections',
    )
    parser.add_argument(
        '--batch',
        type=batch_size,
        default=1,
        help="number of images that the model takes at a time, or 'dynamic' (default: 1)",
    )
    parser.add_argument(
        '--normalize',
        action='store_true',
        help='normalise inside the model: it then takes pixel values from 0 to 255, BGR',
    )
    parser.add_argument(
        '--exporter',
        choices=EXPORTERS,
        default='torchscript',
        help='exporter of PyTorch: torchscript (default), whose files more runtimes load, or '
        'dynamo, the newer one',
    )
    parser.add_argument('--opset', type=int, default=18, help='version of ONNX (default: 18)')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        metavar=('H', 'W'),
        help='height and width of the input (default: those of the test pipeline)',
    )
    parser.add_argument(
        '--image',
        help='image on which the model is compared with PyTorch; it should show objects '
        '(default: the first of the test data)',
    )
    parser.add_argument(
        '--tolerance',
        type=float,
        default=1e-3,
        help='largest difference from PyTorch, in pixels or score (default: 0.001)',
    )
    parser.add_argument(
        '--no-check',
        dest='tolerance',
        action='store_const',
        const=None,
        help='write the file even if it differs from PyTorch, or if both detect nothing',
    )
    parser.add_argument(
        '--prune',
        type=float,
        nargs='?',
        const=1e-3,
        metavar='LOSS',
        help='remove the products that the validation mAP does not need; the mAP may fall by LOSS '
        '(default: 0.001)',
    )
    parser.add_argument(
        '--int8',
        type=float,
        nargs='?',
        const=1e-2,
        metavar='LOSS',
        help='compute with 8-bit integers; the validation mAP may fall by LOSS (default: 0.01)',
    )
    parser.add_argument(
        '--onnxruntime-web',
        type=Path,
        metavar='PATH',
        help='package of ONNX Runtime Web (.tgz), or its folder, for --format web (default: npm '
        'downloads it)',
    )
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        default={},
        help='settings that override those of the config, as KEY=VALUE',
    )
    args = vars(parser.parse_args())
    silence_pkg_resources()
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
