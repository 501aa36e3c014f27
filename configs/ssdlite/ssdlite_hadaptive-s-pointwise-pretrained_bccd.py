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

train_pipeline = _base_.fast_pipeline
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
