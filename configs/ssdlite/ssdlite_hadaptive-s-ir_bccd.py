# Without products, at the same cost (research/reports/ablation.md).
_base_ = './ssdlite_hadaptive-s_bccd.py'

model = dict(backbone=dict(arch='small-ir'))
