# Without products, at the same cost (research/reports/ablation.md).
_base_ = './ssdlite_hadaptive-l_8xb24-600e_coco.py'

model = dict(backbone=dict(arch='large-ir'))
