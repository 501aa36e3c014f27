"""A folder of annotated images becomes a data set and a config that trains on it."""

from .errors import PreparationError
from .prepare import PreparedDataset, prepare_dataset

__all__ = ['PreparationError', 'PreparedDataset', 'prepare_dataset']
