"""Finds the command-line tools of the installed MMDetection, and runs its training and test."""

import argparse
import errno
import os
import re
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist
from mmengine.utils import get_installed_path
from torch import distributed

from .configs import walk
from .installation import silence_pkg_resources
from .safe_loading import UnreadableCheckpointError, name_unreadable_checkpoints

_CANNOT_WRITE = (
    errno.EACCES,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
)
_CONFIG_SUFFIXES = ('.py', '.json', '.yaml', '.yml')
# Messages of libraries about settings, and the remedies.
_REMEDIES = {
    r'Expected more than 1 value per channel when training': (
        'batch normalisation needs two images or more on each device: set '
        'train_dataloader.batch_size to 2 or more, and train_dataloader.drop_last=True, which '
        'leaves out a last batch of one image'
    ),
    r'`epoch_length` must be a positive integer, but got 0': (
        'the training set holds fewer images than a batch, and train_dataloader.drop_last=True '
        'leaves out the rest: set train_dataloader.batch_size to fewer images, or repeat them with '
        "dict(type='RepeatDataset', times=...)"
    ),
    r'`num_classes` .* does not matches|Add comma if number of classes is 1': (
        'the classes of the data sets (metainfo) and num_classes of the heads must agree: '
        'python tools/check_dataset.py CONFIG says which setting to correct'
    ),
    r'Can not find "auto_scale_lr"': (
        'leave out --auto-scale-lr, or say in the config for which batch size its learning rate '
        'is: auto_scale_lr = dict(enable=False, base_batch_size=...)'
    ),
    r'out of memory|DefaultCPUAllocator: (can|not enough)': (
        'set train_dataloader.batch_size to fewer images, or model.backbone.with_cp=True, which '
        'computes more and stores less'
    ),
    r'[Bb]us error|shared memory': (
        'give the container more shared memory (docker run --shm-size=8g), or load the images '
        'without worker processes: train_dataloader.num_workers=0 val_dataloader.num_workers=0 '
        'val_dataloader.persistent_workers=False'
    ),
    r'DataLoader worker .*(killed|exited)': (
        'the system may have run out of memory: set train_dataloader.num_workers and '
        'val_dataloader.num_workers to fewer processes'
    ),
    r'SyncBatchNorm layers only work with GPU modules': (
        "without a GPU, give norm_cfg the type 'BN', and set sync_bn=None"
    ),
    r'EADDRINUSE|[Aa]ddress already in use': (
        'another program uses this port: choose a free one, such as PORT=29501 for '
        'tools/dist_train.sh'
    ),
    r'is not in the .* registry': (
        'correct the name in the config, or name the module that registers it in custom_imports'
    ),
}


def mmdet_tool(name: str) -> Path:
    """Finds one of MMDetection's tools.

    Args:
        name: The path of the tool in MMDetection's folder ``tools``, such as 'train.py'.

    Returns:
        The file in the installed package, or in a source checkout.

    Raises:
        FileNotFoundError: If the installation has no such tool.
    """
    package = Path(get_installed_path('mmdet'))
    candidates = [package / '.mim' / 'tools' / name, package.parent / 'tools' / name]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(
        f'the installed mmdet has no tools/{name} (looked for {candidates[0]} and '
        f'{candidates[1]}): reinstall it, pip install --force-reinstall --no-deps mmdet==3.3.0'
    )


