_base_ = './hadaptive-s_1xb64-200e_cifar100.py'

model = dict(backbone=dict(arch='medium'))
