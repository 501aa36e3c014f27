"""A search with a real detector, by MMDetection's script, and the training of what it found."""

from pathlib import Path

from mmengine.config import Config
from short_training import SHORT_TRAINING

from mmdet_hadaptive.utils.safe_loading import read_checkpoint

ROOT = Path(__file__).parents[3]
CONFIG = ROOT / 'research/configs/search/ssdlite_hadaptive-search-s_shapes.py'
TRAIN = ROOT / 'tools/train.py'
# One iteration of eight images of the sixteen, half of which the search has for the weights.
SHORT = ('--cfg-options', *SHORT_TRAINING, 'train_dataloader.batch_size=8')


def test_a_search_and_the_training_of_what_it_found(shapes, run_warm):
    work = shapes.parents[1]
    output = run_warm(TRAIN, CONFIG, '--work-dir', 'search', *SHORT, cwd=work)
    assert 'architecture_loss: ' in output
    assert f'Found: {work}/search/search/architecture.py' in output
    state = read_checkpoint(work / 'search/epoch_1.pth')
    assert state['state_dict']['backbone.logits'].shape == (15, 4)
    found = work / 'search/search/architecture.py'
    config = Config.fromfile(found)
    assert config.model.backbone.norm_cfg.momentum == 0.03
    assert config.train_cfg.max_epochs == 9
    output = run_warm(TRAIN, found, '--work-dir', 'found', *SHORT, cwd=work)
    assert 'Epoch(train) [1][2/2]' in output
    names = read_checkpoint(work / 'found/epoch_1.pth')['state_dict']
    assert 'backbone.stage2.0.depthwise.conv.weight' in names
