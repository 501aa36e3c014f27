from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import settings
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, set_random_seed

from hadaptive_runtime import Preprocessing
from mmdet_hadaptive.datasets import SHAPE_CLASSES, make_shapes
from mmdet_hadaptive.export import encode_model

# Examples of each fuzz test.
FUZZ = settings.get_profile('fuzz').max_examples
CONFIG = Path(__file__).parents[2] / 'configs/ssdlite/ssdlite_hadaptive-s_shapes.py'
SMALL = dict(
    stages=[
        [dict(type='conv', channels=16, kernel=2, stride=2, act=False)],
        [dict(type='conv', channels=16, kernel=2, stride=2, act=True)],
        [dict(type='ghost', channels=24, expand=2, kernel=2, stride=2)],
        [
            dict(type='ghost', channels=32, expand=4, kernel=2, stride=2),
            dict(type='ach', channels=32, num_selected=8, kernel=3, product_norm='DySoft'),
        ],
        [dict(type='ghost', channels=48, expand=4, kernel=2, stride=2)],
    ],
    final_channels=64,
)


def small_config(data_root) -> Config:
    """SSDLite with a small network, for the shapes data set."""
    config = Config.fromfile(CONFIG)
    config.model.backbone.update(arch=SMALL, out_indices=(3, 4))
    channels = (32, 48, 32, 32, 32, 32)
    config.model.neck.update(in_channels=channels[:2], out_channels=channels)
    config.model.bbox_head.in_channels = channels
    for split in ('train', 'val', 'test'):
        loader = config[f'{split}_dataloader']
        dataset = loader.dataset.get('dataset', loader.dataset)
        dataset.data_root = f'{data_root}/'
        loader.update(num_workers=0, persistent_workers=False)
        if split != 'train':
            config[f'{split}_evaluator'].ann_file = f'{data_root}/{dataset.ann_file}'
    # A short training has little time for running statistics.
    for part in ('backbone', 'neck', 'bbox_head'):
        config.model[part].norm_cfg.momentum = 0.1
    config.default_hooks.logger.interval = 1000
    return config


def on_training_images(config: Config) -> Config:
    """What a network learnt by heart, it detects."""
    dataset = config.test_dataloader.dataset
    dataset.ann_file = 'annotations/instances_train.json'
    dataset.data_prefix = dict(img='train/')
    config.test_evaluator.ann_file = dataset.data_root + dataset.ann_file
    return config


def constant_model(file: Path, preprocessing: Preprocessing, mode: str = 'nms') -> Path:
    """A model that always finds a box that is larger than any image, and a small one."""
    outputs = dict(
        boxes=np.float32([[[-5, -5, 900, 900], [10, 20, 40, 60], [0, 0, 0, 0]]]),
        scores=np.float32([[0.9, 0.8, 0.0]]),
        labels=np.int64([[0, 1, -1]]),
    )
    tensors = [onnx.numpy_helper.from_array(v, f'constant_{k}') for k, v in outputs.items()]
    images = onnx.helper.make_tensor_value_info(
        'images', onnx.TensorProto.FLOAT, [1, 3, *preprocessing.input_size]
    )
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node('Identity', [f'constant_{name}'], [name]) for name in outputs],
        'constant',
        [images],
        [
            onnx.helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
            for name, tensor in zip(outputs, tensors, strict=True)
        ],
        tensors,
    )
    opset = [onnx.helper.make_opsetid('', 18)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    metadata = dict(mode=mode, classes=list(SHAPE_CLASSES), **preprocessing.metadata())
    file.write_bytes(encode_model(model, metadata))
    return file


def damage(content: bytes, rng: np.random.Generator) -> bytes:
    """Cuts the end off, or flips up to four bits."""
    damaged = bytearray(content)
    if rng.random() < 0.3:
        return bytes(damaged[: rng.integers(len(damaged))])
    for place in rng.choice(len(damaged), rng.integers(1, 5), replace=False):
        damaged[place] ^= 1 << rng.integers(8)
    return bytes(damaged)


@pytest.fixture(scope='session')
def untrained(tmp_path_factory):
    """Data, and a checkpoint that has learnt nothing."""
    folder = tmp_path_factory.mktemp('untrained')
    root = make_shapes(folder / 'data', 2, 1)
    init_default_scope('mmdet')
    detector = MODELS.build(small_config(root).model)
    detector.init_weights()
    meta = dict(dataset_meta=dict(classes=SHAPE_CLASSES))
    torch.save(dict(meta=meta, state_dict=detector.state_dict()), folder / 'untrained.pth')
    return root, folder / 'untrained.pth'


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
    """Data, and a checkpoint that knows its four training images."""
    folder = tmp_path_factory.mktemp('trained')
    root = make_shapes(folder / 'data', 4, 1)
    config = small_config(root)
    config.work_dir = str(folder)
    config.train_dataloader.update(batch_size=4)
    config.train_dataloader.dataset.times = 140
    config.train_dataloader.dataset.dataset.pipeline[3].prob = 0.0
    config.train_cfg.update(max_epochs=1, val_interval=100)
    config.custom_hooks = []
    config.param_scheduler = []
    config.optim_wrapper.optimizer.lr = 5e-3
    set_random_seed(0)
    Runner.from_cfg(config).train()
    return root, folder / 'epoch_1.pth'
