_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

# The last 20 epochs, as in the base config. Pillow refuses truncated images, OpenCV does not.
last_epochs_pipeline = [
    dict(type='LoadImageFromFile', imdecode_backend='pillow'),
    dict(type='LoadAnnotations', with_bbox=True),
    dict(type='RandomResize', scale=(640, 640), ratio_range=(0.5, 2.0), keep_ratio=True),
    dict(type='RandomCrop', crop_size=(640, 640)),
    dict(type='YOLOXHSVRandomAug'),
    dict(type='RandomFlip', prob=0.5),
    dict(type='Pad', size=(640, 640), pad_val=dict(img=(114, 114, 114))),
    dict(type='PackDetInputs'),
]

# A batch of 32 in each process is enough for batch statistics. Synchronised ones need GPUs.
norm_cfg = dict(type='BN')
model = dict(
    backbone=dict(_delete_=True, type='HadaptiveNet', arch='small', out_indices=(2, 3, 4)),
    neck=dict(in_channels=[64, 96, 128], norm_cfg=norm_cfg),
    bbox_head=dict(norm_cfg=norm_cfg),
)

# MMEngine does not know that the normalisation of products is one.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(product_norm=dict(decay_mult=0.0))))

# A killed run continues with --resume exactly as if it had not been killed.
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))
ema_hook, switch_hook = _base_.custom_hooks
switch_hook.switch_pipeline = last_epochs_pipeline
custom_hooks = [
    ema_hook,
    switch_hook,
    dict(type='NumClassCheckHook'),
    dict(type='StopOnInvalidLossHook'),
    dict(type='EpochSeedHook'),
]

train_dataloader = dict(persistent_workers=False, dataset=dict(type='CheckedCocoDataset'))
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
test_dataloader = val_dataloader
