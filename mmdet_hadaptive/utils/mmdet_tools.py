"""Finds and runs the command-line tools that the installed MMDetection brings along."""

import argparse
import errno
import os
import runpy
import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import init_dist
from mmengine.utils import get_installed_path
from torch import distributed

from .safe_loading import UnreadableCheckpointError, name_unreadable_checkpoints

_CANNOT_WRITE = (
    errno.EACCES,
    errno.EROFS,
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EFBIG,
)


def mmdet_tool(name: str) -> Path:
    """The path of one of MMDetection's tools.

    Args:
        name: Path below MMDetection's ``tools``, such as 'train.py'.

    Returns:
        The file in the installed package, or beside it in a source checkout.

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
    """Runs one of MMDetection's tools in this process, with this process's arguments.

    What the tool itself does not manage is done here: several processes without a GPU, the local
    rank under MPI, and errors of the file system and of damaged checkpoints in one line.

    Args:
        name: Path below MMDetection's ``tools``, such as 'train.py'.

    Raises:
        FileNotFoundError: If the installation has no such tool.
        SystemExit: If the work directory cannot be written or a checkpoint cannot be read; names
            which, and the remedy.
    """
    path = mmdet_tool(name)
    arguments = _launcher_arguments()
    name_unreadable_checkpoints()
    try:
        if arguments.launcher in ('pytorch', 'slurm', 'mpi') and '--help' not in sys.argv:
            _prepare_processes(arguments.launcher, arguments.config)
        runpy.run_path(str(path), run_name='__main__')
    except UnreadableCheckpointError as error:
        raise SystemExit(f'error: {error}') from error
    except OSError as error:
        if error.errno not in _CANNOT_WRITE:
            raise
        raise SystemExit(
            f'error: {error}\nEarlier checkpoints are whole: once the folder can be written, '
            'resume with --resume; or name another one with --work-dir'
        ) from error
    if distributed.is_initialized():
        distributed.barrier()
        distributed.destroy_process_group()


def _launcher_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument('config', nargs='?')
    parser.add_argument('--launcher', default='none')
    return parser.parse_known_args()[0]


def _prepare_processes(launcher: str, config: str) -> None:
    """Lets MMEngine's launchers work under MPI and on machines without a GPU."""
    # MMDetection's tools take 0 for it where it is missing; Open MPI has a name of its own.
    if 'OMPI_COMM_WORLD_LOCAL_RANK' in os.environ:
        os.environ.setdefault('LOCAL_RANK', os.environ['OMPI_COMM_WORLD_LOCAL_RANK'])
    if get_device() != 'cpu':
        return
    # The launchers select a CUDA device whatever there is; MMEngine leaves a process group that
    # exists already as it is.
    set_device = torch.cuda.set_device
    torch.cuda.set_device = lambda device: None
    try:
        init_dist(launcher, backend='gloo')
    finally:
        torch.cuda.set_device = set_device
    # The wrapper that MMEngine builds by default asks for a GPU too.
    options = {'device_ids': None}
    settings = Config.fromfile(config)
    if 'model_wrapper_cfg' not in settings:
        options.update(
            type='MMDistributedDataParallel',
            broadcast_buffers=False,
            find_unused_parameters=settings.get('find_unused_parameters', False),
        )
    words = [f'model_wrapper_cfg.{key}={value}' for key, value in options.items()]
    if '--cfg-options' in sys.argv:
        place = sys.argv.index('--cfg-options') + 1
        sys.argv[place:place] = words
    else:
        sys.argv += ['--cfg-options', *words]


if __name__ == '__main__':
    # python -m mmdet_hadaptive.utils.mmdet_tools TOOL ARGUMENTS
    run_mmdet_tool(sys.argv.pop(1))
