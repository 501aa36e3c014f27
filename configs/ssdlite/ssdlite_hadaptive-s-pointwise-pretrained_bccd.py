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

# PhotoMetricDistortion also swaps channels, in half of the images, which costs accuracy where there
# are few (docs/weights.md#other-recipes). OpenCV does not write to what the flip returns, a view.
train_pipeline = [
    *_base_.fast_pipeline[:2],
    dict(type='YOLOXHSVRandomAug'),
    _base_.fast_pipeline[2],
    _base_.fast_pipeline[-1],
]
train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline)))
