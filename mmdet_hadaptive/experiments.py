"""Trains a list of configs with several seeds, one process each, and tabulates their mAP."""

import json
import os
import subprocess
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from mmengine.config import Config
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from .hooks import AtomicLocalBackend
from .mmdet_tools import mmdet_tool

METRICS = ('coco/bbox_mAP', 'coco/bbox_mAP_50', 'coco/bbox_mAP_75')


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        config: The config file.
        seed: Seed of its random numbers.
    """

    config: Path
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder."""
        return f'{self.config.stem}_seed{self.seed}'


def train_all(
    runs: Sequence[Run], folder: Path, jobs: int, options: Sequence[str] = ()
) -> list[dict[str, Any]]:
    """Trains what has no result yet, then evaluates the last checkpoint of each.

    Can be interrupted at any moment: finished runs are kept, begun ones go on from their last
    checkpoint.

    Args:
        runs: What to train.
        folder: Gets ``results.jsonl`` and a work directory for each run.
        jobs: How many run at the same time; they share the cores, unless OMP_NUM_THREADS is set.
        options: Overrides for all configs, 'key=value' as for MMDetection's ``--cfg-options``.

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
    for (config, seed), record in results.items():
        if record['options'] != list(options):
            raise ValueError(
                f'{results_file} holds {config} with seed {seed} trained with the options '
                f'{record["options"]}, now they are {list(options)}: choose another folder'
            )
    # Neither the search for the tools nor reading a config is safe in several threads.
    tools = [mmdet_tool(name) for name in ('train.py', 'test.py')]
    overrides = dict(option.split('=', 1) for option in options)
    missing = [run for run in runs if (run.config.stem, run.seed) not in results]
    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task('trainings', total=len(runs), completed=len(runs) - len(missing))
        futures = {
            pool.submit(_train, run, _epochs(run, overrides), folder, jobs, options, tools): run
            for run in missing
        }
        try:
            for future in as_completed(futures):
                run = futures[future]
                results[run.config.stem, run.seed] = record = future.result()
                text = ''.join(json.dumps(result) + '\n' for result in results.values())
                AtomicLocalBackend().put_text(text, results_file)
                progress.advance(task)
                progress.console.print(f'{run.name}: mAP {record["coco/bbox_mAP"]:.3f}')
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [results[run.config.stem, run.seed] for run in runs]


def _epochs(run: Run, overrides: dict[str, str]) -> int:
    config = Config.fromfile(run.config)
    return int(overrides.get('train_cfg.max_epochs', config.train_cfg.max_epochs))


def _train(
    run: Run, epochs: int, folder: Path, jobs: int, options: Sequence[str], tools: Sequence[Path]
) -> dict[str, Any]:
    """Trains and evaluates in processes of their own."""
    work_dir = folder / run.name
    test_dir = work_dir / 'test'
    work_dir.mkdir(parents=True, exist_ok=True)
    settings = ['--cfg-options', f'randomness.seed={run.seed}', *options]
    train, test = tools
    _call(
        [train, run.config, '--work-dir', work_dir, '--resume', *settings],
        work_dir / 'train.log',
        jobs,
    )
    checkpoint = work_dir / f'epoch_{epochs}.pth'
    _call(
        [test, run.config, checkpoint, '--work-dir', test_dir, *settings],
        work_dir / 'test.log',
        jobs,
    )
    metrics = json.loads(max(test_dir.glob('*/*.json')).read_text())
    # MMDetection gives -1, or nothing, where no object is detected at all.
    values = {name: max(metrics.get(name, 0.0), 0.0) for name in METRICS}
    return dict(
        config=run.config.stem, seed=run.seed, epochs=epochs, options=list(options), **values
    )


def _call(command: Sequence[Any], log: Path, jobs: int) -> None:
    threads = max(1, (os.cpu_count() or 1) // jobs)
    with log.open('a') as file:
        code = subprocess.call(
            [sys.executable, *map(str, command)],
            env={'OMP_NUM_THREADS': str(threads), **os.environ},
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    if code:
        last = log.read_text().strip().splitlines()[-1:]
        raise RuntimeError(f'{command[0]} ended with status {code}, see {log}: {"".join(last)}')


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
