import json
import math
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.runner import Runner

from mmdet_hadaptive.engine import ResumableTrainLoop
from mmdet_hadaptive.models import HadaptiveNet
from research.analysis.selection_hook import SelectionHook
from research.analysis.selection_plots import draw_channels, draw_feature_maps
from research.analysis.selection_statistics import (
    SelectionStatistics,
    adaptive_layers,
    collect_statistics,
)

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / 'research/configs/ablation/ssdlite_hadaptive-s_shapes_selection.py'
LAYERS = ['stage3.1', 'stage3.2', 'stage3.4', 'stage3.5', 'stage4.1', 'stage4.2']


def test_statistics_count_channels_and_pairs():
    statistics = SelectionStatistics()
    batches = [[(0, 2), (2, 1)], [(3, 2)]]
    for batch in batches:
        statistics.update(torch.zeros(len(batch), 4), torch.tensor(batch), torch.tensor(2.0))
    assert statistics.channel_frequencies.tolist() == pytest.approx([1 / 3, 1 / 3, 1, 1 / 3])
    pairs = torch.zeros(4, 4)
    for i, j in ((0, 2), (1, 2), (2, 3)):
        pairs[i, j] = pairs[j, i] = 1 / 3
    assert torch.allclose(statistics.pair_frequencies, pairs)
    scalars = statistics.scalars()
    assert scalars['entropy'] == pytest.approx(1)
    assert scalars['effective_pairs'] == pytest.approx(3)
    # Shares 1/6, 1/6, 1/2, 1/6.
    assert scalars['effective_channels'] == pytest.approx(6**0.5 * 2**0.5)


def test_entropy_is_that_of_the_softmax_at_the_temperature():
    statistics = SelectionStatistics()
    scores = torch.randn(3, 5)
    statistics.update(scores, torch.tensor([[0], [1], [2]]), torch.tensor(0.5))
    expected = [torch.distributions.Categorical(logits=row / 0.5).entropy() for row in scores]
    value = statistics.scalars()['entropy']
    assert value == pytest.approx((sum(expected) / 3 / math.log(5)).item(), rel=1e-5)


def test_what_is_counted_is_what_is_multiplied():
    net = HadaptiveNet('small', out_indices=(3,)).eval()
    layers = adaptive_layers(net)
    assert list(layers) == LAYERS[:4]
    layer = layers['stage3.1']
    layer.product_norm = torch.nn.Identity()
    outputs = []
    layer.register_forward_hook(lambda module, args, output: outputs.append(output))
    with collect_statistics(layers) as statistics, torch.no_grad():
        net(torch.randn(3, 3, 64, 64))
    counts = statistics['stage3.1']
    assert counts.num_images == 3
    assert counts.channel_frequencies.sum().item() == pytest.approx(16)
    for image in range(3):
        u, products = outputs[0][image, :96], outputs[0][image, 96:]
        # The first product is that of the two channels with the highest scores.
        scores = layer.scorer(outputs[0][image : image + 1, :96])[0]
        i, j = scores.topk(2).indices
        assert counts.pair_counts[i, j] >= 1
        assert torch.allclose(u[i] * u[j], products[0])
    assert all(layer.on_selection is None for layer in layers.values())


def test_no_layer_that_selects():
    net = HadaptiveNet('small', ach_cfg=dict(selection='fixed'))
    with pytest.raises(ValueError, match=r'HadaptiveNet has no .* selects by scores'):
        adaptive_layers(net)


def test_wrong_interval():
    with pytest.raises(ValueError, match='interval must be at least 1, got 0'):
        SelectionHook(interval=0)


