"""A hook that saves what each process holds at the end of a training."""

import torch
from mmengine.dist import get_rank
from mmengine.hooks import Hook
from mmengine.registry import HOOKS


@HOOKS.register_module()
class RankRecorder(Hook):
    priority = 'LOWEST'

    def after_train(self, runner):
        torch.save(runner.model.module.state_dict(), f'{runner.work_dir}/rank_{get_rank()}.state')
        # Where the generator of this process has come to.
        torch.save(torch.rand(4), f'{runner.work_dir}/rank_{get_rank()}.random')
