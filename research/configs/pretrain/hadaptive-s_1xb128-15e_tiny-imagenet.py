# Weights to start from that a CPU trains in hours: 64 x 64 pixels.
_base_ = '../../../configs/pretrain/_base_/hadaptive-s.py'
custom_imports = dict(
    imports=['mmdet_hadaptive', 'research.tiny_imagenet'], allow_failed_imports=False
)

data_root = 'data/tiny-imagenet-200'
# RGB, the order of the detectors' images.
data_preprocessor = dict(
    num_classes=200, mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], to_rgb=True
)
model = dict(
    head=dict(
        num_classes=200, loss=dict(_delete_=True, type='LabelSmoothLoss', label_smooth_val=0.1)
    )
)

load = dict(type='LoadImageFromFile')
train_pipeline = [
    load,
    dict(type='RandomResizedCrop', scale=64, crop_ratio_range=(0.5, 1.0)),
    dict(type='RandomFlip', prob=0.5, direction='horizontal'),
    dict(type='PackInputs'),
]
test_pipeline = [load, dict(type='Resize', scale=(64, 64)), dict(type='PackInputs')]
loader = dict(
    batch_size=128,
    num_workers=1,
    persistent_workers=False,
    collate_fn=dict(type='default_collate'),
)
train_dataloader = dict(
    **loader,
    sampler=dict(type='DefaultSampler', shuffle=True),
    drop_last=True,
    dataset=dict(
        type='mmdet.TinyImageNet', split='train', data_root=data_root, pipeline=train_pipeline
    ),
)
val_dataloader = dict(
    **loader,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='mmdet.TinyImageNet', split='val', data_root=data_root, pipeline=test_pipeline
    ),
)
test_dataloader = val_dataloader
val_evaluator = dict(type='Accuracy', topk=(1, 5))
test_evaluator = val_evaluator

max_epochs = 15
train_cfg = dict(by_epoch=True, max_epochs=max_epochs, val_interval=3)
val_cfg = dict()
test_cfg = dict()
optim_wrapper = dict(
    optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.05),
    paramwise_cfg=dict(norm_decay_mult=0.0, bias_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(
        type='CosineAnnealingLR',
        T_max=max_epochs,
        by_epoch=True,
        begin=0,
        end=max_epochs,
        convert_to_iter_based=True,
    ),
]
# A quarter faster on a CPU.
custom_hooks = [*_base_.custom_hooks, dict(type='mmdet.ChannelsLastHook')]
auto_scale_lr = dict(base_batch_size=128, enable=False)
randomness = dict(seed=0)
