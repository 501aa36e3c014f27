"""A search by a classifier's loss, and what it found as the backbone of a detector."""

import json
from pathlib import Path

import pytest
from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from short_training import SHORT_TRAINING
from tiny_imagenet import make_tiny_imagenet

from mmdet_hadaptive.models import HadaptiveNet
from mmdet_hadaptive.utils.costs import count_costs
from research.benchmark.compared_networks import write_found_architectures

ROOT = Path(__file__).parents[3]
SEARCH = ROOT / 'research/configs/search'


def test_found_by_a_classifier_trained_in_a_detector(tmp_path, run_warm):
    make_tiny_imagenet(tmp_path / 'data')
    config = SEARCH / 'classifier_hadaptive-search-s_tiny-imagenet.py'
    # One iteration of two images for the weights, and of two for the architecture.
    short = ('--cfg-options', *SHORT_TRAINING, 'train_dataloader.batch_size=2')
    output = run_warm(
        ROOT / 'tools/train.py', config, '--work-dir', 'by-classifier', *short, cwd=tmp_path
    )
    assert 'architecture_loss: ' in output
    # What the search leaves is the classifier, of that network alone.
    alone = Config.fromfile(tmp_path / 'by-classifier/search/architecture.py')
    init_default_scope(alone.default_scope)
    assert type(MODELS.build(alone.model).backbone) is HadaptiveNet

    detectors = SEARCH / 'ssdlite_hadaptive-search-s_shapes.py'
    (file,) = write_found_architectures(detectors, [tmp_path / 'by-classifier'], tmp_path)
    assert file.name == 'ssdlite_found-by-classifier.py'
    assert config.name in file.read_text().partition('\n')[0]
    trained = Config.fromfile(file)
    assert trained.model.type == 'SingleStageDetector'
    backbone = trained.model.backbone
    found = json.loads((tmp_path / 'by-classifier/search/architecture.json').read_text())
    assert backbone.arch.to_dict() == found['table']
    assert list(backbone.out_indices) == [3, 4], "the detector's, not the classifier's"
    costs = count_costs(HadaptiveNet(backbone.arch.to_dict()), 192, 192)
    assert costs.macs == pytest.approx(90.8e6, rel=0.055)


def test_a_search_that_has_not_ended(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'architecture\.json'):
        write_found_architectures(
            SEARCH / 'ssdlite_hadaptive-search-s_shapes.py', [tmp_path], tmp_path
        )
