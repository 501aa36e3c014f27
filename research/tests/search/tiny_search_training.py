"""Searches with two processes, which have to draw the same and to end with the same."""

import sys
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from tiny_search import build_runner, write_configs
from torch import distributed

import mmdet_hadaptive  # noqa: F401
import research.search  # noqa: F401


class Draws(Hook):
    def __init__(self):
        self.draws = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.draws.append(runner.model.module.backbone.drawn)


def main(finds_unused):
    folder = Path(f'rank_{get_rank()}')
    folder.mkdir(exist_ok=True)
    config = Config.fromfile(write_configs(folder))
    config.model_wrapper_cfg = dict(
        type='MMDistributedDataParallel', device_ids=None, find_unused_parameters=finds_unused
    )
    config.train_dataloader.batch_size = 1
    # Whether the draws are equal says something only if other numbers are not.
    draws = Draws()
    runner = build_runner(config, 'run', [draws], launcher='pytorch')
    try:
        runner.train()
    except ValueError as error:
        print(f'refused: {error}')
        return
    search = next(h for h in runner.hooks if type(h).__name__ == 'ArchitectureSearchHook')
    torch.save(
        dict(
            state=runner.model.module.state_dict(),
            draws=draws.draws,
            history=search.history,
            random=torch.rand(4),
            images=list(runner.train_loop.architecture_dataloader.sampler),
        ),
        f'{folder.name}.result',
    )


if __name__ == '__main__':
    distributed.init_process_group('gloo')
    main(sys.argv[1] == 'True')
    distributed.barrier()
    distributed.destroy_process_group()
