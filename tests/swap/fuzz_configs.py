"""Altered configs of detectors, for whatever takes a config in."""

from functools import cache
from keyword import iskeyword

from hypothesis import strategies as st
from mmengine.config import Config

from mmdet_hadaptive.swap import load_source

# Small, and of every kind: necks of one and several levels, two stages, no neck, a list of necks,
# backbones of other families, a backbone that is not installed, settings by layer.
SOURCES = (
    'retinanet/retinanet_r18_fpn_1x_coco.py',
    'faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py',
    'yolox/yolox_tiny_8xb8-300e_coco.py',
    'rtmdet/rtmdet_tiny_8xb32-300e_coco.py',
    'ssd/ssdlite_mobilenetv2-scratch_8xb24-600e_coco.py',
    'centernet/centernet_r18_8xb16-crop512-140e_coco.py',
    'dyhead/atss_r50_fpn_dyhead_1x_coco.py',
    'detr/detr_r18_8xb2-500e_coco.py',
    'convnext/mask-rcnn_convnext-t-p4-w7_fpn_amp-ms-crop-3x_coco.py',
    'soft_teacher/soft-teacher_faster-rcnn_r50-caffe_fpn_180k_semi-0.1-coco.py',
)
# What the rules read; the rest, such as data sets, only makes the examples longer.
KEYS = ('model', 'optim_wrapper', 'custom_imports', 'load_from')
# Where there is most to be read.
PLACES = (
    'model',
    'model.backbone',
    'model.backbone.type',
    'model.backbone.norm_cfg',
    'model.backbone.out_indices',
    'model.neck',
    'model.neck.in_channels',
    'model.neck.start_level',
    'model.bbox_head',
    'model.rpn_head',
    'model.roi_head',
    'model.data_preprocessor',
    'model.data_preprocessor.std',
    'model.detector',
    'model.init_cfg',
    'custom_imports',
    'custom_imports.imports',
    'load_from',
    'optim_wrapper',
    'optim_wrapper.constructor',
    'optim_wrapper.paramwise_cfg',
    'optim_wrapper.paramwise_cfg.custom_keys',
)
# Small, so that no example asks for all of the memory.
NUMBERS = st.sampled_from([-1, 0, 1, 2, 3, 4, 0.0, 0.5, 1.0, -0.5, float('nan'), float('inf')])
CHANNELS = st.sampled_from([3, 24, 64, 96, 128, 256, 320, 512, 1024, 2048])
NAMES = st.sampled_from(
    [
        *('backbone', 'backbone.stage1', 'backbone.layer1', 'backbone.', 'norm', 'neck', 'stem'),
        *('class', '', 'a b', "it's", '"', 'two\nlines', '#', '\\', 'λ', '_delete', 'in_channels'),
    ]
)
TYPES = st.sampled_from(
    [
        *('ResNet', 'HadaptiveNet', 'MobileNetV2', 'HourglassNet', 'RegNet', 'SwinTransformer'),
        *('Darknet', 'NotHere', 'FPN', 'SSDNeck', 'SSDHead', 'BN', 'SyncBN', 'GN', 'Pretrained'),
        *('mmpretrain.NotHere', 'LearningRateDecayOptimizerConstructor', 'DETR', 'DetDataSample'),
        *('StrangeTensor', 'StrangeTokens', 'StrangeNothing', 'StrangeOrder', 'StrangeStrides'),
        *('StrangeStack', 'StrangeError'),
    ]
)
SETTINGS = st.dictionaries(
    NAMES,
    st.one_of(
        st.builds(lambda rate: dict(lr_mult=rate), NUMBERS),
        st.builds(lambda rate: dict(decay_mult=rate), NUMBERS),
        NUMBERS,
    ),
    max_size=5,
)
VALUES = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        NUMBERS,
        CHANNELS,
        NAMES,
        TYPES,
        st.lists(CHANNELS, max_size=5),
        st.builds(lambda kind: dict(type=kind), TYPES),
        SETTINGS,
        # A new one each time: the next change may be within it.
        st.builds(lambda: dict(type='Pretrained', checkpoint='old.pth')),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=2).map(tuple),
        st.dictionaries(NAMES, inner, max_size=3),
    ),
    max_leaves=4,
)


@cache
def load_tree(source):
    config = load_source(f'mmdet::{source}').to_dict()
    detector = config['model'].get('detector', config['model'])
    if detector['backbone'].get('depth') == 50:
        # The smaller ResNet is built faster.
        detector['backbone']['depth'] = 18
        neck = detector['neck']
        (neck[0] if isinstance(neck, list) else neck)['in_channels'] = [64, 128, 256, 512]
    return {key: config[key] for key in KEYS if key in config}


def list_paths(node, path=()):
    """The paths of all that can be changed, which in tuples is nothing."""
    children = ()
    if isinstance(node, dict):
        children = node.items()
    elif isinstance(node, list):
        children = enumerate(node)
    for key, child in children:
        yield (*path, key)
        yield from list_paths(child, (*path, key))


def copy_tree(node):
    """A copy in which everything can be changed."""
    if isinstance(node, dict):
        return {key: copy_tree(child) for key, child in node.items()}
    return [copy_tree(child) for child in node] if isinstance(node, (list, tuple)) else node


@st.composite
def altered_configs(draw):
    """Configs with one to four changes: keys deleted, added, of other types or other channels."""
    tree = copy_tree(load_tree(draw(st.sampled_from(SOURCES))))
    for _ in range(draw(st.integers(1, 4))):
        if not tree:
            break
        _alter(draw, tree)
    # A config is a file of Python, whose variables have no other names.
    return Config({k: v for k, v in tree.items() if k.isidentifier() and not iskeyword(k)})


def _alter(draw, tree):
    paths = list(list_paths(tree))
    if draw(st.booleans()):
        names = draw(st.sampled_from(PLACES)).split('.')
        parent = tree
        for key in names[:-1]:
            parent = parent.get(key) if isinstance(parent, dict) else None
        path = tuple(names) if isinstance(parent, dict) else draw(st.sampled_from(paths))
    else:
        path = draw(st.sampled_from(paths))
    parent = tree
    for key in path[:-1]:
        parent = parent[key]
    key = path[-1]
    action = draw(st.sampled_from(['delete', 'replace', 'replace', 'add', 'move', 'rates']))
    if action == 'delete':
        if isinstance(parent, list) or key in parent:
            del parent[key]
    elif action == 'replace':
        parent[key] = draw(VALUES)
    elif action == 'add' and isinstance(parent, dict):
        parent[draw(NAMES)] = draw(VALUES)
    elif action == 'move':
        other = tree
        for step in draw(st.sampled_from(paths)):
            other = other[step]
        parent[key] = copy_tree(other)
    elif isinstance(tree.get('optim_wrapper'), dict):
        tree['optim_wrapper']['paramwise_cfg'] = dict(custom_keys=draw(SETTINGS))
