_base_ = 'mmdet::yolox/yolox_tiny_8xb8-300e_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

# Truncated images are refused, which OpenCV fills with grey. In the test pipeline MMDetection's
# inferencer looks for the name LoadImageFromFile.
load_pipeline = _base_.train_dataset.dataset.pipeline
load_pipeline[0].type = 'LoadCheckedImage'
test_pipeline = _base_.test_pipeline
test_pipeline[0].imdecode_backend = 'pillow'

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

# A run that was killed, at whatever moment, resumes with --resume as if it had not been.
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='NumClassCheckHook'),
    dict(type='StopOnInvalidLossHook'),
    dict(type='EpochSeedHook'),
]

train_dataloader = dict(
    persistent_workers=False,
    dataset=dict(dataset=dict(type='CheckedCocoDataset', pipeline=load_pipeline)),
)
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset', pipeline=test_pipeline))
test_dataloader = val_dataloader
