"""Makes a data set, and a config that trains on it, from a folder of annotated images."""

from .annotations import PreparationError
from .formats import FORMATS
from .prepare import PreparedDataset, prepare_dataset
from .recipe import Recipe

__all__ = ['FORMATS', 'PreparationError', 'PreparedDataset', 'Recipe', 'prepare_dataset']
