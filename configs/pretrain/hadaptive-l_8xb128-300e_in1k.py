_base_ = './hadaptive-s_8xb128-300e_in1k.py'

model = dict(backbone=dict(arch='large', out_indices=(6,)))
