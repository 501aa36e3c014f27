# Starts from weights that come with the package: the template for a few hundred images.
_base_ = './ssdlite_hadaptive-s-pointwise_bccd.py'

model = dict(
    backbone=dict(
        # The classifier's.
        norm_cfg=dict(eps=1e-5),
        init_cfg=dict(
            type='Pretrained',
            checkpoint='hadaptive://small-pointwise_tiny-imagenet',
            prefix='backbone.',
        ),
    )
)

# The augmentation of the config from scratch, in a seventh of its time (docs/training.md).
expand = _base_.train_pipeline[2].transforms[0]
train_pipeline = [
    dict(type='LoadAnnotations', with_bbox=True),
    dict(
        type='LoadSSDCrop',
        scale=(_base_.input_size, _base_.input_size),
        mean=expand.mean,
        expand_ratio=expand.ratio_range,
    ),
    *_base_.train_pipeline[5:],
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
