"""The errors of the swap. Each has one line."""


class SwapError(ValueError):
    """A config's backbone cannot be replaced. The message has one line with place and reason."""

    def __init__(self, message: str) -> None:
        # A name in a user's config may contain a line break.
        super().__init__(' '.join(message.split()))


class SmokeTestError(SwapError):
    """A detector cannot be built, does not learn, or does not predict. The message says why."""
