_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, type='HadaptiveNet', arch='small', out_indices=(1, 2, 3, 4)),
    neck=dict(in_channels=[32, 64, 96, 128]),
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
