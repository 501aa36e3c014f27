"""Measures detectors on the training and validation images of their configs."""

import copy
import io
import logging
from collections.abc import Callable
from contextlib import redirect_stdout
from typing import Any

import numpy as np
import torch
from mmdet.evaluation import CocoMetric
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmengine.model import BaseModel
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from torch.utils.data import ConcatDataset, DataLoader, Subset

from ..utils.configs import coco_datasets
from ..utils.metrics import MAP
from .preprocessing import find_test_pipeline
from .product_statistics import ProductStatistics, collect_product_statistics, product_bottlenecks


def collect_on_training_images(
    detector: BaseModel, config: Config, num_images: int
) -> dict[str, ProductStatistics]:
    """Measures the contributions of products on training images, by the test pipeline.

    Args:
        detector: A trained detector, not fused. It is put into eval mode.
        config: The detector's config.
        num_images: The number of training images, evenly spaced in the data set. If it has fewer,
            all.

    Returns:
        The statistics of each bottleneck.

    Raises:
        ValueError: If ``num_images`` is below 1, if the detector has no products, or if the config
            has no usable training data.
        OSError: If an image cannot be read.
    """
    if num_images < 1:
        raise ValueError(f'at least 1 training image is needed, got {num_images}')
    bottlenecks = product_bottlenecks(detector)
    loader = config.get('train_dataloader')
    parts = coco_datasets(loader.dataset) if loader else []
    if not parts:
        raise ValueError(
            'the config has no training data (train_dataloader with an ann_file), on which to '
            'measure what the products contribute: use the config of the training'
        )
    init_default_scope(config.get('default_scope', 'mmdet'))
    try:
        data = ConcatDataset([DATASETS.build(_for_tests(part, config)) for part in parts])
    except (OSError, ValueError) as error:
        raise ValueError(f"the config's training data cannot be read: {error}") from error
    places = np.linspace(0, len(data) - 1, min(num_images, len(data))).round().astype(int)
    detector.eval()
    with torch.no_grad(), collect_product_statistics(bottlenecks) as statistics:
        for batch in DataLoader(Subset(data, places), collate_fn=pseudo_collate):
            detector.test_step(batch)
    return statistics


def make_evaluation(config: Config) -> Callable[[BaseModel], float]:
    """Makes a function that evaluates detectors on a config's validation data.

    Args:
        config: The config. Its test pipeline reads its validation images, as in the export. Its
            ``val_evaluator`` gives the metric.

    Returns:
        A function that returns the mAP of a detector in 0..1, and 0 without detections. It puts the
        detector into eval mode.

    Raises:
        ValueError: If the config has no validation data or no ``val_evaluator``. The function
            raises it if the evaluator does not give COCO's mAP.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    if not config.get('val_dataloader') or not config.get('val_evaluator'):
        raise ValueError(
            'the config has no validation data (val_dataloader and val_evaluator), on which to '
            'evaluate the detector: use the config of the training'
        )
    options = copy.deepcopy(config.val_dataloader)
    for part in coco_datasets(options.dataset):
        part.update(_for_tests(part, config))
    loader = Runner.build_dataloader(options, seed=0)
    evaluator = Evaluator(config.val_evaluator)
    evaluator.dataset_meta = loader.dataset.metainfo

    @torch.no_grad()
    def evaluate(detector: BaseModel) -> float:
        detector.eval()
        for batch in loader:
            evaluator.process(detector.val_step(batch), batch)
        logger = MMLogger.get_current_instance()
        level = logger.level
        # The metric would log and print tables each time.
        logger.setLevel(logging.WARNING)
        try:
            with redirect_stdout(io.StringIO()):
                metrics = evaluator.evaluate(len(loader.dataset))
        finally:
            logger.setLevel(level)
        if not metrics and any(isinstance(metric, CocoMetric) for metric in evaluator.metrics):
            # Without any detection, the metric only logs it.
            return 0.0
        if MAP not in metrics:
            raise ValueError(
                f'val_evaluator gives {", ".join(metrics) or "nothing"}, not {MAP}: use '
                'CocoMetric, or call the functions of this package with an evaluate of your own'
            )
        return metrics[MAP]

    return evaluate


def _for_tests(dataset: dict[str, Any], config: Config) -> dict[str, Any]:
    """Builds a data set that reads all images by the test pipeline."""
    return {**dataset, 'pipeline': find_test_pipeline(config), 'test_mode': True}
