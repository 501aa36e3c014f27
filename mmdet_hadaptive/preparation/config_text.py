"""Writes the config of a prepared data set."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from yapf.yapflib.yapf_api import FormatCode

from .anchors import Anchors
from .recipe import NECK_KEYS, TEMPLATE, Recipe

_TEXT = """\
# Written from {folder} ({annotation_format}). What is not here is inherited.
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

# The input has {size} x {size} pixels.
train_pipeline = {train_pipeline}
test_pipeline = {test_pipeline}

model = dict(
    backbone={backbone},
    neck={neck},
    bbox_head=dict(
        num_classes=len(metainfo['classes']),
        in_channels={in_channels!r},
        # In pixels of the input: {share:.1%} of the training boxes overlap with an anchor by an
        # IoU of 0.5.
        anchor_generator=dict(
            strides={strides!r},
            min_sizes={min_sizes!r},
            max_sizes={max_sizes!r},
        ),
    ),
)

# {num_images} images with boxes, {repeats} times in each epoch: {iterations} iterations.
train_dataloader = dict(
    batch_size={batch_size},
    dataset=dict(times={repeats}, dataset=dict(pipeline=train_pipeline, **train_data)),
)
val_dataloader = dict(dataset=dict(pipeline=test_pipeline, **val_data))
test_dataloader = dict(dataset=dict(pipeline=test_pipeline, **test_data))
val_evaluator = dict(ann_file=val_data['ann_file'])
test_evaluator = dict(ann_file=test_data['ann_file'])

max_epochs = {epochs}
train_cfg = dict(max_epochs=max_epochs, val_interval={val_interval})
optim_wrapper = dict(optimizer=dict(lr={learning_rate}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end={warm_up}),
    dict(
        type='CosineAnnealingLR',
        begin=0,
        end=max_epochs,
        T_max=max_epochs,
        by_epoch=True,
        convert_to_iter_based=True,
    ),
]
custom_hooks = {custom_hooks}
auto_scale_lr = dict(base_batch_size={batch_size})
"""


def render_config(
    folder: Path,
    out: Path,
    annotation_format: str,
    classes: Sequence[str],
    anchors: Anchors,
    has_test: bool,
    recipe: Recipe,
    template: Config,
    num_images: int,
) -> str:
    """Makes a config that inherits from the template.

    Args:
        folder: The folder with the images.
        out: The folder with ``annotations/instances_train.json`` and so on.
        annotation_format: The format of the folder's annotations.
        classes: The names of the classes, in the order of the labels.
        anchors: The anchors for this data.
        has_test: Whether there are test images. Otherwise the validation images are used for tests.
        recipe: The network and its training.
        template: The template of the recipe.
        num_images: The number of training images with boxes.

    Returns:
        The text of the config. Paths are absolute.
    """
    annotations = out.resolve() / 'annotations'
    model = template.model
    schedule = recipe.schedule(num_images)
    hooks = [
        dict(hook, momentum=schedule.momentum) if hook['type'] == 'EMAHook' else hook
        for hook in template.custom_hooks
    ]
    text = _TEXT.format(
        folder=_literal(str(folder)),
        annotation_format=annotation_format,
        template=TEMPLATE,
        data_root=_literal(f'{folder.resolve()}/'),
        classes=_literal(tuple(classes)),
        train_file=_literal(str(annotations / 'instances_train.json')),
        val_file=_literal(str(annotations / 'instances_val.json')),
        test_file=_literal(str(annotations / f'instances_{"test" if has_test else "val"}.json')),
        size=recipe.input_size,
        train_pipeline=_lines(template.train_pipeline),
        test_pipeline=_lines(template.test_pipeline),
        backbone=_call(dict(_delete_=True, **model.backbone)),
        neck=_call({key: model.neck[key] for key in NECK_KEYS}),
        in_channels=tuple(model.bbox_head.in_channels),
        share=anchors.share,
        strides=list(model.bbox_head.anchor_generator.strides),
        min_sizes=list(anchors.min_sizes),
        max_sizes=list(anchors.max_sizes),
        num_images=num_images,
        batch_size=recipe.batch_size,
        repeats=schedule.repeats,
        iterations=schedule.iterations,
        epochs=schedule.epochs,
        val_interval=schedule.val_interval,
        learning_rate=schedule.learning_rate,
        warm_up=schedule.warm_up,
        custom_hooks=_lines(hooks),
    )
    return FormatCode(text, style_config=dict(based_on_style='facebook', column_limit=100))[0]


def _literal(value: Any) -> str:
    # MMEngine would replace texts such as {{ fileDirname }} in it.
    return repr(value).replace('{', '\\x7b')


def _call(part: Mapping[str, Any]) -> str:
    """Formats a part of a config."""
    values = (
        f'{key}={_call(value) if isinstance(value, Mapping) else repr(value)}'
        for key, value in part.items()
        if key != '_scope_'
    )
    return f'dict({", ".join(values)})'


def _lines(parts: Sequence[Mapping[str, Any]]) -> str:
    return '[\n' + ''.join(f'    {_call(part)},\n' for part in parts) + ']'
