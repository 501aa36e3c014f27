"""Makes random numbers depend on the seed and the epoch only."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner, set_random_seed

# The numbers of processes and workers are added to the seed, so this is far larger than them.
_STRIDE = 1_000_003


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds every epoch, so that a resumed run continues exactly as if it had not been stopped.

    MMEngine's checkpoints do not hold the state of the random generators, and it seeds its worker
    processes with the same number at each start. With this hook the generators of Python, NumPy
    and torch start each epoch from the run's seed, the epoch and the process. The worker processes
    start with each epoch, from torch's generator.

    If the config names no seed, the run draws one. A resumed run takes the order of the images from
    the seed in the checkpoint.

    Raises:
        ValueError: At the start of a training, if it has ``persistent_workers``, counts iterations
            instead of epochs, or has a data set without a batch.
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

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds the generators of this process."""
        seed = (runner.seed + _STRIDE * runner.epoch) % 2**31
        set_random_seed(seed, diff_rank_seed=True)
