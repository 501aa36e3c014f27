"""Compares the input pipelines of configs: their speed, and what they draw."""

import time
from pathlib import Path
from typing import Any

import numpy as np
from mmdet.datasets import CocoDataset
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.progress import track
from scipy.stats import ks_2samp

from mmdet_hadaptive.utils.configs import coco_datasets


def build_train_data(config: Config, data_root: str | Path) -> CocoDataset:
    """Builds the training data of a config, without what repeats or mixes it.

    Args:
        config: The config of a detector, with one training set in COCO's format.
        data_root: The folder that has its annotations and images.

    Returns:
        The data set with the config's pipeline.
    """
    init_default_scope(config.default_scope)
    (dataset,) = coco_datasets(config.train_dataloader.dataset)
    return DATASETS.build({**dataset, 'data_root': f'{data_root}/'})


def time_in_turn(
    datasets: dict[str, CocoDataset], rounds: int, images_per_round: int
) -> dict[str, dict[str, np.ndarray]]:
    """Times all transforms of pipelines by turns, on the same images.

    What counts is the time of the process, not that of the clock: on a machine that does other
    things as well, a clock shows how many images a part of a core prepares.

    Args:
        datasets: What :func:`build_train_data` built, by name.
        rounds: How often each pipeline gets its turn, after one that is not counted.
        images_per_round: How many images it prepares then.

    Returns:
        For each name and each transform the processor's seconds per image, one value per round;
        in the order of the pipeline.
    """
    times = {
        name: {type(transform).__name__: np.zeros(rounds) for transform in data.pipeline.transforms}
        for name, data in datasets.items()
    }
    num_images = min(map(len, datasets.values()))
    for index in track(range(-1, rounds), 'measuring', transient=True):
        images = np.random.default_rng(index + 1).integers(num_images, size=images_per_round)
        for name, data in datasets.items():
            for image in images:
                sample = data.get_data_info(int(image))
                for transform in data.pipeline.transforms:
                    start = time.process_time()
                    sample = transform(sample)
                    end = time.process_time()
                    if index >= 0:
                        step = times[name][type(transform).__name__]
                        step[index] += (end - start) / images_per_round
    return times


def describe_draw(sample: dict[str, Any], scale: tuple[int, int]) -> dict[str, float]:
    """Numbers that say what a pipeline has drawn for an image.

    Args:
        sample: What ``PackDetInputs`` made.
        scale: Width and height of its image.

    Returns:
        Size of the crop in pixels of the original; number of boxes, and place and size of one of
        them in pixels of the result; mean, standard deviation and mean difference of neighbours
        of the pixel values. NaN where there is no box.
    """
    info, pixels = sample['data_samples'], sample['inputs'].float()
    boxes = info.gt_instances.bboxes.tensor
    box = boxes[len(boxes) // 2].tolist() if len(boxes) else [np.nan] * 4
    return {
        'crop width': scale[0] / info.scale_factor[0],
        'crop height': scale[1] / info.scale_factor[1],
        'boxes': len(boxes),
        'box left': box[0],
        'box top': box[1],
        'box width': box[2] - box[0],
        'box height': box[3] - box[1],
        'pixel mean': pixels.mean().item(),
        'pixel deviation': pixels.std().item(),
        'pixel gradient': pixels.diff(dim=2).abs().mean().item(),
    }


def compare_draws(
    first: CocoDataset, second: CocoDataset, draws: int, scale: tuple[int, int]
) -> dict[str, tuple[float, float, float, float]]:
    """Compares the distributions of what two pipelines draw, by Kolmogorov and Smirnov's test.

    Args:
        first: A data set with one pipeline.
        second: The same with another, of the same output size.
        draws: Images that each prepares, all of them in turn.
        scale: Width and height of the results.

    Returns:
        For each number of :func:`describe_draw` the two means, the largest distance of the
        distribution functions, and the probability of one as large if they are the same.
    """
    rows: tuple[list, list] = ([], [])
    for index in track(range(draws), 'drawing', transient=True):
        for data, found in zip((first, second), rows, strict=True):
            found.append(describe_draw(data.prepare_data(index % len(data)), scale))
    result = {}
    for key in rows[0][0]:
        values = [np.array([row[key] for row in found], float) for found in rows]
        values = [value[np.isfinite(value)] for value in values]
        test = ks_2samp(*values)
        result[key] = (values[0].mean(), values[1].mean(), test.statistic, test.pvalue)
    return result
