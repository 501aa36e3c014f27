# COCO's classes, learnt from the boxes that YOLOv3-tiny found in photos (label_photos.py).
_base_ = '../../../configs/ssdlite/ssdlite_hadaptive-s-ir_custom.py'
custom_imports = dict(imports=['mmdet_hadaptive', 'research.distillation.fast_layers'])

labels = dict(
    data_root='work_dirs/everyday/photos/',
    ann_file='labels.json',
    data_prefix=dict(img=''),
    # COCO's classes.
    metainfo=None,
)
images_of_coco = dict(
    data_root='',
    ann_file='work_dirs/everyday/photos/coco.json',
    data_prefix=dict(img='{{$HADAPTIVE_DATA:data}}/tiny_coco/'),
    metainfo=None,
)
train_dataloader = dict(dataset=dict(times=1, dataset=labels))
val_dataloader = dict(dataset=images_of_coco)
test_dataloader = val_dataloader
val_evaluator = dict(ann_file=images_of_coco['ann_file'])
test_evaluator = val_evaluator

model = dict(
    bbox_head=dict(num_classes=80),
    # Doubtful boxes are neither objects nor background.
    train_cfg=dict(assigner=dict(ignore_iof_thr=0.5)),
)

max_epochs = 3
train_cfg = dict(max_epochs=max_epochs, val_interval=max_epochs)
param_scheduler = _base_.param_scheduler
param_scheduler[1].update(end=max_epochs, T_max=max_epochs)
custom_hooks = [*_base_.custom_hooks, dict(type='FastLayersHook')]
