_base_ = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

# LoadSSDCrop loads, expands, crops and resizes as MMDetection does, five times as fast.
train_pipeline = [
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='LoadSSDCrop',
        scale=(_base_.input_size, _base_.input_size),
        mean=_base_.data_preprocessor.mean,
    ),
    dict(type='RandomFlip', prob=0.5),
    dict(
        type='PhotoMetricDistortion',
        brightness_delta=32,
        contrast_range=(0.5, 1.5),
        saturation_range=(0.5, 1.5),
        hue_delta=18,
    ),
    dict(type='PackDetInputs'),
]

model = dict(
    backbone=dict(
        _delete_=True,
        type='HadaptiveNet',
        arch='small',
        out_indices=(3, 4),
        norm_cfg=dict(type='BN', eps=0.001, momentum=0.03),
    ),
    neck=dict(in_channels=(96, 128), out_channels=(96, 128, 512, 256, 256, 128)),
    bbox_head=dict(type='PatchedSSDHead', in_channels=(96, 128, 512, 256, 256, 128)),
)

# A killed run continues with --resume exactly as if it had not been killed.
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='StopOnInvalidLossHook'),
    dict(type='EpochSeedHook'),
]

# The last maps are 1 x 1: batch normalisation cannot train on a last batch of one image.
train_dataloader = dict(
    drop_last=True,
    persistent_workers=False,
    dataset=dict(dataset=dict(type='CheckedCocoDataset', pipeline=train_pipeline)),
)
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
test_dataloader = val_dataloader
val_evaluator = dict(type='FastCocoMetric')
test_evaluator = val_evaluator
