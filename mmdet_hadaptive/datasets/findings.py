"""What is wrong with a data set."""

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong with a data set.

    Attributes:
        is_error: Whether training on it would fail or learn something wrong. Otherwise it is a
            note on what training leaves out or clips.
        problem: What is wrong.
        remedy: What to do about it.
        places: The places where it was found; empty if it has none.
    """

    is_error: bool
    problem: str
    remedy: str
    places: tuple[str, ...] = ()

    def describe(self, max_places: int | None = None) -> str:
        """One line that says all.

        Args:
            max_places: How many places to name; all if not given.

        Returns:
            'ERROR' or 'note', the problem, its places and the remedy.
        """
        shown = self.places[:max_places]
        more = ', ...' if len(shown) < len(self.places) else ''
        places = f' ({", ".join(shown)}{more})' if shown else ''
        kind = 'ERROR' if self.is_error else 'note'
        text = f'{kind}: {self.problem}{places}. {self.remedy}'
        # Names in a file may hold line breaks, and halves of characters that cannot be printed.
        return ''.join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def note(problem: str, remedy: str, places: Iterable[str] | None = None) -> list[Finding]:
    """Makes a remark on what training leaves out or clips.

    Args:
        problem: The problem; the number of places, if there are such, is put before it.
        remedy: What the user can do, as in :class:`Finding`.
        places: The places where the problem was found; None if it has none.

    Returns:
        One finding, or none if the list of places is empty.
    """
    return _find(False, problem, remedy, places)


def error(problem: str, remedy: str, places: Iterable[str] | None = None) -> list[Finding]:
    """Does what :func:`note` does, for what makes training fail or learn something wrong."""
    return _find(True, problem, remedy, places)


def _find(is_error: bool, problem: str, remedy: str, places: Iterable[str] | None) -> list[Finding]:
    if places is None:
        return [Finding(is_error, problem, remedy)]
    places = tuple(places)
    return [Finding(is_error, f'{len(places)} {problem}', remedy, places)] if places else []
