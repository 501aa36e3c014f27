"""Trains a list of configs with several seeds, one process each, and tabulates their scores."""

import argparse
import hashlib
import json
import os
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from statistics import mean, stdev
from threading import Lock
from typing import Any

from mmengine.config import Config, DictAction
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from mmdet_hadaptive.utils.configs import walk
from mmdet_hadaptive.utils.files import write_whole
from mmdet_hadaptive.utils.installation import installed_versions
from mmdet_hadaptive.utils.metrics import MAP, MAP_50, METRICS

from ..markdown import markdown_table
from .processes import ChildProcesses

# The columns of a table.
# MMPretrain's, in percent.
TOP_1 = 'accuracy/top1'
TOP_5 = 'accuracy/top5'
_NAMES = {MAP: 'mAP', MAP_50: 'mAP50', TOP_1: 'top-1', TOP_5: 'top-5'}
_ROOT = Path(__file__).parents[2]
_TRAIN, _TEST = (_ROOT / 'tools' / name for name in ('train.py', 'test.py'))


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
        return _run_name(self.config.stem, self.seed)


def train_all(
    runs: Sequence[Run], folder: Path, jobs: int = 1, processes: int = 1
) -> list[dict[str, Any]]:
    """Trains what has no result yet, then evaluates the last checkpoint of each.

    Can be interrupted at any moment: the trainings end with this process, finished runs are kept,
    and the others resume from their last checkpoint the next time. The same happens to the other
    runs when one fails.

    Args:
        runs: What to train.
        folder: Gets ``results.jsonl`` and a work directory for each run.
        jobs: How many run at the same time; they share the cores, unless OMP_NUM_THREADS is set.
        processes: Processes of each training, one per GPU; more than one by torchrun. The
            learning rate follows the batch size by MMDetection's ``--auto-scale-lr``.

    Returns:
        One dictionary a run, in the order of ``runs``: the metrics in 0..1, and what they are of:
        config, seed, epochs, options, processes, the SHA-256 of the config's content and the
        versions of the libraries.

    Raises:
        ValueError: If ``folder`` has a run of the same name that differs in any of these.
        RuntimeError: If a training fails; names the run and its log.
    """
    # Reading a config is not safe in several threads.
    identities = {run: _identify(run, processes) for run in runs}
    results_file = folder / 'results.jsonl'
    results = _read_results(results_file)
    for run, identity in identities.items():
        begun = folder / run.name / 'run.json'
        if run.name in results:
            _check_same(identity, results[run.name], results_file)
        elif begun.exists():
            _check_same(identity, json.loads(begun.read_text()), begun)
    missing = [run for run in runs if run.name not in results]
    children, lock = ChildProcesses(), Lock()

    def finish(run: Run) -> None:
        metrics = _train(run, identities[run], folder / run.name, jobs, children)
        with lock:
            # Another program may have added its own.
            results.update(_read_results(results_file))
            results[run.name] = identities[run] | metrics
            text = ''.join(json.dumps(result) + '\n' for result in results.values())
            write_whole(text, results_file)

    columns = (*Progress.get_default_columns()[:-1], MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns) as progress, ThreadPoolExecutor(jobs) as pool:
        task = progress.add_task('trainings', total=len(runs), completed=len(runs) - len(missing))
        waiting = iter(missing)
        futures = {pool.submit(finish, run): run for run in islice(waiting, jobs)}
        try:
            while futures:
                for future in wait(futures, return_when=FIRST_COMPLETED).done:
                    run = futures.pop(future)
                    future.result()
                    progress.advance(task)
                    score, _ = _columns(results[run.name])
                    value = results[run.name][score]
                    progress.console.print(f'{run.name}: {_NAMES[score]} {value:.3f}')
                    futures |= {pool.submit(finish, other): other for other in islice(waiting, 1)}
        except BaseException:
            # Or the pool would wait for them.
            children.terminate()
            raise
    return [results[run.name] for run in runs]


def _identify(run: Run, processes: int) -> dict[str, Any]:
    """What the metrics of a run depend on."""
    parser = argparse.ArgumentParser()
    parser.add_argument('--cfg-options', nargs='*', action=DictAction)
    config = Config.fromfile(run.config)
    config.merge_from_dict(parser.parse_args(['--cfg-options', *run.options]).cfg_options)
    content = json.dumps(config.to_dict(), sort_keys=True, default=repr)
    # The same files lie elsewhere on another machine: of absolute paths the name is left.
    content = re.sub(r'"/[^"]*/', '"', content)
    return dict(
        config=run.config.stem,
        seed=run.seed,
        epochs=config.train_cfg.max_epochs,
        options=list(run.options),
        processes=processes,
        config_sha256=hashlib.sha256(content.encode()).hexdigest(),
        versions=installed_versions(),
    )


def _read_results(file: Path) -> dict[str, dict[str, Any]]:
    lines = file.read_text().splitlines() if file.exists() else []
    records = [json.loads(line) for line in lines]
    return {_run_name(record['config'], record['seed']): record for record in records}


