"""The formats that detectors are exported to."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from hadaptive_runtime import ExportError
from hadaptive_runtime.files import check_writable

from . import writers
from .conversion import Conversion
from .network import ExportNetwork
from .quantization import Quantizer, quantize_onnx, quantize_openvino
from .support import Outputs
from .web_page import MODEL, check_web_folder


@dataclass(frozen=True)
class Format:
    """The properties of a format.

    Attributes:
        runtime: The name of its runtime.
        suffix: The suffix of the file that users name. Empty for a folder.
        companions: The suffixes of the files beside it.
        write: Writes all files from the network, a batch of inputs, the file, the metadata and the
            conversion.
        has_nms: Whether the graph selects and suppresses candidates.
        takes_batches: Whether it accepts batches of more than one image.
        has_all_outputs: Whether it can have other outputs than detections.
        model: The name of the model in the folder, if users name a folder.
        quantize: Quantises a file to 8-bit integers. None if this is not possible.
    """

    runtime: str
    suffix: str
    write: Callable[[ExportNetwork, Tensor, Path, Mapping[str, Any], Conversion], None]
    companions: tuple[str, ...] = ()
    has_nms: bool = False
    takes_batches: bool = False
    has_all_outputs: bool = False
    model: str = ''
    quantize: Quantizer | None = None


def check_request(
    format: Format, out: Path, outputs: Outputs, batch: int | None, quantized: bool = False
) -> None:
    """Checks the options of an export to a format.

    Args:
        format: One of :data:`FORMATS`.
        out: The file or folder to write.
        outputs: The outputs of the network.
        batch: The batch size. None accepts any.
        quantized: Whether it should compute with 8-bit integers.

    Raises:
        ExportError: If the format does not support an option, if the file has another format's
            suffix or cannot be written, or if a file beside it would replace a foreign one.
    """
    check_writable(out.resolve().parent)
    if format.model:
        check_web_folder(out)
    elif out.suffix != format.suffix:
        raise ExportError(
            f'{out} must end in {format.suffix} to run in {format.runtime}: name '
            f'{out.with_suffix(format.suffix).name}, or another --format'
        )
    if not format.model and out.is_dir():
        raise ExportError(f'{out} is a folder: name a file in it, such as {out / out.name}')
    present = [p for p in map(out.with_suffix, format.companions) if p.exists()]
    if present and not _is_export(out):
        raise ExportError(
            f'{present[0]} would be replaced, which does not belong to {out.name}: name another '
            'file'
        )
    if outputs != 'detections' and not format.has_all_outputs:
        raise ExportError(
            f'--outputs {outputs} exists in ONNX only, {format.runtime} gets detections: use '
            '--format onnx, or --outputs detections'
        )
    if batch != 1 and not format.takes_batches:
        raise ExportError(
            f'for {format.runtime} one image at a time is exported, got a batch of '
            f'{batch or "any size"}: use --batch 1, or --format onnx'
        )
    if quantized and format.quantize is None:
        offered = [name for name, other in FORMATS.items() if other.quantize is not None]
        raise ExportError(
            f'INT8 is not offered for {format.runtime}: leave out --int8, or use --format '
            f'{" or ".join(offered)}'
        )
    if quantized and outputs != 'detections':
        raise ExportError(
            f'INT8 is compared by its mAP, which --outputs {outputs} does not give: leave out '
            '--int8, or use --outputs detections'
        )


def _is_export(out: Path) -> bool:
    """Returns whether the files beside a file come from an earlier export to it."""
    try:
        files = json.loads(out.with_suffix('.json').read_text())['files']
    except (OSError, ValueError, KeyError, TypeError):
        return False
    return out.suffix in files


FORMATS: dict[str, Format] = {
    'onnx': Format(
        'ONNX Runtime',
        '.onnx',
        writers.write_onnx,
        has_nms=True,
        takes_batches=True,
        has_all_outputs=True,
        quantize=quantize_onnx,
    ),
    'openvino': Format(
        'OpenVINO',
        '.xml',
        writers.write_openvino,
        ('.json', '.bin'),
        has_nms=True,
        takes_batches=True,
        quantize=quantize_openvino,
    ),
    'ncnn': Format('ncnn', '.param', writers.write_ncnn, ('.json', '.bin')),
    'opencv': Format('OpenCV', '.onnx', writers.write_opencv, ('.json',)),
    'executorch': Format('ExecuTorch', '.pte', writers.write_executorch, ('.json',)),
    'web': Format('ONNX Runtime Web', '', writers.write_onnx, has_nms=True, model=MODEL),
    'litert': Format('LiteRT', '.tflite', writers.write_litert, ('.json',)),
}
