# Without products, at the same cost (docs/ablation.md).
_base_ = './ssdlite_hadaptive-s_8xb24-600e_coco.py'

model = dict(backbone=dict(arch='small-pointwise'))