def _run_name(config: str, seed: int) -> str:
    return f'{config}_seed{seed}'


def _check_same(identity: dict[str, Any], record: dict[str, Any], file: Path) -> None:
    differences = [
        f'{key} is {value}, there it is {record.get(key)}'
        for key, value in identity.items()
        if record.get(key) != value
    ]
    if differences:
        raise ValueError(
            f'{file} is about another training of {identity["config"]} with seed '
            f'{identity["seed"]}: {"; ".join(differences)}. Choose another folder'
        )


def _train(
    run: Run, identity: dict[str, Any], work_dir: Path, jobs: int, children: ChildProcesses
) -> dict[str, float]:
    """Trains and evaluates in processes of their own, and returns the metrics."""
    write_whole(json.dumps(identity), work_dir / 'run.json')
    processes, torchrun, launcher = identity['processes'], [], []
    if processes > 1:
        torchrun = ['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={processes}']
        launcher = ['--launcher', 'pytorch']
    settings = ['--cfg-options', f'randomness.seed={run.seed}', *run.options]
    _call(
        [
            *(*torchrun, _TRAIN, run.config, '--work-dir', work_dir),
            *('--resume', '--auto-scale-lr', *launcher, *settings),
        ],
        work_dir / 'train.log',
        jobs * processes,
        children,
    )
    checkpoint, test_dir = work_dir / f'epoch_{identity["epochs"]}.pth', work_dir / 'test'
    # By one process: of several, all would write the metrics to the same file.
    _call(
        [_TEST, run.config, checkpoint, '--work-dir', test_dir, *settings],
        work_dir / 'test.log',
        jobs,
        children,
    )
    metrics = json.loads(max(test_dir.glob('*/*.json')).read_text())
    if TOP_1 in metrics:
        return {name: metrics[name] / 100 for name in (TOP_1, TOP_5)}
    # MMDetection gives -1, or nothing, where no object is detected at all.
    return {name: max(metrics.get(name, 0.0), 0.0) for name in METRICS}


def _call(command: Sequence[Any], log: Path, processes: int, children: ChildProcesses) -> None:
    threads = max(1, (os.cpu_count() or 1) // processes)
    # Configs of the laboratory import its modules.
    path = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get('PYTHONPATH')]))
    environment = {'OMP_NUM_THREADS': str(threads), **os.environ, 'PYTHONPATH': path}
    code = children.call([sys.executable, *map(str, command)], log, environment)
    if code:
        last = log.read_text().strip().splitlines()[-1:]
        raise RuntimeError(f'a training ended with status {code}, see {log}: {"".join(last)}')


def data_root_options(config: Path, data_root: str) -> list[str]:
    """Makes overrides that let a config read its data from another folder.

    Args:
        config: A config whose ``data_root`` starts all paths to its data.
        data_root: The other folder.

    Returns:
        Overrides, 'key=value'.
    """
    settings = Config.fromfile(config)
    old = settings.data_root
    return [
        f'{".".join(map(str, (*path, key)))}={Path(data_root, value.removeprefix(old))}'
        for path, node in walk(settings.to_dict())
        for key, value in node.items()
        if isinstance(value, str) and value.startswith(old)
    ]


def tabulate_comparison(results: Sequence[dict[str, Any]], reference: str) -> str:
    """Tabulates mean and spread over the seeds.

    Args:
        results: The results that :func:`train_all` returns.
        reference: Name of the config that the others are compared with, seed by seed.

    Returns:
        A Markdown table: per config the number of seeds, mean and sample standard deviation of
        mAP and mAP50 (of classifiers top-1 and top-5), and of the difference in the first of them
        to the reference with the same seed.
    """
    by_config: dict[str, dict[int, dict[str, Any]]] = defaultdict(dict)
    for result in results:
        by_config[result['config']][result['seed']] = result
    score, other = _columns(results[0])
    rows = []
    for config, by_seed in by_config.items():
        spreads = [
            format_spread([result[metric] for result in by_seed.values()])
            for metric in (score, other)
        ]
        differences = [
            result[score] - by_config[reference][seed][score]
            for seed, result in by_seed.items()
            if seed in by_config[reference]
        ]
        difference = '' if config == reference else format_spread(differences, '+')
        rows.append((config, len(by_seed), *spreads, difference))
    names = _NAMES[score], _NAMES[other]
    return markdown_table(('config', 'seeds', *names, f'difference in {names[0]}'), rows)


def _columns(result: dict[str, Any]) -> tuple[str, str]:
    return (TOP_1, TOP_5) if TOP_1 in result else (MAP, MAP_50)


def format_spread(values: Sequence[float], sign: str = '') -> str:
    """Mean and, of several values, sample standard deviation; empty without values."""
    if not values:
        return ''
    spread = f' ± {stdev(values):.3f}' if len(values) > 1 else ''
    return f'{mean(values):{sign}.3f}{spread}'
