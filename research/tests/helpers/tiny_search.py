"""A search that takes moments: a tiny space, a detector of nothing, and their training."""

import torch
from mmdet.registry import DATASETS, MODELS
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch.utils.data import Dataset

SPACE = dict(
    stages=[
        [
            dict(
                choices=[
                    dict(type='conv', channels=8, kernel=kernel, stride=2, act=False)
                    for kernel in (2, 3)
                ]
            )
        ],
        [dict(type='conv', channels=8, kernel=2, stride=2, act=True)],
        [
            dict(
                choices=[
                    dict(type='ghost', channels=12, expand=2, kernel=2, stride=2),
                    dict(type='ghost', channels=12, expand=2, kernel=3, stride=2),
                    dict(
                        type='ach',
                        channels=12,
                        num_selected=4,
                        kernel=3,
                        product_norm='DySoft',
                        stride=2,
                    ),
                    dict(type='inverted_residual', channels=12, width=16, kernel=5, stride=2),
                ]
            ),
            dict(
                choices=[
                    dict(type='ach', channels=12, num_selected=5, kernel=3, product_norm='BN'),
                    None,
                    dict(type='inverted_residual', channels=12, width=40, kernel=3),
                ]
            ),
            dict(type='ghost', channels=12, expand=2, kernel=3, stride=1),
        ],
    ],
    final_channels=16,
)


@DATASETS.register_module()
class NumberedImages(Dataset):
    """Images of noise; those that are read are noted."""

    def __init__(self, count):
        self.images = torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        self.read = []

    def __len__(self):
        return len(self.images)

    def __getitem__(self, index):
        self.read.append(index)
        # As a transform would.
        return dict(inputs=self.images[index] + 0.1 * torch.rand(()))


@MODELS.register_module()
class Detector(BaseModel):
    """Wants the maps to have the mean of the image."""

    def __init__(self, backbone, data_preprocessor=None):
        super().__init__(data_preprocessor)
        self.data_preprocessor.pad_size_divisor = 1
        self.backbone = MODELS.build(backbone)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def forward(self, inputs, mode='tensor'):
        (maps,) = self.backbone(inputs)
        wanted = inputs.mean((1, 2, 3))
        return dict(loss=(self.scale * maps.mean((1, 2, 3)) - wanted).square().mean())


BASE = """
default_scope = 'mmdet'
custom_imports = dict(imports=['mmdet_hadaptive', 'tiny_search'])
model = dict(
    type='Detector',
    backbone=dict(type='HadaptiveNet', arch='small', out_indices=(2,), with_cp=True),
)
train_dataloader = dict(
    dataset=dict(type='NumberedImages', count=13),
    batch_size=2,
    num_workers=0,
    drop_last=True,
    sampler=dict(type='DefaultSampler', shuffle=True),
    collate_fn=dict(type='default_collate'),
)
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=4)
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-2))
default_hooks = dict(
    checkpoint=dict(type='AtomicCheckpointHook', interval=1, max_keep_ckpts=2),
    logger=dict(type='LoggerHook', interval=1),
)
custom_hooks = [
    dict(type='StopOnInvalidLossHook'),
    dict(type='EpochSeedHook'),
    dict(type='ChannelsLastHook'),
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.1, update_buffers=True),
]
randomness = dict(seed=3)
"""
SEARCH = f"""
_base_ = './base.py'
model = dict(
    backbone=dict(type='HadaptiveSearchNet', arch=dict(_delete_=True, **{SPACE!r}))
)
train_cfg = dict(type='ArchitectureSearchLoop')
custom_hooks = [
    *_base_.custom_hooks, dict(type='ArchitectureSearchHook', target=dict(macs=80e3), lr=0.1)
]
find_unused_parameters = True
"""


def write_configs(folder):
    """Writes both, and returns that of the search."""
    (folder / 'base.py').write_text(BASE)
    (folder / 'search.py').write_text(SEARCH)
    return folder / 'search.py'


def build_runner(config, work_dir, hooks=(), **options):
    # Where the size of the images is looked up.
    config.test_dataloader = dict(dataset=dict(pipeline=[dict(type='Resize', scale=(32, 32))]))
    parts = ('train_dataloader', 'train_cfg', 'optim_wrapper', 'default_hooks', 'randomness')
    return Runner(
        model=config.model,
        work_dir=str(work_dir),
        custom_hooks=[*config.custom_hooks, *hooks],
        default_scope='mmdet',
        cfg=config,
        **{part: config[part] for part in parts},
        **options,
    )
