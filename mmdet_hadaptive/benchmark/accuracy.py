"""Trains a list of configs with several seeds, one process each, and tabulates their mAP."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmengine.config import Config
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from ..runtime.files import write_whole

METRICS = ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_75')


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        config: The config file.
        seed: Seed of its random numbers.
        options: Overrides of the config, 'key=value' as for MMDetection's ``--cfg-options``.
    """

    config: Path
    seed: int
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f'{self.config.stem}_seed{self.seed}'


def train_all(
    runs: Sequence[Run], folder: Path, jobs: int = 1, processes: int = 1
) -> list[dict[str, Any]]:
    """Trains what has no result yet, then evaluates the last checkpoint of each.

    Can be interrupted at any moment: finished runs are kept, begun ones go on from their last
    checkpoint.

    Args:
        runs: What to train.
        folder: Gets ``results.jsonl`` and a work directory for each run.
        jobs: How many run at the same time; they share the cores, unless OMP_NUM_THREADS is set.
        processes: Processes of each training, one per GPU; more than one by torchrun. The
            learning rate follows the batch size by MMDetection's ``--auto-scale-lr``.

    Returns:
        One dictionary a run, in the order of ``runs``: config, seed, epochs, options, and the
        metrics in 0..1.

    Raises:
        ValueError: If ``folder`` has results of the same runs with other options.
        RuntimeError: If a training fails; names the run and its log.
    """
    results_file = folder / 'results.jsonl'
    results = {}
    if results_file.exists():
        for line in results_file.read_text().splitlines():
            record = json.loads(line)
            results[record['config'], record['seed']] = record
    for run in runs:
        record = results.get((run.config.stem, run.seed))
        if record is not None and record['options'] != list(run.options):
            raise ValueError(
                f'{results_file} holds {run.config.stem} with seed {run.seed} trained with the '
                f'options {record["options"]}, now they are {list(run.options)}: choose another '
                'folder'
            )
    missing = [run for run in runs if (run.config.stem, run.seed) not in results]
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task('trainings', total=len(runs), completed=len(runs) - len(missing))
        # Reading a config is not safe in several threads.
        futures = {
            pool.submit(_train, run, _epochs(run), folder, jobs, processes): run for run in missing
        }
        try:
            for future in as_completed(futures):
                run = futures[future]
                results[run.config.stem, run.seed] = record = future.result()
                text = ''.join(json.dumps(result) + '\n' for result in results.values())
                write_whole(text, results_file)
                progress.advance(task)
                progress.console.print(f'{run.name}: mAP {record["coco/bbox_mAP"]:.3f}')
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[run.config.stem, run.seed] for run in runs]


def _epochs(run: Run) -> int:
    config = Config.fromfile(run.config)
    overrides = dict(option.split('=', 1) for option in run.options)
    return int(overrides.get('train_cfg.max_epochs', config.train_cfg.max_epochs))


def _train(run: Run, epochs: int, folder: Path, jobs: int, processes: int) -> dict[str, Any]:
    """Trains and evaluates in processes of their own."""
    work_dir = folder / run.name
    test_dir = work_dir / 'test'
    work_dir.mkdir(parents=True, exist_ok=True)
    tools = ['-m', 'mmdet_hadaptive.runtime.mmdet_tools']
    settings = ['--cfg-options', f'randomness.seed={run.seed}', *run.options]
    start, launcher = tools, []
    if processes > 1:
        torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
        start, launcher = [*torchrun, *tools], ['--launcher', 'pytorch']
    _call(
        [
            *(*start, 'train.py', run.config, '--work-dir', work_dir),
            *('--resume', '--auto-scale-lr', *launcher, *settings),
        ],
        work_dir / 'train.log',
        jobs * processes,
    )
    checkpoint = work_dir / f'epoch_{epochs}.pth'
    # By one process: of several, all would write the metrics to the same file.
    _call(
        [*tools, 'test.py', run.config, checkpoint, '--work-dir', test_dir, *settings],
        work_dir / 'test.log',
        jobs,
    )
    metrics = json.loads(max(test_dir.glob('*/*.json')).read_text())
    # MMDetection gives -1, or nothing, where no object is detected at all.
    values = {name: max(metrics.get(name, 0.0), 0.0) for name in METRICS}
    return dict(
        config=run.config.stem, seed=run.seed, epochs=epochs, options=list(run.options), **values
    )


def _call(command: Sequence[Any], log: Path, processes: int) -> None:
    threads = max(1, (os.cpu_count() or 1) // processes)
    with log.open('a') as file:
        code = subprocess.call(
            [sys.executable, *map(str, command)],
            env={'OMP_NUM_THREADS': str(threads), **os.environ},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if code:
        last = log.read_text().strip().splitlines()[-1:]
        raise RuntimeError(f'a training ended with status {code}, see {log}: {"".join(last)}')


def data_root_options(config: Path, data_root: str) -> list[str]:
    """Overrides that let a config read its data from another folder.

    Args:
        config: A config whose ``data_root`` starts all paths to its data.
        data_root: The other folder.

    Returns:
        Overrides, 'key=value'.
    """
    settings = Config.fromfile(config)
    old = settings.data_root

    def options(node: Any, key: str) -> Iterator[str]:
        if isinstance(node, str) and node.startswith(old):
            yield f'{key}={Path(data_root, node.removeprefix(old))}'
        elif isinstance(node, (dict, list)):
            for name, child in node.items() if isinstance(node, dict) else enumerate(node):
                yield from options(child, f'{key}.{name}' if key else str(name))

    return list(options(settings._cfg_dict.to_dict(), ''))


def comparison_table(results: Sequence[dict[str, Any]], reference: str) -> str:
    """Tabulates mean and spread over the seeds.

    Args:
        results: As :func:`train_all` returns them.
        reference: Name of the config that the others are compared with, seed by seed.

    Returns:
        A Markdown table: per config the number of seeds, mean and sample standard deviation of
        mAP and mAP50, and of the difference in mAP to the reference with the same seed.
    """
    by_config: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for result in results:
        by_config[result['config']][result['seed']] = result
    lines = [
        '| config | seeds | mAP | mAP50 | difference in mAP |',
        '|---|---|---|---|---|',
    ]
    for config, by_seed in by_config.items():
        cells = [_spread([result[metric] for result in by_seed.values()]) for metric in METRICS[:2]]
        differences = [
            result['coco/bbox_mAP'] - by_config[reference][seed]['coco/bbox_mAP']
            for seed, result in by_seed.items()
            if seed in by_config[reference]
        ]
        difference = '' if config == reference else _spread(differences, '+')
        lines.append(f'| {config} | {len(by_seed)} | {" | ".join(cells)} | {difference} |')
    return '\n'.join(lines)


def _spread(values: Sequence[float], sign: str = '') -> str:
    if not values:
        return ''
    spread = f' ± {stdev(values):.3f}' if len(values) > 1 else ''
    return f'{mean(values):{sign}.3f}{spread}'
