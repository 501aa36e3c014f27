"""The gradients of two processes whose model ChannelsLastHook converts, against their mean."""

from copy import deepcopy
from tempfile import TemporaryDirectory

import torch
from mmengine.dist import get_rank
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import distributed, nn

from mmdet_hadaptive.engine import ChannelsLastHook  # noqa: F401  (registers it)


class Model(BaseModel):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 4, 3))

    def forward(self, x):
        return self.layers(x).square().mean()


def compare():
    with TemporaryDirectory() as folder:
        runner = Runner(
            Model(),
            work_dir=folder,
            launcher='pytorch',
            custom_hooks=[dict(type='mmdet.ChannelsLastHook')],
            randomness=dict(seed=0),
            cfg=dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None)),
        )
        runner.call_hook('before_run')
    plain = deepcopy(runner.model.module)
    assert plain.layers[0].weight.is_contiguous(memory_format=torch.channels_last)
    for step in range(2):
        images = torch.randn(2, 2, 3, 9, 9, generator=torch.Generator().manual_seed(step))
        plain.zero_grad()
        (sum(plain(x) for x in images) / 2).backward()
        runner.model.zero_grad()
        runner.model(images[get_rank()]).backward()
        for expected, actual in zip(plain.parameters(), runner.model.parameters(), strict=True):
            torch.testing.assert_close(actual.grad, expected.grad)
    print(f'rank {get_rank()}: gradients equal', flush=True)


def main():
    distributed.init_process_group('gloo')
    compare()
    # After the wrapper has been freed: its reducer would free the group while it holds Python's
    # lock, for which gloo's thread may be waiting.
    distributed.destroy_process_group()


if __name__ == '__main__':
    main()
