"""Compares the accuracy, time and size of exported detectors."""

import copy
import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.utils import import_modules_from_strings

from hadaptive_runtime import ExportError, Preprocessing
from hadaptive_runtime.model_file import list_files
from hadaptive_runtime.timing import describe_exit, time_in_turn

from ..utils.metrics import MAP
from .evaluation import evaluate_exported
from .images import first_test_image, run_pipeline
from .model_file import read_metadata
from .preprocessing import set_input_size


@dataclass(frozen=True)
class ExportedCosts:
    """The accuracy, time and size of an exported detector.

    Attributes:
        file: The file, as it was given.
        format: The format of the file.
        map: COCO's mAP on the config's test data, 0 to 1.
        milliseconds: The median time for one preprocessed image, including non-maximum suppression.
        ratio: The time divided by the first file's in the same round: first quartile, median, third
            quartile.
        megabytes: The size of all its files, in 10**6 bytes.
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
    cpu_time: bool = False,
) -> list[ExportedCosts]:
    """Evaluates exported detectors and times them in turn, on the first of the test images.

    Each is timed in one process and evaluated in another, because the threads of one runtime may
    disturb or crash another.

    Args:
        config: The config that they were exported with. Its evaluator must give COCO's mAP.
        files: The models, as :func:`hadaptive_runtime.load_exported` takes them.
        work_dir: The folder of MMEngine's logs.
        threads: The number of threads. ExecuTorch uses all cores.
        rounds: The number of timed images for each file.
        cpu_time: Whether the times are CPU times, see
            :func:`~hadaptive_runtime.timing.time_in_turn`.

    Returns:
        One entry for each file, in the same order.

    Raises:
        ExportError: If a file cannot be evaluated, or if a process ends unexpectedly.
        OSError: If a file cannot be read.
        ValueError: If ``threads`` or ``rounds`` is below 1.
    """
    if threads < 1:
        raise ValueError(f'at least 1 thread is needed, got {threads}')
    if len(set(files)) < len(files):
        raise ExportError(f'{", ".join(map(str, files))}: name each file once')
    image = first_test_image(config)
    formats, inputs = {}, {}
    for file in files:
        name = str(file)
        metadata = read_metadata(file)
        preprocessing = Preprocessing.from_metadata(metadata)
        formats[name] = metadata['format']
        resized = copy.deepcopy(config)
        set_input_size(resized, *preprocessing.resize)
        inputs[name] = preprocessing.canvas(run_pipeline(resized, image))[None]
    times = time_in_turn(
        {str(file): file for file in files}, inputs, threads, rounds, cpu_time=cpu_time
    )
    seconds = {name: np.array(values) for name, values in times.items()}
    first = seconds[str(files[0])]
    costs = []
    for file in files:
        name = str(file)
        metrics = _evaluate_in_process(config, file, work_dir, threads)
        if MAP not in metrics:
            raise ExportError(
                f'the evaluator of the config finds no {MAP} of {file}, but '
                f'{metrics or "nothing"}: it may detect nothing at all, or the config has another '
                'metric than CocoMetric'
            )
        costs.append(
            ExportedCosts(
                file=file,
                format=formats[name],
                map=metrics[MAP],
                milliseconds=1000 * float(np.median(seconds[name])),
                ratio=tuple(np.percentile(seconds[name] / first, (25, 50, 75)).tolist()),
                megabytes=sum(path.stat().st_size for path in list_files(file)) / 1e6,
            )
        )
    return costs


def _evaluate_in_process(config: Config, file: Path, work_dir: Path, threads: int) -> Any:
    # Forked processes would copy the locks of this process's threads without the threads.
    context = multiprocessing.get_context('spawn')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_evaluate, args=(config, file, work_dir, threads, sender))
    process.start()
    # Only the process keeps this end open, so that its death ends the waiting.
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        process.join()
        raise ExportError(
            f'{file}: the process that evaluated it ended ({describe_exit(process.exitcode)}); '
            'leave the file out, or evaluate it with tools/validate.py'
        ) from None
    finally:
        receiver.close()
    process.join()
    if isinstance(answer, Exception):
        raise answer
    return answer


def _evaluate(config: Config, file: Path, work_dir: Path, threads: int, sender: Connection) -> None:
    os.environ['OMP_NUM_THREADS'] = str(threads)
    torch.set_num_threads(threads)
    if config.get('custom_imports'):
        import_modules_from_strings(**config.custom_imports)
    try:
        sender.send(evaluate_exported(config, file, work_dir))
    except (ExportError, OSError) as error:
        # Only the messages are sent, because the causes belong to libraries.
        sender.send(type(error)(str(error)))
