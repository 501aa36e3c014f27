_base_ = 'mmdet::fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

model = dict(
    # The base's normalisation is for Caffe's weights, which are not used here.
    data_preprocessor=dict(
        mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(_delete_=True, type='HadaptiveNet', arch='small', out_indices=(2, 3, 4)),
    # The backbone starts at stride 8, which is the neck's first level.
    neck=dict(in_channels=[64, 96, 128], start_level=0),
)

# A killed run continues with --resume exactly as if it had not been killed.
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='StopOnInvalidLossHook'),
    dict(type='EpochSeedHook'),
]

train_dataloader = dict(persistent_workers=False, dataset=dict(type='CheckedCocoDataset'))
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset'))
test_dataloader = val_dataloader
