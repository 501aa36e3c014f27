"""Hooks and loops for MMEngine's runner. Trainings survive faults and can be resumed."""

from .atomic_checkpoint import AtomicCheckpointHook, AtomicLocalBackend
from .channels_last import ChannelsLastHook
from .epoch_seed import EpochSeedHook
from .invalid_loss import StopOnInvalidLossHook
from .train_loop import ResumableTrainLoop
from .training_report import TrainingReportHook

__all__ = [
    'AtomicCheckpointHook',
    'AtomicLocalBackend',
    'ChannelsLastHook',
    'EpochSeedHook',
    'ResumableTrainLoop',
    'StopOnInvalidLossHook',
    'TrainingReportHook',
]
