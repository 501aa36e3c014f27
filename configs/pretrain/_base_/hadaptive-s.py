# The classifier of the authors' release, trained by MMPretrain.
_base_ = 'mmpretrain::_base_/default_runtime.py'
custom_imports = dict(imports=['mmdet_hadaptive'], allow_failed_imports=False)

model = dict(
    # Configs that inherit this as 'mmdet_hadaptive::...' have MMDetection's scope.
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

# A killed run continues with --resume exactly as if it had not been killed.
default_hooks = dict(checkpoint=dict(type='mmdet.AtomicCheckpointHook', max_keep_ckpts=3))
custom_hooks = [dict(type='mmdet.StopOnInvalidLossHook'), dict(type='mmdet.EpochSeedHook')]