def test_pictures(tmp_path):
    net = HadaptiveNet('small', out_indices=(3,)).eval()
    files = draw_feature_maps(net, torch.randn(1, 3, 64, 64), tmp_path)
    assert [file.name for file in files] == [f'features_{name}.png' for name in LAYERS[:4]]
    # Diagonal and upper triangle are coloured, the rest is white.
    picture = cv2.imread(str(files[0])).astype(int)
    coloured = picture.max(axis=2) - picture.min(axis=2) > 10
    height, width = coloured.shape
    assert coloured[: height // 2, width // 2 :].mean() > 0.3
    assert coloured[height * 6 // 10 : height * 8 // 10, width // 5 : width // 3].mean() == 0
    draw_channels({'a': torch.rand(30, 8)}, tmp_path / 'channels.png', 'title', 'epoch')
    assert (tmp_path / 'channels.png').stat().st_size > 0


def test_the_mosaic_shows_the_channels_that_it_names(tmp_path, monkeypatch):
    figures, maps = [], []
    monkeypatch.setattr(Figure, 'savefig', lambda figure, *args, **kwargs: figures.append(figure))
    net = HadaptiveNet('small', out_indices=(3,)).eval()
    layer = adaptive_layers(net)['stage3.1']
    layer.norm.register_forward_hook(lambda module, args, output: maps.append(output[0]))
    draw_feature_maps(net, torch.randn(1, 3, 64, 64), tmp_path)
    (axis,) = figures[0].axes
    channels = [int(label.get_text()) for label in axis.get_yticklabels()]
    assert channels == [int(label.get_text()) for label in axis.get_xticklabels()]
    canvas = np.ma.filled(axis.images[0].get_array(), np.nan)

    def shown(row, column):
        # Maps of 4 x 4 pixels, and a line between them.
        return torch.tensor(canvas[row * 5 : row * 5 + 4, column * 5 : column * 5 + 4]).float()

    for row, first in enumerate(channels):
        for column, second in enumerate(channels):
            expected = maps[0][first] * (maps[0][second] if row != column else 1)
            if row <= column:
                assert torch.allclose(shown(row, column), expected / expected.abs().max())
            else:
                assert shown(row, column).isnan().all()


@pytest.mark.parametrize('resume', [True, False])
def test_only_a_resumed_run_has_the_history_of_its_checkpoint(resume):
    hook, checkpoint = SelectionHook(), {}
    hook.history = {'stage3.1': [torch.ones(4)]}
    hook.before_save_checkpoint(None, checkpoint)
    other = SelectionHook()
    other.after_load_checkpoint(SimpleNamespace(_resume=resume), checkpoint)
    assert list(other.history) == (['stage3.1'] if resume else [])


def test_a_run_resumed_after_its_end_keeps_its_pictures(tmp_path):
    hook = SelectionHook()
    checkpoint = dict(selection_history={'stage3.1': [torch.ones(4)]})
    hook.after_load_checkpoint(SimpleNamespace(_resume=True), checkpoint)
    hook.after_train(SimpleNamespace(work_dir=str(tmp_path)))
    assert not list(tmp_path.iterdir())


def test_parts_of_epochs_are_not_counted():
    runner = SimpleNamespace(
        model=HadaptiveNet('small'), train_loop=object.__new__(ResumableTrainLoop)
    )
    with pytest.raises(ValueError, match=r"set train_cfg.type='EpochBasedTrainLoop'"):
        SelectionHook().before_train(runner)


def test_all_that_is_counted_is_added_up_over_processes(monkeypatch):
    net = HadaptiveNet('small', out_indices=(3,)).eval()
    images = torch.randn(2, 3, 64, 64)
    written = []

    def validate(processes):
        # Each of them sees the same images.
        monkeypatch.setattr(
            'research.analysis.selection_hook.all_reduce', lambda value: value.mul_(processes)
        )
        visualizer = SimpleNamespace(add_scalars=lambda scalars, step: written.append(scalars))
        runner = SimpleNamespace(model=net, visualizer=visualizer, epoch=1)
        hook = SelectionHook()
        hook.before_val_epoch(runner)
        with torch.no_grad():
            net(images)
        hook.after_val_epoch(runner)
        return hook.pairs

    one, two = validate(1), validate(2)
    assert written[0] == pytest.approx(written[1])
    for name, pairs in one.items():
        assert torch.equal(pairs, two[name])


def train(work_dir, epochs, resume=False):
    config = Config.fromfile(CONFIG)
    config.merge_from_dict(
        dict(
            work_dir=str(work_dir),
            resume=resume,
            train_cfg=dict(max_epochs=epochs, val_interval=1),
            train_dataloader=dict(batch_size=4, num_workers=0),
            val_dataloader=dict(num_workers=0, persistent_workers=False),
        )
    )
    config.custom_hooks[-1].interval = 2
    # MMEngine returns the visualizer of an earlier runner in this process that has the same name.
    config.visualizer.name = f'{work_dir}, {epochs} epochs'
    config.visualizer.vis_backends = [
        dict(type='LocalVisBackend'),
        dict(type='TensorboardVisBackend'),
    ]
    runner = Runner.from_cfg(config)
    runner.train()
    return runner


def test_hook_records_a_training_and_goes_on_when_resumed(shapes, tmp_path, monkeypatch):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    monkeypatch.chdir(shapes.parents[1])
    runner = train(tmp_path, 1)
    records = [
        json.loads(line)
        for line in (Path(runner.log_dir) / 'vis_data/scalars.json').read_text().splitlines()
    ]
    steps = [r['step'] for r in records if 'ach/stage4.2/entropy' in r]
    assert steps == [2, 4]
    (validation,) = [r for r in records if 'ach_val/stage4.2/entropy' in r]
    layer = adaptive_layers(runner.model)['stage4.2']
    assert validation['ach_val/stage4.2/temperature'] == pytest.approx(layer.temperature.item())
    assert 0 < validation['ach_val/stage4.2/entropy'] <= 1
    assert 31.9 <= validation['ach_val/stage4.2/effective_channels'] <= 128.1
    assert 495.9 <= validation['ach_val/stage4.2/effective_pairs'] <= 8128.1
    events = EventAccumulator(str(Path(runner.log_dir) / 'vis_data'))
    events.Reload()
    assert 'ach/stage3.1/temperature' in events.Tags()['scalars']
    assert 'selection/pairs' in events.Tags()['images']

    train(tmp_path, 2, resume=True)
    frequencies = torch.load(tmp_path / 'selection/frequencies.pt', weights_only=True)
    assert list(frequencies['channels']) == LAYERS
    for name, selected in zip(LAYERS, [16] * 4 + [32] * 2, strict=True):
        rows = frequencies['channels'][name]
        # An epoch from before and one from after.
        assert len(rows) == 2
        assert rows.sum(dim=1).tolist() == pytest.approx([selected] * 2)
        pairs = frequencies['pairs'][name]
        assert pairs.triu(1).sum().item() == pytest.approx(selected * (selected - 1) / 2)
    pictures = {path.name for path in (tmp_path / 'selection').glob('*.png')}
    assert pictures == {'channels.png', 'pairs.png', *(f'features_{n}.png' for n in LAYERS)}


def test_explain_selection(shapes, tmp_path, run, run_warm):
    backbone = HadaptiveNet('small', out_indices=(3, 4))
    state = {f'backbone.{name}': value for name, value in backbone.state_dict().items()}
    torch.save(dict(state_dict=state, meta=dict()), tmp_path / 'checkpoint.pth')
    tool = ROOT / 'research/tools/explain_selection.py'
    arguments = (tool, CONFIG, 'checkpoint.pth', '--img')
    output = run_warm(*arguments, shapes / 'val', cwd=tmp_path)
    assert '8 images of' in output
    assert '| stage3.1 | 4.000 |' in output
    assert (tmp_path / 'selection/features_stage4.2.png').stat().st_size > 0
    output = run(*arguments, 'nowhere.jpg', cwd=tmp_path, code=2)
    assert 'nowhere.jpg is neither an image nor a folder with images' in output
