_base_ = './hadaptive-s_1xb128-15e_tiny-imagenet.py'

model = dict(backbone=dict(arch='small-ir'))
