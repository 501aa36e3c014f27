"""What the swap raises, one line each."""


class SwapError(ValueError):
    """The backbone of a config cannot be replaced; the message, one line, says where and why."""

    def __init__(self, message: str) -> None:
        # Configs are written by others: a name in them may contain a line break.
        super().__init__(' '.join(message.split()))


class SmokeTestError(SwapError):
    """A detector cannot be built, does not learn or does not predict; the message says why."""
