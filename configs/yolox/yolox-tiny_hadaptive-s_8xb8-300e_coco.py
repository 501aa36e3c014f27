_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

model = dict(
    backbone=dict(
        _delete_=True,
        type='HadaptiveNet',
        arch='small',
        out_indices=(2, 3, 4),
        norm_cfg=dict(type='BN', momentum=0.03, eps=0.001),
    ),
    neck=dict(in_channels=[64, 96, 128]),
)

# MMEngine does not know that the normalisation of products is one.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(product_norm=dict(decay_mult=0.0))))

# A killed run continues with --resume exactly as if it had not been killed.
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='NumClassCheckHook'),
    dict(type='StopOnInvalidLossHook'),
    dict(type='EpochSeedHook'),
]

train_dataloader = dict(
    persistent_workers=False,
    dataset=dict(dataset=dict(type='CheckedCocoDataset')),
)
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
test_dataloader = val_dataloader