def run_mmdet_tool(name: str) -> None:
    """Runs MMDetection's training or test in this process, with its command line arguments.

    It adds abilities that these tools lack: several processes without a GPU, the local rank under
    MPI, a moved work directory, and more classes than MMDetection has colours. If something cannot
    work, it ends with one line before the tool starts.

    Args:
        name: 'train.py' or 'test.py'.

    Raises:
        FileNotFoundError: If the installation has no such tool.
        SystemExit: If the tool fails for a known reason. The message has the library's message and
            the remedy.
    """
    silence_pkg_resources()
    path = mmdet_tool(name)
    name_unreadable_checkpoints()
    try:
        tool = _import_file(path)
        _set_local_rank()
        arguments = tool.parse_args()
        _prepare(arguments)
        tool.parse_args = lambda: arguments
        tool.main()
    except Exception as error:
        message = _explain(error)
        if message is None:
            raise
        raise SystemExit(f'error: {message}') from error
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _import_file(path: Path) -> ModuleType:
    spec = spec_from_file_location(f'mmdet_{path.stem}', path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _set_local_rank() -> None:
    """Sets the local rank's variable for MMDetection's tools, which would otherwise use 0."""
    if 'OMPI_COMM_WORLD_LOCAL_RANK' in os.environ:
        os.environ.setdefault('LOCAL_RANK', os.environ['OMPI_COMM_WORLD_LOCAL_RANK'])


def _prepare(arguments: argparse.Namespace) -> None:
    """Checks the arguments of a training or test, and adds missing ones."""
    _require_file(arguments.config, 'config')
    if Path(arguments.config).suffix not in _CONFIG_SUFFIXES:
        raise SystemExit(
            f'error: {arguments.config} is no config, whose name ends in '
            f'{" or ".join(_CONFIG_SUFFIXES)}: name the config first, then the checkpoint'
        )
    try:
        config = Config.fromfile(arguments.config)
    except FileNotFoundError as error:
        # The missing file is an inherited config.
        raise SystemExit(
            f'error: {arguments.config} cannot be read, {error}: correct its _base_'
        ) from error
    config.merge_from_dict(arguments.cfg_options or {})
    options: dict[str, Any] = {}
    if 'checkpoint' in arguments:
        _check_checkpoint(config, arguments.checkpoint)
    else:
        optimizer = (
            'AmpOptimWrapper' if arguments.amp else config.get('optim_wrapper', {}).get('type')
        )
        if optimizer == 'AmpOptimWrapper' and get_device() == 'cpu':
            raise SystemExit(
                'error: mixed precision needs a GPU, and torch finds none: leave out --amp, or set '
                "optim_wrapper.type='OptimWrapper' where the config asks for it"
            )
        work_dir = arguments.work_dir or config.get('work_dir')
        _find_checkpoint(
            arguments,
            Path(work_dir or f'work_dirs/{Path(arguments.config).stem}'),
            arguments.resume == 'auto'
            or (not arguments.resume and config.get('resume') and not config.get('load_from')),
        )
    if _lacks_colours(config):
        options |= {'visualizer.bbox_color': 'random', 'visualizer.mask_color': 'random'}
    if arguments.launcher != 'none':
        options |= _prepare_processes(arguments.launcher, config)
    arguments.cfg_options = (arguments.cfg_options or {}) | options


def _require_file(path: str, kind: str) -> None:
    if '://' not in path and '::' not in path and not Path(path).is_file():
        raise SystemExit(f'error: there is no {kind} {path} in {Path.cwd()}: correct its path')


def _check_checkpoint(config: Config, checkpoint: str) -> None:
    """Refuses weights and classes that do not fit the config. MMEngine would only log them."""
    from mmdet.registry import DATASETS

    # Only tests need this import of all of MMDetection.
    from .detectors import load_detector

    _require_file(checkpoint, 'checkpoint')
    _, learned = load_detector(config, checkpoint)
    dataset = DATASETS.build({**config.test_dataloader.dataset, 'lazy_init': True})
    # Some data sets of classifiers find their classes when they read their folders.
    named = list(dataset.metainfo.get('classes', learned))
    if named != learned and sorted(named) == sorted(learned):
        raise SystemExit(
            f'error: the config names the classes in the order {", ".join(named)}, but '
            f'{checkpoint} was trained with {", ".join(learned)}: put those of the config into '
            'this order'
        )
    if named != learned:
        print(
            f'note: {checkpoint} was trained with the classes {", ".join(learned)}; they are '
            f'tested as {", ".join(named)}'
        )


def _find_checkpoint(arguments: argparse.Namespace, work_dir: Path, is_searched: bool) -> None:
    """Finds the checkpoint of ``last_checkpoint`` beside it, if the folder was moved."""
    if not is_searched:
        if arguments.resume:
            _require_file(arguments.resume, 'checkpoint')
        return
    pointer = work_dir / 'last_checkpoint'
    named = pointer.read_text().strip() if pointer.is_file() else ''
    if named and ('://' in named or Path(named).exists()):
        return
    beside = work_dir / Path(named).name
    if named and beside.is_file():
        print(f'note: {named} is not there, the training goes on from {beside}')
        arguments.resume = str(beside)
        return
    there = sorted(work_dir.glob('*.pth'), key=lambda path: path.stat().st_mtime)
    if named or there:
        missing = (
            f'{pointer} names {named or "no checkpoint"}'
            if pointer.is_file()
            else (f'{pointer} is missing')
        )
        choice = f'--resume {there[-1]}' if there else '--resume CHECKPOINT'
        raise SystemExit(
            f'error: {missing}, so that it is unknown where the training stopped: name the '
            f'checkpoint, such as {choice}, or leave out --resume to begin again'
        )


def _lacks_colours(config: Config) -> bool:
    """Returns whether a data set has more classes than its type has colours."""
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope

    init_default_scope(config.get('default_scope', 'mmdet'))
    loaders = [config.get(f'{split}_dataloader') for split in ('train', 'val', 'test')]
    for _, node in walk(loaders):
        metainfo = node.get('metainfo')
        if not isinstance(metainfo, dict) or 'palette' in metainfo or 'type' not in node:
            continue
        dataset = DATASETS.get(node['type']) if isinstance(node['type'], str) else node['type']
        colours = getattr(dataset, 'METAINFO', {}).get('palette')
        if colours is not None and len(metainfo.get('classes', ())) > len(colours):
            return True
    return False


def _prepare_processes(launcher: str, config: Config) -> dict[str, Any]:
    """Lets MMEngine's launchers work without a GPU. Returns the needed settings of the config."""
    if launcher == 'pytorch' and 'RANK' not in os.environ:
        raise SystemExit(
            'error: --launcher pytorch is for processes that torchrun has started: call '
            'tools/dist_train.sh CONFIG PROCESSES, or leave it out'
        )
    if get_device() != 'cpu':
        return {}
    # The launchers always select a CUDA device. But MMEngine keeps a process group that exists
    # already.
    set_device = torch.cuda.set_device
    torch.cuda.set_device = lambda device: None
    try:
        init_dist(launcher, backend='gloo')
    finally:
        torch.cuda.set_device = set_device
    # MMEngine's default wrapper needs a GPU, too.
    options = {'device_ids': None}
    if 'model_wrapper_cfg' not in config:
        options.update(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=config.get('find_unused_parameters', False),
        )
    return {f'model_wrapper_cfg.{key}': value for key, value in options.items()}


def _explain(error: Exception) -> str | None:
    """Returns a message instead of a traceback. None if the error is unknown."""
    message = str(error)
    if isinstance(error, OSError) and error.errno in _CANNOT_WRITE:
        return (
            f'{message}\nEarlier checkpoints are whole: once the folder can be written, resume '
            'with --resume; or name another one with --work-dir'
        )
    for pattern, remedy in _REMEDIES.items():
        if re.search(pattern, message):
            return f'{message}\n  remedy: {remedy}'
    if isinstance(error, ImportError):
        return (
            f'{message}\n  remedy: install what is missing, or take what needs it out of the config'
        )
    if isinstance(error, UnreadableCheckpointError) or _is_ours(error.__traceback__):
        return message
    return None


def _is_ours(traceback: TracebackType | None) -> bool:
    """Returns whether this package raised an error. Its messages are for users."""
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    if traceback is None:
        return False
    return Path(__file__).parents[1] in Path(traceback.tb_frame.f_code.co_filename).parents
