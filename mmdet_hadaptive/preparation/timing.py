"""Measures the time of a training on this machine."""

import time
from itertools import chain, islice, repeat

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.runner import Runner

_WARM_UP, _MEASURED = 3, 6


def measure_iteration(config: Config) -> float:
    """Trains for a few iterations with untrained weights, and measures the time.

    Args:
        config: The config of a training.

    Returns:
        The seconds of an iteration, including the loading of images.

    Raises:
        ValueError: If there are fewer training images than a batch has.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    model = MODELS.build(config.model).to(get_device()).train()
    if any(hook['type'] == 'ChannelsLastHook' for hook in config.custom_hooks):
        model.to(memory_format=torch.channels_last)
    optimizer = build_optim_wrapper(model, config.optim_wrapper)
    loader = Runner.build_dataloader(config.train_dataloader, seed=0)
    if not len(loader):
        raise ValueError(
            f'the training images do not fill a batch of {config.train_dataloader.batch_size}: '
            'add images or use a smaller batch'
        )
    # An epoch may have fewer iterations than are measured.
    batches = chain.from_iterable(repeat(loader))
    for index, batch in enumerate(islice(batches, _WARM_UP + _MEASURED)):
        if index == _WARM_UP:
            begin = _now()
        model.train_step(batch, optimizer)
    return (_now() - begin) / _MEASURED


def _now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
