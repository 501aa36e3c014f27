"""Compares exported detectors with each other: accuracy, time and size."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from mmengine.config import Config

from hadaptive_runtime import ExportError, load_exported
from hadaptive_runtime.model_file import list_files

from ..runtime.timing import measure_in_turn
from .evaluation import evaluate_exported
from .images import first_test_image, run_pipeline
from .preprocessing import set_input_size

_METRIC = 'coco/bbox_mAP'
_WARMUP = 3


@dataclass(frozen=True)
class ExportedCosts:
    """What an exported detector achieves and takes.

    Attributes:
        file: As it was named.
        format: Of the file.
        map: COCO's mAP on the config's test data, 0 to 1.
        milliseconds: Median time for one prepared image, suppression of overlaps included.
        ratio: To the first file, in the same round: first quartile, median, third quartile.
        megabytes: Of all files, in 10**6 bytes.
    """

    file: Path
    format: str
    map: float
    milliseconds: float
    ratio: tuple[float, float, float]
    megabytes: float


def benchmark_exported(
    config: Config,
    files: Sequence[Path],
    work_dir: Path,
    threads: int = 1,
    rounds: int = 50,
) -> list[ExportedCosts]:
    """Evaluates exported detectors and times them in turn, on the first of the test images.

    Args:
        config: The config that they were exported with, whose evaluator finds COCO's mAP.
        files: As :func:`hadaptive_runtime.load_exported` takes them.
        work_dir: Gets MMEngine's logs.
        threads: How many compute; ExecuTorch takes as many as there are cores.
        rounds: Timed images of each.

    Returns:
        One entry for each file, in their order.

    Raises:
        ExportError: If one of them cannot be evaluated.
        OSError: If a file cannot be read.
        ValueError: If ``rounds`` is below 1.
    """
    if len(set(files)) < len(files):
        raise ExportError(f'{", ".join(map(str, files))}: name each file once')
    detectors = {str(file): load_exported(file, threads) for file in files}
    image = first_test_image(config)
    functions = {}
    for name, detector in detectors.items():
        resized = copy.deepcopy(config)
        set_input_size(resized, *detector.preprocessing.resize)
        inputs = detector.preprocessing.canvas(run_pipeline(resized, image))[None]
        functions[name] = partial(detector.detect, inputs)
    seconds = {
        name: np.array(times) for name, times in measure_in_turn(functions, rounds, _WARMUP).items()
    }
    first = seconds[str(files[0])]
    costs = []
    for file in files:
        times = seconds[str(file)]
        metrics = evaluate_exported(copy.deepcopy(config), file, work_dir)
        if _METRIC not in metrics:
            raise ExportError(f'the evaluator of the config finds no {_METRIC}, but {metrics}')
        costs.append(
            ExportedCosts(
                file=file,
                format=detectors[str(file)].format,
                map=metrics[_METRIC],
                milliseconds=1000 * float(np.median(times)),
                ratio=tuple(np.percentile(times / first, (25, 50, 75)).tolist()),
                megabytes=sum(path.stat().st_size for path in list_files(file)) / 1e6,
            )
        )
    return costs
