"""Tries the exchange of the backbone on MMDetection's model zoo."""

import json
import multiprocessing
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mmengine.config import Config
from mmengine.utils import get_installed_path

from ..swap.swap import Costs, SwapError, find_detector, load_source, prove, swap_backbone

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


@dataclass(frozen=True)
class Outcome:
    """What became of one folder of the zoo.

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


def folders() -> list[Path]:
    """The folders with configs of the installed MMDetection."""
    root = Path(get_installed_path('mmdet')) / '.mim' / 'configs'
    return sorted(path for path in root.iterdir() if any(path.glob('*.py')))


def representative(folder: Path) -> str:
    """Chooses a config of a folder.

    It is the simplest by its name (ResNet-50, then the shortest name) among those in which there
    is a backbone to exchange, or simply the first if there is none.

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
    """Exchanges the backbone in one config of every folder, each in a process of its own.

    Args:
        results: A file with a line for each finished folder; what it holds is not done again.
        arch: As for :func:`mmdet_hadaptive.swap.swap_backbone`.
        size: Edge of the random images in pixels.
        timeout: Seconds after which a config counts as failed.

    Yields:
        The outcomes, as they come.
    """
    done = {}
    if results.exists():
        for line in results.read_text().splitlines():
            record = json.loads(line)
            if (record.pop('arch'), record.pop('size')) == (arch, size):
                done[record['folder']] = Outcome(**record)
    results.parent.mkdir(parents=True, exist_ok=True)
    # Processes come from a server that has imported everything, and computed nothing, already.
    context = multiprocessing.get_context('forkserver')
    context.set_forkserver_preload(['mmdet.models', 'mmdet_hadaptive.benchmark.swap_sweep'])
    for folder in folders():
        outcome = done.get(folder.name)
        if outcome is None:
            outcome = _try(context, folder, representative(folder), arch, size, timeout)
            with results.open('a') as file:
                file.write(json.dumps(asdict(outcome) | dict(arch=arch, size=size)) + '\n')
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
    lines = [
        '# The model zoo of MMDetection with Hadaptive-Net',
        '',
        f'`tools/swap_backbone.py` applied to one config of every folder, with `--arch {arch}`; '
        f'written by `{command}` ({where}).',
        '',
        '*Works* means: the detector is built with random weights, the loss on two random images '
        'is finite, the gradient reaches the first convolution of the backbone, and a prediction '
        'is finite. It says nothing about accuracy. The config of a folder is the simplest by its '
        'name (ResNet-50, the shortest) that has a backbone to exchange. *Source fails too* '
        'means that the config as it is in MMDetection ends here with the same error. BoxInst, LAD '
        'and PAA need scikit-image or scikit-learn to be installed.',
        '',
        '; '.join(
            f'{counts[status]} {status}'
            for status in (WORKS, NOT_APPLICABLE, SOURCE_FAILS, FAILS)
            if counts[status]
        )
        + f'; {len(outcomes)} of {len(folders())} folders.',
        '',
        '| folder | config | result | parameters M before | after | remark |',
        '|---|---|---|---|---|---|',
    ]
    for outcome in outcomes:
        millions = [
            '' if count is None else f'{count / 1e6:.1f}'
            for count in (outcome.before, outcome.after)
        ]
        cells = [outcome.folder, outcome.config, outcome.status, *millions]
        cells.append(outcome.remark.replace('|', '\\|'))
        lines.append(f'| {" | ".join(cells)} |')
    out.write_text('\n'.join(lines) + '\n')


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
    answer: tuple[Any, ...] = ()
    # The smallest maps of some detectors are too small for their kernels on small images.
    for edge in (size, 2 * size):
        try:
            with TemporaryDirectory() as folder:
                before, proof = swap_backbone(source, Path(folder) / 'swapped.py', arch, edge)
        except SwapError as error:
            answer = (NOT_APPLICABLE, str(error))
            break
        # The sweep reports whatever goes wrong and goes on.
        except Exception as error:
            answer = (FAILS, _first_line(error))
        else:
            known = isinstance(before, Costs)
            remarks = [] if known else [f'before: {before}'[:120]]
            if edge != size:
                remarks.append(f'with images of {edge} x {edge}')
            count = before.parameters if known else None
            answer = (WORKS, '; '.join(remarks), count, proof.costs.parameters)
            break
    if answer[0] == FAILS:
        # What the source itself cannot do here is not the fault of the exchange.
        try:
            prove(load_source(source), 2 * size)
        except Exception as error:
            if _first_line(error) == answer[1]:
                answer = (SOURCE_FAILS, answer[1])
    sender.send(answer)


def _first_line(error: Exception) -> str:
    return re.sub(r'\s+', ' ', f'{type(error).__name__}: {error}'.split('\n')[0])[:200]
