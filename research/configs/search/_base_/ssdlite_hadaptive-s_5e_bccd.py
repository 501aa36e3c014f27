# What networks are compared by: a third of the recipe, its augmentation in a seventh of the time.
_base_ = '../../../../configs/ssdlite/ssdlite_hadaptive-s_bccd.py'

train_pipeline = [
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='LoadSSDCrop',
        scale=(_base_.input_size, _base_.input_size),
        mean=_base_.data_preprocessor.mean,
        expand_ratio=(1, 2),
    ),
    dict(
        type='RandomFlip', prob=[0.25, 0.25, 0.25], direction=['horizontal', 'vertical', 'diagonal']
    ),
    dict(
        type='PhotoMetricDistortion',
        brightness_delta=32,
        contrast_range=(0.5, 1.5),
        saturation_range=(0.5, 1.5),
        hue_delta=18,
    ),
    dict(type='PackDetInputs'),
]
train_dataloader = dict(num_workers=1, dataset=dict(dataset=dict(pipeline=train_pipeline)))

max_epochs = 5
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
# Averages over the same part of the training.
custom_hooks = [
    dict(type='NumClassCheckHook'),
    dict(type='StopOnInvalidLossHook'),
    dict(type='EpochSeedHook'),
    dict(type='ChannelsLastHook'),
    dict(_base_.ema_hook, momentum=0.0056),
]
