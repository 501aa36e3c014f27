"""Tries the swap tool on MMDetection's configs."""

import json
import multiprocessing
import os
import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection, wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config
from mmengine.utils import get_installed_path

from hadaptive_runtime.errors import describe_error
from mmdet_hadaptive.swap import (
    SmokeTestError,
    SwapError,
    find_detector,
    load_source,
    smoke_test,
    swap_backbone,
)
from mmdet_hadaptive.utils.files import write_whole
from mmdet_hadaptive.utils.installation import installed_versions

from ..markdown import markdown_table

WORKS, NOT_APPLICABLE, FAILS = 'works', 'not applicable', 'fails'
# The source, unchanged, ends with the same error.
SOURCE_FAILS = 'source fails too'
# Where the simplest config is not the one that tells most.
_CHOICES = {
    # The simplest describes an RPN that mmdet 3.3.0 cannot build.
    'cascade_rpn': 'cascade-rpn_faster-rcnn_r50-caffe_fpn_1x_coco.py',
    # The folder's own neck, with one level; the other configs have an FPN.
    'centernet': 'centernet_r18_8xb16-crop512-140e_coco.py',
    # The simplest ones are about RoI pooling, which exists for CUDA only.
    'dcn': 'faster-rcnn_r50-dconv-c3-c5_fpn_1x_coco.py',
    'dcnv2': 'faster-rcnn_r50-mdconv-c3-c5_fpn_1x_coco.py',
}
_HEADINGS = ('folder', 'config', 'result', 'parameters M before', 'after', 'remark')


@dataclass(frozen=True)
class Outcome:
    """What became of one folder of configs.

    Attributes:
        folder: The folder.
        config: The file in it that stands for it.
        status: 'works', 'not applicable', 'source fails too' or 'fails'.
        remark: The reason, where it does not work.
        before: Parameters of the detector before, if the source runs here.
        after: Parameters of the detector after.
    """

    folder: str
    config: str
    status: str
    remark: str = ''
    before: int | None = None
    after: int | None = None


def list_folders() -> list[Path]:
    """Lists the folders with configs of the installed MMDetection."""
    root = Path(get_installed_path('mmdet')) / '.mim' / 'configs'
    return sorted(path for path in root.iterdir() if any(path.glob('*.py')))


def choose_config(folder: Path) -> str:
    """Chooses a config of a folder.

    It is the simplest by its name (ResNet-50, then the shortest name) among those in which there
    is a backbone to replace, or simply the first if there is none.

    Args:
        folder: The folder.

    Returns:
        The name of the file.
    """
    names = sorted(
        (path.name for path in folder.glob('*.py')),
        key=lambda name: ('r50' not in name, 'caffe' in name, len(name), name),
    )
    swappable = (name for name in names if _has_detector(folder / name))
    return _CHOICES.get(folder.name) or next(swappable, names[0])


def sweep(results: Path, arch: str, size: int, timeout: float) -> Iterator[Outcome]:
    """Replaces the backbone in one config of every folder, each in a process of its own.

    Args:
        results: A file with a line for each finished folder; what it holds of the same network,
            size and versions is not done again.
        arch: The architecture, as for :func:`mmdet_hadaptive.swap.swap_backbone`.
        size: Side length of the random images in pixels.
        timeout: Seconds after which a config counts as failed.

    Yields:
        The outcomes, as they come.
    """
    settings = dict(arch=arch, size=size, versions=installed_versions())
    lines = results.read_text().splitlines() if results.exists() else []
    done = {}
    for line in lines:
        record = json.loads(line)
        if {key: record.pop(key, None) for key in settings} == settings:
            done[record['folder']] = Outcome(**record)
    # Processes come from a server that has imported everything, and computed nothing, already.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmdet.models', 'research.benchmark.swap_sweep'])
    for folder in list_folders():
        outcome = done.get(folder.name)
        if outcome is None:
            outcome = _try(context, folder, choose_config(folder), arch, size, timeout)
            lines.append(json.dumps(asdict(outcome) | settings))
            write_whole('\n'.join(lines) + '\n', results)
        yield outcome


