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

norm_cfg = dict(type='BN', eps=0.001, momentum=0.03)
model = dict(
    # ACH replaces the last two inverted residuals. These expand 160 channels to 960 by convolution.
    # ACH selects 32 channels, and expands to 656 by their products.
    backbone=dict(
        _delete_=True,
        type='BackboneWithACH',
        backbone=dict(type='MobileNetV2', out_indices=(4, 7), norm_cfg=norm_cfg),
        blocks={
            'layer6.2': dict(num_selected=32, norm_cfg=norm_cfg),
            'layer7.0': dict(num_selected=32, norm_cfg=norm_cfg),
        },
    ),
    bbox_head=dict(type='PatchedSSDHead'),
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
