"""Compares the times of detectors in the runtimes that they can be exported to."""

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from mmdet.models.dense_heads.base_dense_head import BaseDenseHead

from hadaptive_runtime import ExportError, Preprocessing
from hadaptive_runtime.timing import time_in_turn
from mmdet_hadaptive.export import FORMATS, ExportNetwork
from mmdet_hadaptive.export.conversion import Conversion
from mmdet_hadaptive.export.onnx_nms import describe_nms

from .cost_comparison import Entry, describe_times

# Seconds of each round, by the name of a detector and the format.
Times = dict[tuple[str, str], list[float]]


def export_entries(
    entries: Iterable[Entry], formats: Sequence[str], folder: Path
) -> dict[tuple[str, str], Path]:
    """Exports detectors with random weights, up to boxes and scores of all priors.

    What chooses among these takes a time that depends on the weights, and is the same for all
    detectors with one head.

    Args:
        entries: Entries that :func:`~research.benchmark.cost_comparison.load_entry` made.
        formats: Names from :data:`~mmdet_hadaptive.export.FORMATS`.
        folder: Gets FORMAT/NAME; what is there already is not exported again.

    Returns:
        By the name of an entry and the format, the file.

    Raises:
        ExportError: If one cannot be exported.
    """
    files = {}
    for entry in entries:
        for name in formats:
            file = folder / name / f'{entry.name.replace(" ", "_")}{FORMATS[name].suffix}'
            if not file.is_file():
                file.parent.mkdir(parents=True, exist_ok=True)
                _export(entry, name, file)
            files[entry.name, name] = file
    return files


def _export(entry: Entry, format: str, file: Path) -> None:
    size = (entry.height, entry.width)
    preprocessing = Preprocessing(size, size, False, 'BGR', (0.0,) * 3, (1.0,) * 3, (0.0,) * 3)
    # Some writers change the network.
    network = ExportNetwork(copy.deepcopy(entry.model), 'detections', preprocessing, select=False)
    head: BaseDenseHead = network.detector.bbox_head
    metadata = dict(
        mode='nms',
        classes=[str(number) for number in range(head.num_classes)],
        **preprocessing.metadata(),
        **describe_nms(head.test_cfg, network),
    )
    torch.manual_seed(0)
    inputs = torch.randn(1, 3, *size)
    FORMATS[format].write(network, inputs, file, metadata, Conversion(1, 'torchscript', 18))


def measure_formats(
    files: Mapping[tuple[str, str], Path],
    entries: Iterable[Entry],
    threads: int,
    rounds: int,
    cpu_time: bool = False,
) -> tuple[Times, list[str]]:
    """Times exported detectors by turns, each in a process of its own, one image at a time.

    Args:
        files: The files that :func:`export_entries` returned.
        entries: The entries that were exported.
        threads: How many compute.
        rounds: Timed calls of each.
        cpu_time: Whether the times are CPU times, see
            :func:`~hadaptive_runtime.timing.time_in_turn`.

    Returns:
        The seconds of each round, and for each one that cannot be run the reason.

    Raises:
        ExportError: If one of them ends while it is timed.
    """
    sizes = {entry.name: (entry.height, entry.width) for entry in entries}
    rng = np.random.default_rng(0)
    images = {name: rng.standard_normal((1, 3, *size), np.float32) for name, size in sizes.items()}
    keys = {f'{name} {format}': (name, format) for name, format in files}
    failures: dict[str, ExportError] = {}
    seconds = time_in_turn(
        {text: files[key] for text, key in keys.items()},
        {text: images[name] for text, (name, _) in keys.items()},
        threads,
        rounds,
        whole=False,
        failures=failures,
        cpu_time=cpu_time,
    )
    times = {keys[text]: values for text, values in seconds.items()}
    return times, [str(error) for error in failures.values()]


def compare_formats(times: Times, reference: str) -> tuple[list[str], list[list[str]]]:
    """Describes the times of detectors in all runtimes, and in the best one of each.

    Args:
        times: The times that :func:`measure_formats` returned.
        reference: Name of the detector that the others are divided by.

    Returns:
        Headings, and for each detector the cells of its row: the medians in milliseconds, empty
        where it cannot be run; the runtime with the lowest; and the ratio of the times in that one
        to those of the reference in its own best one, as median and quartiles of the ratios within
        a round.
    """
    names = list(dict.fromkeys(name for name, _ in times))
    formats = list(dict.fromkeys(format for _, format in times))
    medians = {key: float(np.median(seconds)) for key, seconds in times.items()}
    best = {
        name: min(formats, key=lambda format: medians.get((name, format), np.inf)) for name in names
    }
    base = times[reference, best[reference]]
    runtimes = {format: FORMATS[format].runtime for format in formats}
    headings = ['config', *(f'{runtime} ms' for runtime in runtimes.values()), 'best', 'ratio']
    rows = [
        [
            name,
            *(
                f'{1000 * medians[name, format]:.2f}' if (name, format) in medians else ''
                for format in formats
            ),
            runtimes[best[name]],
            describe_times(times[name, best[name]], base)[1],
        ]
        for name in names
    ]
    return headings, rows
