_base_ = 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

# Truncated images are refused, which OpenCV fills with grey; it takes less time than MMDetection's
# LoadImageFromFile and PackDetInputs. Its inferencer looks for the former in test pipelines.
train_pipeline = _base_.train_pipeline
train_pipeline[0].type = 'LoadCheckedImage'
train_pipeline[-1].type = 'PackPlanes'
train_pipeline_stage2 = _base_.train_pipeline_stage2
train_pipeline_stage2[0].type = 'LoadCheckedImage'
train_pipeline_stage2[-1].type = 'PackPlanes'
test_pipeline = _base_.test_pipeline
test_pipeline[0].imdecode_backend = 'pillow'

# A batch of 32 is enough for statistics of each process's own; synchronised ones need GPUs.
norm_cfg = dict(type='BN')
model = dict(
    backbone=dict(_delete_=True, type='HadaptiveNet', arch='small', out_indices=(2, 3, 4)),
    neck=dict(in_channels=[64, 96, 128], norm_cfg=norm_cfg),
    bbox_head=dict(norm_cfg=norm_cfg),
)

# A run that was killed, at whatever moment, resumes with --resume as if it had not been.
default_hooks = dict(checkpoint=dict(type='AtomicCheckpointHook'))
ema_hook, switch_hook = _base_.custom_hooks
switch_hook.switch_pipeline = train_pipeline_stage2
custom_hooks = [
    ema_hook,
    switch_hook,
    dict(type='NumClassCheckHook'),
    dict(type='StopOnInvalidLossHook'),
    dict(type='EpochSeedHook'),
]

train_dataloader = dict(
    persistent_workers=False, dataset=dict(type='CheckedCocoDataset', pipeline=train_pipeline)
)
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset', pipeline=test_pipeline))
test_dataloader = val_dataloader
