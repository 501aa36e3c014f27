"""Makes random numbers depend on the seed and the epoch only."""

from typing import Any

from mmdet.models import BatchSyncRandomResize
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import IterBasedTrainLoop, Runner, set_random_seed

# The numbers of processes and workers are added to the seed, so this is far larger than them.
_STRIDE = 1_000_003
# What a learning rate schedule keeps about its length.
_LENGTHS = ('begin', 'end', 'T_max', 'total_iters', 'total_steps', 'milestones', 'step_size')


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds every epoch, so that a resumed run continues exactly as if it had not been stopped.

    MMEngine's checkpoints do not hold the state of the random generators, and it seeds its worker
    processes with the same number at each start. With this hook the generators of Python, NumPy
    and torch start each epoch from the run's seed, the epoch and the process. The worker processes
    start with each epoch, from torch's generator.

    If the config names no seed, the run draws one. A resumed run takes the order of the images from
    the seed in the checkpoint.

    MMDetection's ``BatchSyncRandomResize`` starts each epoch with the size of its images.
    Transforms that keep images, such as ``CachedMosaic``, need worker processes (``num_workers``
    above 0).

    Raises:
        ValueError: At the start of a training, if it has ``persistent_workers``, counts iterations
            instead of epochs, has a data set without a batch, or resumes with a learning rate
            schedule of another length. MMEngine would keep the schedule of the checkpoint.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._built_seed: int | None = None

    def before_run(self, runner: Runner) -> None:
        """Notes the seed that MMEngine has given to the sampler."""
        self._built_seed = runner.seed

    def before_train(self, runner: Runner) -> None:
        """Lets torch seed the workers, and gives the sampler a restored seed."""
        loader = runner.train_dataloader
        if loader.persistent_workers:
            raise ValueError(
                'EpochSeedHook needs worker processes that start with each epoch: '
                'set train_dataloader.persistent_workers=False, or remove the hook'
            )
        if isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError(
                'EpochSeedHook needs a training that counts epochs, train_cfg.type='
                "'EpochBasedTrainLoop': remove the hook"
            )
        if not len(loader):
            raise ValueError(
                f'the training set has {len(loader.dataset)} images, which is less than one batch '
                'of each process, and train_dataloader.drop_last=True leaves them out: set a '
                'smaller train_dataloader.batch_size'
            )
        loader.worker_init_fn = None
        # If the config has a batch sampler, the images come from the sampler in it.
        for sampler in (loader.sampler, getattr(loader.batch_sampler, 'sampler', None)):
            # A sampler with its own seed keeps it.
            if self._built_seed == getattr(sampler, 'seed', None) is not None:
                sampler.seed = runner.seed

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Compares the schedules of a run that is resumed with those of its checkpoint."""
        if not runner._resume or 'param_schedulers' not in checkpoint:
            return
        old = _describe_lengths(checkpoint['param_schedulers'])
        new = _describe_lengths(runner.param_schedulers)
        if old != new:
            raise ValueError(
                f'the learning rate schedule of the config is {new}, but that of the checkpoint is '
                f'{old}, and a resumed training would keep it: resume with the epochs, the data, '
                'the batch size and the number of processes of before, or begin a new training in '
                'another work_dir, with load_from set to the checkpoint to start from its weights'
            )

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds the generators of this process."""
        seed = (runner.seed + _STRIDE * runner.epoch) % 2**31
        set_random_seed(seed, diff_rank_seed=True)
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        preprocessor = getattr(model, 'data_preprocessor', None)
        for augment in getattr(preprocessor, 'batch_augments', None) or ():
            if isinstance(augment, BatchSyncRandomResize):
                augment._input_size = None


def _describe_lengths(schedulers: Any) -> str:
    """Describes the lengths of schedulers or their states. Optimizers may have names."""
    if isinstance(schedulers, dict):
        return ', '.join(f'{name}: {_describe_lengths(s)}' for name, s in schedulers.items())
    states = [s if isinstance(s, dict) else s.state_dict() for s in schedulers or ()]
    return str([{key: state[key] for key in _LENGTHS if key in state} for state in states])
