"""A browser that is driven by the WebDriver protocol, and a server for what it opens.

The protocol is a standard of the W3C, JSON over HTTP, that the drivers of all browsers speak. What
is needed of it here is less than a library for it, with what that depends on.
"""

import base64
import json
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

_CHROMIUM = ('chromium', 'chromium-browser', 'google-chrome')
_ARGUMENTS = (
    '--headless',
    # Whoever tests in a container is root there.
    '--no-sandbox',
    '--disable-gpu',
    # Where transparent images are read through WebGL, by the processor.
    '--enable-unsafe-swiftshader',
    # Looks nothing up, and sends nothing.
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
)
# By which WebDriver names elements.
_ELEMENT = 'element-6066-11e4-a52e-4f735466cecf'
_SECONDS = 60


class Browser:
    """A session of a browser; :func:`open_browser` makes it."""

    def __init__(self, address: str) -> None:
        self._address = address
        # What is on this machine needs no proxy.
        self._opener = build_opener(ProxyHandler({}))

    def call(self, method: str, path: str, **body: Any) -> Any:
        """Sends a command of the protocol and returns its value."""
        data = json.dumps(body).encode() if method == 'POST' else None
        request = Request(self._address + path, data, method=method)
        request.add_header('Content-Type', 'application/json')
        try:
            with self._opener.open(request, timeout=_SECONDS) as response:
                return json.load(response)['value']
        except HTTPError as error:
            raise RuntimeError(json.load(error)['value']['message']) from error

    def open(self, url: str) -> None:
        """Opens a page."""
        self.call('POST', '/url', url=url)

    @contextmanager
    def window(self) -> Iterator[None]:
        """Does what follows in a window of its own."""
        before = self.call('GET', '/window')
        made = self.call('POST', '/window/new', type='window')['handle']
        self.call('POST', '/window', handle=made)
        try:
            yield
        finally:
            self.call('DELETE', '/window')
            self.call('POST', '/window', handle=before)

    def run(self, code: str, *arguments: Any) -> Any:
        """Runs JavaScript in the page; returns what it returns, or what that promises."""
        return self.call('POST', '/execute/sync', script=code, args=arguments)

    def type(self, selector: str, text: str) -> None:
        """Types into what a CSS selector finds; the path of a file into a field for files."""
        element = self.call('POST', '/element', using='css selector', value=selector)[_ELEMENT]
        self.call('POST', f'/element/{element}/value', text=text)

    def wait(self, code: str, *arguments: Any) -> Any:
        """Runs JavaScript until it returns something true, and returns that."""
        end = time.monotonic() + _SECONDS
        while not (value := self.run(code, *arguments)):
            if time.monotonic() > end:
                text = self.run('return document.body.innerText')
                raise TimeoutError(f'not within {_SECONDS} s: {code}; the page says: {text}')
            time.sleep(0.05)
        return value

    def emulate(self, width: int, height: int, dark: bool = False, mobile: bool = False) -> None:
        """Gives the page a size, in CSS pixels, and light or dark colours; Chromium's commands."""
        scheme = [dict(name='prefers-color-scheme', value='dark' if dark else 'light')]
        for command, parameters in {
            'Emulation.setDeviceMetricsOverride': dict(
                width=width, height=height, deviceScaleFactor=1, mobile=mobile
            ),
            'Emulation.setEmulatedMedia': dict(features=scheme),
        }.items():
            self.call('POST', '/goog/cdp/execute', cmd=command, params=parameters)

    def photograph(self) -> bytes:
        """The page, as far as it is seen, as a PNG file."""
        return base64.b64decode(self.call('GET', '/screenshot'))


def missing_browser() -> str:
    """Says what is missing for :func:`open_browser`; nothing if all is there."""
    if shutil.which('chromedriver') and any(map(shutil.which, _CHROMIUM)):
        return ''
    return 'needs Chromium and its driver: apt-get install chromium chromium-driver'


@contextmanager
def open_browser(*arguments: str) -> Iterator[Browser]:
    """Starts Chromium without a window, with an empty profile, and ends it.

    Args:
        arguments: More of its own, such as for a camera.

    Yields:
        The browser.

    Raises:
        RuntimeError: If there is none, or it does not start.
    """
    if missing := missing_browser():
        raise RuntimeError(missing)
    binary = next(filter(None, map(shutil.which, _CHROMIUM)))
    with TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        # Port 0 is any that is free, and which it is is said in a line.
        driver = subprocess.Popen(
            ['chromedriver', '--port=0'],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        try:
            port = _read_port(driver)
            options = dict(
                binary=binary, args=[*_ARGUMENTS, f'--user-data-dir={profile}', *arguments]
            )
            capabilities = {'browserName': 'chrome', 'goog:chromeOptions': options}
            address = f'http://127.0.0.1:{port}/session'
            started = Browser(address).call('POST', '', capabilities=dict(alwaysMatch=capabilities))
            browser = Browser(f'{address}/{started["sessionId"]}')
            try:
                yield browser
            finally:
                browser.call('DELETE', '')
        finally:
            driver.terminate()
            driver.wait()
            driver.stdout.close()


def _read_port(driver: subprocess.Popen[str]) -> int:
    said = []
    for line in driver.stdout:
        said.append(line)
        if 'started successfully on port' in line:
            return int(line.split('port')[-1].strip(' .\n'))
    raise RuntimeError(f'chromedriver does not start: {"".join(said)[-500:]}')


class _Server(ThreadingHTTPServer):
    def handle_error(self, *_: Any) -> None:
        # A browser that has seen enough closes the connection.
        pass


@contextmanager
def serve(folder: Path, headers: Mapping[str, str] | None = None) -> Iterator[str]:
    """Serves a folder to this machine, as ``python -m http.server`` does.

    Args:
        folder: What is served.
        headers: More headers of every answer.

    Yields:
        The address, with a free port.
    """

    class Handler(SimpleHTTPRequestHandler):
        def end_headers(self) -> None:
            for name, value in (headers or {}).items():
                self.send_header(name, value)
            super().end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    handler: Callable[..., SimpleHTTPRequestHandler] = partial(Handler, directory=str(folder))
    with _Server(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f'http://127.0.0.1:{server.server_port}/'
        server.shutdown()
