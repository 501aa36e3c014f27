_base_ = 'mmdet::deformable_detr/deformable-detr_r50_16xb2-50e_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

model = dict(
    backbone=dict(_delete_=True, type='HadaptiveNet', arch='small', out_indices=(2, 3, 4)),
    neck=dict(in_channels=[64, 96, 128]),
)
# The base has a tenth of the rate for its pre-trained backbone. This backbone has no weights.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=1.0))))

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
