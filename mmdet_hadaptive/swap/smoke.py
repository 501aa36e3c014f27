"""Tests a detector with one training step and one prediction on random images."""

import copy
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import MODELS
from mmdet.testing import demo_mm_inputs
from mmengine.config import Config
from mmengine.logging import MessageHub
from mmengine.model import BaseModel, revert_sync_batchnorm
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from mmengine.utils import get_installed_path

from hadaptive_runtime.errors import describe_error

from ..utils.configs import type_name, walk
from ..utils.costs import Costs, count_costs, count_macs, count_parameters
from .edits import loads_weights
from .errors import SmokeTestError

# Synchronised normalisation needs GPUs, so it is replaced.
_REPLACED_TYPES = {'MMSyncBN': 'BN'}
# These keys are removed: weights to download, and augmentations that change the image size.
_DROPPED_KEYS = ('pretrained', 'teacher_ckpt', 'batch_augments')


@dataclass(frozen=True)
class SmokeTestResult:
    """The result of one training step and one prediction on random images.

    Attributes:
        loss: The sum of the losses.
        gradient: The largest gradient of the backbone's first convolution.
        detections: The number of predicted instances.
        costs: The costs of the 'detector' and of its 'backbone' for one image.
    """

    loss: float
    gradient: float
    detections: int
    costs: dict[str, Costs]


def build_for_smoke_test(config: Config) -> BaseModel:
    """Builds a detector with random weights, for small images on any device.

    It leaves out weights to download, synchronised normalisation (which needs GPUs), and batch
    augmentations (which change the image size).

    Args:
        config: A config of a detector.

    Returns:
        The initialised detector.

    Raises:
        SmokeTestError: If it cannot be built.
    """
    with _smoke_test_errors():
        init_default_scope('mmdet')
        model = copy.deepcopy(config.model)
        for _, node in walk(model):
            _adapt(node)
        detector = MODELS.build(model)
        # MMEngine would log each parameter.
        logging.disable(logging.INFO)
        try:
            detector.init_weights()
        finally:
            logging.disable(logging.NOTSET)
        return revert_sync_batchnorm(detector)


def smoke_test(config: Config, size: int) -> SmokeTestResult:
    """Runs a training step and a prediction of a detector on random images.

    Args:
        config: The config.
        size: The side of the images in pixels.

    Returns:
        The result.

    Raises:
        SmokeTestError: If the detector cannot be built or fails, if the loss, a prediction or the
            backbone's gradient is not finite, or if the backbone gets no gradient.
    """
    model = build_for_smoke_test(config)
    with _smoke_test_errors():
        batch = _make_batch(config, 2, size, training=True)
        model.train()
        # MMEngine's runner sets this for losses that change during a training.
        MessageHub.get_current_instance().update_info_dict(dict(iter=0, epoch=0))
        if hasattr(model, 'set_epoch'):
            model.set_epoch(0)
        total, _ = model.parse_losses(model(**model.data_preprocessor(batch, True), mode='loss'))
        if not torch.isfinite(total):
            raise SmokeTestError(f'the loss on random images is {total.item()}')
        total.backward()
        trained = (p for p in _network(model).backbone.parameters() if p.requires_grad)
        first = next(trained, None)
        gradient = None if first is None else first.grad
        # By default zero_grad sets gradients to None, so this one is not changed.
        model.zero_grad()
        model.eval()
        with torch.no_grad():
            results = model.test_step(_make_batch(config, 1, size))
        detections = 0
        for result in results:
            instances = result.get('pred_instances', InstanceData())
            detections += len(instances)
            for key, value in instances.items():
                if isinstance(value, torch.Tensor) and not torch.isfinite(value.float()).all():
                    raise SmokeTestError(f'{key} of a prediction on random images are not finite')
        if gradient is None or not torch.isfinite(gradient).all() or not gradient.any():
            raise SmokeTestError(
                f'the gradient of the first weight of the backbone is {gradient}'[:200]
            )
        largest = gradient.abs().max().item()
        return SmokeTestResult(total.item(), largest, detections, _count_costs(model, config, size))


