"""The findings of the checks of a data set."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One problem of a data set.

    Attributes:
        is_error: Whether a training would fail or learn something wrong. Otherwise it is a note
            on what the training leaves out or clips.
        problem: The problem.
        remedy: The remedy.
        places: The places of the problem. Empty if it has none.
    """

    is_error: bool
    problem: str
    remedy: str
    places: tuple[str, ...] = ()

    def describe(self, max_places: int | None = None) -> str:
        """Describes the finding in one line.

        Args:
            max_places: How many places to name. The default is all.

        Returns:
            'ERROR' or 'note', the problem, its places and the remedy.
        """
        shown = self.places[:max_places]
        more = ', ...' if len(shown) < len(self.places) else ''
        places = f' ({", ".join(shown)}{more})' if shown else ''
        kind = 'ERROR' if self.is_error else 'note'
        text = f'{kind}: {self.problem}{places}. {self.remedy}'
        # Names in a file may contain line breaks, and surrogates, which cannot be printed.
        return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def note(problem: str, remedy: str, places: Iterable[str] | None = None) -> list[Finding]:
    """Makes a finding about what the training leaves out or clips.

    Args:
        problem: The problem. The number of places, if any, is put before it.
        remedy: The remedy.
        places: The places of the problem. None if it has none.

    Returns:
        One finding, or none if the list of places is empty.
    """
    return _find(False, problem, remedy, places)


def error(problem: str, remedy: str, places: Iterable[str] | None = None) -> list[Finding]:
    """Makes an error, see :func:`note`: a training would fail or learn something wrong."""
    return _find(True, problem, remedy, places)


def _find(is_error: bool, problem: str, remedy: str, places: Iterable[str] | None) -> list[Finding]:
    if places is None:
        return [Finding(is_error, problem, remedy)]
    places = tuple(places)
    return [Finding(is_error, f'{len(places)} {problem}', remedy, places)] if places else []
