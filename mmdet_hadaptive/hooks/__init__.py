"""Hooks for MMEngine's runner: trainings that survive faults, and that can be looked into."""

from .atomic_checkpoint import AtomicCheckpointHook, AtomicLocalBackend
from .channels_last import ChannelsLastHook
from .epoch_seed import EpochSeedHook
from .invalid_loss import StopOnInvalidLossHook
from .mid_epoch import MidEpochTrainLoop
from .selection import SelectionHook

__all__ = [
    'AtomicCheckpointHook',
    'AtomicLocalBackend',
    'ChannelsLastHook',
    'EpochSeedHook',
    'MidEpochTrainLoop',
    'SelectionHook',
    'StopOnInvalidLossHook',
]
