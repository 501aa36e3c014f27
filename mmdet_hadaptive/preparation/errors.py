"""The error of this room."""


class PreparationError(ValueError):
    """A folder cannot be made a data set; the message names the reason and the remedy."""
