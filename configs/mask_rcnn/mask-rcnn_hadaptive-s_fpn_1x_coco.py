_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

# Truncated images are refused, which OpenCV fills with grey; it takes less time than MMDetection's
# LoadImageFromFile and PackDetInputs. Its inferencer looks for the former in test pipelines.
train_pipeline = _base_.train_pipeline
train_pipeline[0].type = 'LoadCheckedImage'
train_pipeline[-1].type = 'PackPlanes'
test_pipeline = _base_.test_pipeline
test_pipeline[0].imdecode_backend = 'pillow'

model = dict(
    backbone=dict(_delete_=True, type='HadaptiveNet', arch='small', out_indices=(1, 2, 3, 4)),
    neck=dict(in_channels=[32, 64, 96, 128]),
)

# A run that was killed, at whatever moment, resumes with --resume as if it had not been.
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='StopOnInvalidLossHook'),
    dict(type='EpochSeedHook'),
]

train_dataloader = dict(
    persistent_workers=False, dataset=dict(type='CheckedCocoDataset', pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset', pipeline=test_pipeline))
test_dataloader = val_dataloader
