# The classifier of the authors' release, trained by MMPretrain.
_base_ = 'mmpretrain::_base_/default_runtime.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

model = dict(
    # Also where a config inherits this by the name of its package, whose scope is MMDetection's.
    _scope_='mmpretrain',
    type='ImageClassifier',
    # The last index is the final 1 x 1 convolution, which detectors leave out.
    backbone=dict(type='mmdet.HadaptiveNet', arch='small', out_indices=(5,)),
    neck=dict(type='GlobalAveragePooling'),
    head=dict(
        type='StackedLinearClsHead',
        num_classes=1000,
        in_channels=960,
        mid_channels=[1280],
        dropout_rate=0.3,
        act_cfg=dict(type='HSwish'),
        loss=dict(type='CrossEntropyLoss'),
    ),
)

# A run that was killed, at whatever moment, resumes with --resume as if it had not been.
default_hooks = dict(checkpoint=dict(type='mmdet.AtomicCheckpointHook', max_keep_ckpts=3))
custom_hooks = [dict(type='mmdet.StopOnInvalidLossHook'), dict(type='mmdet.EpochSeedHook')]