def write_table(outcomes: list[Outcome], out: Path, arch: str, command: str, where: str) -> None:
    """Writes the outcomes as a page.

    Args:
        outcomes: The outcomes.
        out: The Markdown file to write.
        arch: The network they are about.
        command: The command that makes the page.
        where: The software it ran on.
    """
    counts = Counter(outcome.status for outcome in outcomes)
    summary = ', '.join(
        f'{status}: {counts[status]}'
        for status in (WORKS, NOT_APPLICABLE, SOURCE_FAILS, FAILS)
        if counts[status]
    )
    lines = [
        "# In which of MMDetection's detectors can the backbone be replaced?",
        '',
        "**Question.** Does `tools/swap_backbone.py` work on a config of each of MMDetection's "
        'folders?',
        '',
        f'**Answer.** {len(outcomes)} of {len(list_folders())} folders were tried. {summary}.',
        '',
        f'**Command.** `{command}` writes this page. This one was made with `--arch {arch}`, '
        f'{where}.',
        '',
        '- *works*: The detector was built with random weights. The loss on two random images was '
        'finite, the gradient reached the first convolution of the backbone, and a prediction was '
        'finite. This says nothing about accuracy.',
        '- *source fails too*: The config as it is in MMDetection ends here with the same error.',
        '- The config of a folder is the one with the simplest name (ResNet-50, the shortest) that '
        'has a backbone to replace.',
        '- BoxInst, LAD and PAA need scikit-image or scikit-learn.',
        '',
        markdown_table(_HEADINGS, [_cells(outcome) for outcome in outcomes]),
    ]
    write_whole('\n'.join(lines) + '\n', out)


def _cells(outcome: Outcome) -> list[str]:
    millions = [
        '' if count is None else f'{count / 1e6:.1f}' for count in (outcome.before, outcome.after)
    ]
    return [outcome.folder, outcome.config, outcome.status, *millions, outcome.remark]


def _has_detector(file: Path) -> bool:
    try:
        find_detector(Config.fromfile(file, import_custom_modules=False))
    except (SwapError, FileNotFoundError):
        return False
    return True


def _try(
    context: multiprocessing.context.ForkServerContext,
    folder: Path,
    name: str,
    arch: str,
    size: int,
    timeout: float,
) -> Outcome:
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(sender, str(folder / name), arch, size))
    process.start()
    sender.close()
    try:
        if not receiver.poll(timeout):
            return Outcome(folder.name, name, FAILS, f'not finished after {timeout:g} s')
        return Outcome(folder.name, name, *receiver.recv())
    except EOFError:
        process.join()
        return Outcome(folder.name, name, FAILS, f'the process ended with code {process.exitcode}')
    finally:
        process.kill()
        process.join()


def _work(sender: Connection, source: str, arch: str, size: int) -> None:
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    answer: tuple[Any, ...] = ()
    # The smallest maps of some detectors are too small for their kernels on small images.
    for side in (size, 2 * size):
        try:
            with TemporaryDirectory() as folder:
                before, result = swap_backbone(source, Path(folder) / 'swapped.py', arch, side)
        except SmokeTestError as error:
            answer = (FAILS, str(error))
        except SwapError as error:
            answer = (NOT_APPLICABLE, str(error))
            break
        # The sweep reports whatever goes wrong, and tries the next config.
        except Exception as error:
            answer = (FAILS, describe_error(error))
        else:
            remarks = [f'before: {before}'[:120]] if isinstance(before, str) else []
            if side != size:
                remarks.append(f'with images of {side} x {side}')
            count = None if isinstance(before, str) else before['detector'].parameters
            answer = (WORKS, '; '.join(remarks), count, result.costs['detector'].parameters)
            break
    if answer[0] == FAILS:
        # What the source itself cannot do here is not the fault of the swap.
        try:
            smoke_test(load_source(source), 2 * size)
        except SwapError as error:
            if str(error) == answer[1]:
                answer = (SOURCE_FAILS, answer[1])
    sender.send(answer)


def _exit_with_parent() -> None:
    """Ends this process when the one that sweeps does, however that one ends."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)
