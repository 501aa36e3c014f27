"""Compares an exported model with the detector."""

from collections.abc import Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.model import BaseModel
from mmengine.structures import InstanceData

from hadaptive_runtime import Detections, ExportError, Preprocessing

from .network import ExportNetwork
from .support import Outputs


def run_detector(
    detector: BaseModel,
    outputs: Outputs,
    preprocessing: Preprocessing,
    images: Sequence[np.ndarray],
    factors: np.ndarray,
) -> list[InstanceData] | list[np.ndarray]:
    """Runs a detector with MMDetection's own preprocessing.

    Args:
        detector: The detector in eval mode.
        outputs: One of :data:`OUTPUTS`.
        preprocessing: The config's.
        images: Each (H, W, 3), uint8, BGR, after the test pipeline.
        factors: The factors by which the pipeline resized width and height, equal for all images.

    Returns:
        For 'detections' the detections of each image, in pixels of the input. Else the outputs.
    """
    planes = [torch.from_numpy(np.ascontiguousarray(x.transpose(2, 0, 1))) for x in images]
    with torch.no_grad():
        inputs = detector.data_preprocessor(dict(inputs=planes, data_samples=None))['inputs']
        height, width = preprocessing.input_size
        inputs = torch.nn.functional.pad(
            inputs,
            (0, width - inputs.shape[3], 0, height - inputs.shape[2]),
            value=detector.data_preprocessor.pad_value,
        )
        if outputs == 'detections':
            metainfo = dict(img_shape=(height, width), scale_factor=tuple(factors.tolist()))
            samples = [DetDataSample(metainfo=metainfo) for _ in images]
            found = [s.pred_instances for s in detector.predict(inputs, samples, rescale=True)]
            for instances in found:
                instances.bboxes = instances.bboxes * torch.from_numpy(np.tile(factors, 2))
            return found
        return [
            output.numpy() for output in ExportNetwork(detector, outputs, preprocessing)(inputs)
        ]


def compare_outputs(
    expected: Sequence[InstanceData] | Sequence[np.ndarray],
    actual: Sequence[Detections] | Sequence[np.ndarray],
    image: str,
    tolerance: float | None,
    runtime: str = 'ONNX Runtime',
) -> float:
    """Compares the outputs of PyTorch and of another runtime.

    Args:
        expected: The detections of :func:`run_detector`.
        actual: The detections of the exported model in the same images.
        image: The name of the image for errors.
        tolerance: The largest accepted difference. None accepts every difference, and also images
            without detections.
        runtime: The name of the runtime for errors.

    Returns:
        The largest absolute difference. For detections, this is the distance to the nearest
        detection of the same class from the other runtime, in pixels or score.

    Raises:
        ExportError: If they differ, or if there is no detection to compare.
    """
    if isinstance(expected[0], InstanceData):
        difference = _compare_detections(expected, actual)
        nothing = not any(map(len, expected)) and not any(map(len, actual))
        if nothing and tolerance is not None:
            raise ExportError(
                f'{image}: neither PyTorch nor {runtime} detects anything, nothing can be '
                'compared, and nothing is written: name an image with objects (--image), or write '
                'the file unchecked with --no-check'
            )
    else:
        # NumPy's maximum is NaN if a value is NaN. Python's is not.
        pairs = zip(expected, actual, strict=True)
        difference = float(np.max([np.abs(e - a).max() for e, a in pairs]))
    if tolerance is not None and not difference <= tolerance:
        raise ExportError(
            f'{runtime} and PyTorch differ by {difference:.2e} on {image}, more than '
            f'{tolerance:.0e}, and nothing is written: see whether another image (--image), '
            'exporter (--exporter) or opset (--opset) changes that. Where scores nearly tie, the '
            'selection of channels or of boxes may differ by chance: accept it with --tolerance or '
            '--no-check'
        )
    return difference


def _compare_detections(expected: Sequence[InstanceData], actual: Sequence[Detections]) -> float:
    """Returns the largest distance from a detection to the nearest other one of its class."""
    nearest = [0.0]
    for instances, found in zip(expected, actual, strict=True):
        ours = np.concatenate([found.boxes, found.scores[:, None]], axis=1)
        theirs = torch.cat([instances.bboxes, instances.scores[:, None]], dim=1).numpy()
        distances = np.abs(ours[:, None] - theirs[None]).max(-1)
        distances[found.labels[:, None] != instances.labels.numpy()] = np.inf
        for axis in (0, 1):
            if distances.shape[1 - axis]:
                nearest.append(distances.min(axis, initial=np.inf).max())
    return float(np.max(nearest))
