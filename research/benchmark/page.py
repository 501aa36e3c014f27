"""An exported page in a browser: used, measured and photographed."""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .browser import Browser, open_browser, serve

# With these a page may have threads: nothing else than the page can look into its memory.
ISOLATION = {
    'Cross-Origin-Opener-Policy': 'same-origin',
    'Cross-Origin-Embedder-Policy': 'require-corp',
}


class Page:
    """A page of ``tools/export.py --format web``, as somebody uses it.

    Args:
        browser: The browser that shows the page.
    """

    def __init__(self, browser: Browser) -> None:
        self.browser = browser

    def open(self, url: str) -> str:
        """Opens the page and returns how it ends: 'ready' or 'broken'."""
        self.browser.open(url)
        return self.browser.wait('return document.body.dataset.state')

    def find(self, selector: str, what: str) -> Any:
        """A property of the element that a CSS selector finds."""
        code = 'return document.querySelector(arguments[0])[arguments[1]]'
        return self.browser.run(code, selector, what)

    def text(self, selector: str) -> str:
        """The text of an element."""
        return self.find(selector, 'textContent')

    def click(self, selector: str) -> None:
        """Clicks on an element."""
        self.browser.run('document.querySelector(arguments[0]).click()', selector)

    def show(self, file: Path) -> list[list[str]]:
        """Opens a file, waits for its boxes or an error, and returns :meth:`rows`."""
        self.browser.run("document.querySelector('#speed').textContent = ''")
        self.browser.type('#file', str(file.resolve()))
        self.browser.wait(
            "return document.querySelector('#speed').textContent || "
            "!document.querySelector('#error').hidden"
        )
        return self.rows()

    def rows(self) -> list[list[str]]:
        """Of each box the class, the score, and the box in pixels of the image."""
        return self.browser.run(
            "return [...document.querySelectorAll('#boxes tr')]"
            '.map((row) => [...row.cells].map((cell) => cell.textContent))'
        )

    def set_threshold(self, value: float) -> None:
        """Moves the slider; the page rounds to hundredths, within its limits."""
        self.browser.run(
            "const slider = document.querySelector('#threshold'); slider.value = arguments[0];"
            "slider.dispatchEvent(new Event('input'))",
            value,
        )


@dataclass(frozen=True)
class PageCosts:
    """What a page took.

    Attributes:
        start: Seconds from opening it until it is ready.
        milliseconds: The time of each image, from its pixels to its boxes.
        ready: What the page says when it is ready.
    """

    start: float
    milliseconds: list[float]
    ready: str


def measure_page(
    folder: Path,
    image: Path,
    rounds: int,
    *,
    isolated: bool = False,
    threshold: float | None = None,
    picture: Path | None = None,
    size: tuple[int, int] = (1100, 900),
    dark: bool = False,
) -> PageCosts:
    """Measures a page in Chromium, and may photograph it.

    Args:
        folder: A folder that ``tools/export.py --format web`` wrote.
        image: The image that is shown.
        rounds: How often; the first ones are slower, while the browser compiles.
        isolated: Whether the server lets the page have threads.
        threshold: The lowest score that is shown; by default the page's.
        picture: PNG file for a picture of the page; None for none.
        size: Width and height of the window, in CSS pixels.
        dark: Whether dark colours are preferred.

    Returns:
        The costs.

    Raises:
        RuntimeError: If there is no Chromium, or the page does not work.
    """
    with serve(folder, ISOLATION if isolated else None) as url, open_browser() as browser:
        browser.emulate(*size, dark=dark, mobile=size[0] < 600)
        page = Page(browser)
        start = time.perf_counter()
        if page.open(url) != 'ready':
            raise RuntimeError(f'{folder}: {page.text("#error")}')
        seconds, ready = time.perf_counter() - start, page.text('#status')
        if threshold is not None:
            page.set_threshold(threshold)
        milliseconds = []
        for _ in range(rounds):
            page.show(image)
            if error := page.text('#error'):
                raise RuntimeError(f'{folder}: {error}')
            milliseconds.append(float(re.match(r'[\d.]+', page.text('#speed')).group()))
        if picture is not None:
            picture.write_bytes(browser.photograph())
    return PageCosts(seconds, milliseconds, ready)
