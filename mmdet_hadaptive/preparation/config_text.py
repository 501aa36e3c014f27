"""The config of a prepared data set."""

from collections.abc import Sequence
from pathlib import Path

from .anchors import Anchors

TEMPLATE = 'mmdet_hadaptive::ssdlite/ssdlite_hadaptive-s-ir_custom.py'

_TEXT = """\
# Written from {folder} ({annotation_format}); the recipe is inherited.
_base_ = {template!r}

data_root = {data_root}
metainfo = dict(classes={classes})
train_data = dict(
    data_root=data_root,
    metainfo=metainfo,
    ann_file={train_file},
    data_prefix=dict(img=''),
)
val_data = dict(train_data, ann_file={val_file})
test_data = dict(train_data, ann_file={test_file})

# The template's objects may lie any way round; here they are mirrored only.
train_pipeline = [
    dict(type='RandomFlip', prob=0.5) if step['type'] == 'RandomFlip' else step
    for step in _base_.train_pipeline
]

# In pixels of the input; {share:.1%} of the training boxes overlap with one by an IoU of 0.5.
model = dict(
    bbox_head=dict(
        num_classes=len(metainfo['classes']),
        anchor_generator=dict(
            min_sizes={min_sizes!r},
            max_sizes={max_sizes!r},
        ),
    ),
    test_cfg=dict(nms=dict(iou_threshold=0.45)),
)

train_dataloader = dict(dataset=dict(dataset=dict(pipeline=train_pipeline, **train_data)))
val_dataloader = dict(dataset=val_data)
test_dataloader = dict(dataset=test_data)
val_evaluator = dict(ann_file=val_data['ann_file'])
test_evaluator = dict(ann_file=test_data['ann_file'])
"""


def render_config(
    folder: Path,
    out: Path,
    annotation_format: str,
    classes: Sequence[str],
    anchors: Anchors,
    has_test: bool,
) -> str:
    """Writes a thin config over the template.

    Args:
        folder: The images.
        out: Has ``annotations/instances_train.json`` and so on.
        annotation_format: What the folder was read as.
        classes: In the order of the labels.
        anchors: For this data.
        has_test: Whether there are test images; otherwise those of the validation are tested.

    Returns:
        The text of the config. Paths are absolute.
    """
    annotations = out.resolve() / 'annotations'
    return _TEXT.format(
        folder=_quote(str(folder)),
        annotation_format=annotation_format,
        template=TEMPLATE,
        data_root=_quote(f'{folder.resolve()}/'),
        classes=_quote(tuple(classes)),
        train_file=_quote(str(annotations / 'instances_train.json')),
        val_file=_quote(str(annotations / 'instances_val.json')),
        test_file=_quote(str(annotations / f'instances_{"test" if has_test else "val"}.json')),
        share=anchors.share,
        min_sizes=list(anchors.min_sizes),
        max_sizes=list(anchors.max_sizes),
    )


def _quote(value: str | tuple[str, ...]) -> str:
    """A literal of Python in which MMEngine finds nothing like {{ fileDirname }} to replace."""
    return repr(value).replace('{', '\\x7b')
