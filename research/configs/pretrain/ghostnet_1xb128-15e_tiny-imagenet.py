# timm's classifier as it is, for comparison.
_base_ = './hadaptive-s_1xb128-15e_tiny-imagenet.py'

model = dict(
    _delete_=True,
    _scope_='mmpretrain',
    type='TimmClassifier',
    model_name='ghostnet_100',
    num_classes=200,
    loss=_base_.model.head.loss,
)
