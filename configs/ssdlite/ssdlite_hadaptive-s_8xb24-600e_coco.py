_base_ = 'mmdet::ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

# Unlike OpenCV, Pillow refuses truncated images instead of filling them with grey.
mmdet_pipeline = _base_.train_pipeline
mmdet_pipeline[0].imdecode_backend = 'pillow'
test_pipeline = _base_.test_pipeline
test_pipeline[0].imdecode_backend = 'pillow'

# The crops and pixels of MMDetection's transforms in a fraction of their time. A config that sets
# train_dataloader = dict(dataset=dict(dataset=dict(pipeline=_base_.mmdet_pipeline))) has its own.
train_pipeline = [
    mmdet_pipeline[1],
    dict(
        type='LoadSSDCrop',
        scale=(_base_.input_size, _base_.input_size),
        mean=_base_.data_preprocessor.mean,
    ),
    *mmdet_pipeline[5:],
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
    bbox_head=dict(type='SSDLiteHead', in_channels=(96, 128, 512, 256, 256, 128)),
)

# A run that was killed, at whatever moment, resumes with --resume as if it had not been.
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
val_dataloader = dict(dataset=dict(type='CheckedCocoDataset', pipeline=test_pipeline))
test_dataloader = val_dataloader
val_evaluator = dict(type='FastCocoMetric')
test_evaluator = val_evaluator