def count_detector_costs(config: Config, size: int) -> dict[str, Costs]:
    """Counts the costs of a detector and of its backbone, including post-processing.

    Args:
        config: The config of the detector.
        size: The side of the image in pixels.

    Returns:
        The costs of the 'detector' and of its 'backbone'.

    Raises:
        SmokeTestError: If the detector cannot be built or cannot predict.
    """
    model = build_for_smoke_test(config)
    with _smoke_test_errors():
        return _count_costs(model, config, size)


@contextmanager
def _smoke_test_errors() -> Iterator[None]:
    """Turns any exception into an error. MMDetection raises many types for a wrong config."""
    try:
        yield
    except SmokeTestError:
        raise
    except Exception as error:
        raise SmokeTestError(describe_error(error)) from error


def _adapt(node: dict[str, Any]) -> None:
    """Removes settings that a smoke test cannot or need not have."""
    if loads_weights(node.get('init_cfg')):
        node['init_cfg'] = None
    for key in _DROPPED_KEYS:
        if key in node:
            node[key] = None
    if type_name(node.get('type')) in _REPLACED_TYPES:
        node['type'] = _REPLACED_TYPES[type_name(node['type'])]
    teacher = node.get('teacher_config')
    if isinstance(teacher, str) and not Path(teacher).exists():
        # The path is relative to MMDetection's source folder.
        node['teacher_config'] = str(Path(get_installed_path('mmdet')) / '.mim' / teacher)


def _count_costs(model: BaseModel, config: Config, size: int) -> dict[str, Costs]:
    # PyTorch's counter fails for views of weights that require gradients.
    model.eval()
    model.requires_grad_(False)
    batch = _make_batch(config, 1, size)
    network = _network(model)
    return dict(
        detector=Costs(count_parameters(network), count_macs(lambda: model.test_step(batch))),
        backbone=count_costs(network.backbone, size, size),
    )


def _network(model: BaseModel) -> BaseModel:
    """Returns the network that learns. A semi-supervised detector has two."""
    return model.student if hasattr(model, 'student') else model


def _make_batch(config: Config, number: int, size: int, training: bool = False) -> dict[str, Any]:
    """Makes random images with boxes, masks, a semantic map and proposals, not preprocessed."""
    nodes = [node for _, node in walk(config.to_dict())]
    rescale = [
        node['scale_factor'] for node in nodes if type_name(node.get('type')) == 'SegRescale'
    ]
    panoptic = any(type_name(node.get('type')) == 'LoadPanopticAnnotations' for node in nodes)
    batch = demo_mm_inputs(
        number,
        (3, size, size),
        num_items=[4] * number,
        num_classes=2,
        # The detector may not accept annotations that the config does not load.
        with_mask=panoptic or any(node.get('with_mask') for node in nodes),
        with_semantic=panoptic or any(node.get('with_seg') for node in nodes),
        sem_seg_output_strides=round(1 / rescale[0]) if rescale else 1,
    )
    for sample in batch['data_samples']:
        # All detectors have a class 0.
        sample.gt_instances.labels.zero_()
        # Fast R-CNN has no region proposal network.
        if not any('rpn_head' in node for node in nodes):
            sample.proposals = InstanceData(
                bboxes=sample.gt_instances.bboxes.clone(), scores=torch.ones(4)
            )
        sample.set_metainfo(dict(homography_matrix=np.eye(3, dtype=np.float32)))
    preprocessor = config.model.get('data_preprocessor') or {}
    if training and type_name(preprocessor.get('type')) == 'MultiBranchDataPreprocessor':
        branches = ('sup', 'unsup_teacher', 'unsup_student')
        return {key: {b: copy.deepcopy(batch[key]) for b in branches} for key in batch}
    return batch
