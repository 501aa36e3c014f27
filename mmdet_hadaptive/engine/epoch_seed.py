"""Random numbers that depend on the seed and the epoch alone."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner, set_random_seed

# Far beyond the number of processes and workers, whose numbers are added to the seed.
_STRIDE = 1_000_003


@HOOKS.register_module()
class EpochSeedHook(Hook):
    """Seeds every epoch anew, so that a resumed run continues exactly as if never stopped.

    MMEngine's checkpoints hold no state of the random generators, and its worker processes are
    seeded with the same number whenever they start. With this hook the generators of Python,
    NumPy and torch start each epoch from the run's seed, the epoch and the process; and the
    worker processes, which start with each epoch, from torch's generator.

    A run whose config names no seed draws one. When it is resumed, the order of the images follows
    the seed of the checkpoint.

    Raises:
        ValueError: At the start of a training whose workers live on from epoch to epoch, that
            counts iterations instead of epochs, or whose data set gives no batch.
    """

    priority = 'VERY_HIGH'

    def __init__(self) -> None:
        self._built_seed: int | None = None

    def before_run(self, runner: Runner) -> None:
        """Notes the seed with which MMEngine has built the sampler."""
        self._built_seed = runner.seed

    def before_train(self, runner: Runner) -> None:
        """Lets torch seed the workers, and the sampler follow a restored seed."""
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
        # A sampler with a seed of its own keeps it.
        if self._built_seed == getattr(loader.sampler, 'seed', None) is not None:
            loader.sampler.seed = runner.seed

    def before_train_epoch(self, runner: Runner) -> None:
        """Seeds the generators of this process."""
        seed = (runner.seed + _STRIDE * runner.epoch) % 2**31
        set_random_seed(seed, diff_rank_seed=True)
