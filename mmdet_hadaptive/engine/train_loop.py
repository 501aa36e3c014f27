"""A training loop that resumes within an epoch."""

import numpy as np
from mmdet.registry import LOOPS
from mmengine.runner import EpochBasedTrainLoop, set_random_seed
from torch import nn

from .epoch_seed import EpochSeedHook

# The key for the number of batches in an epoch, in MMEngine's record of a run.
_LENGTH = 'epoch_length'


@LOOPS.register_module()
class ResumableTrainLoop(EpochBasedTrainLoop):
    """``EpochBasedTrainLoop`` that resumes at the iteration of the checkpoint.

    MMEngine's loop begins the epoch again, with the weights of its middle. This loop loads and
    skips the batches that were already used, so that data workers draw the same random numbers for
    the others. Each iteration seeds the process's generators from the run's seed, the epoch and the
    batch. With :class:`EpochSeedHook` a resumed run is then bitwise equal to a run that was not
    stopped.

    Checkpoints within epochs are written with
    ``default_hooks=dict(checkpoint=dict(by_epoch=False, interval=ITERATIONS))``. All arguments are
    those of ``EpochBasedTrainLoop``.
    """

    def run(self) -> nn.Module:
        """Trains.

        Returns:
            The model.

        Raises:
            ValueError: If ``EpochSeedHook`` is missing, or if an epoch has another number of
                batches than in the run that wrote the checkpoint, for example by another batch
                size or number of processes.
        """
        if not any(isinstance(hook, EpochSeedHook) for hook in self.runner.hooks):
            raise ValueError(
                "ResumableTrainLoop needs dict(type='EpochSeedHook') in custom_hooks: without it "
                'the order of the images and their random numbers are not those of the run before'
            )
        length = len(self.dataloader)
        log = self.runner.message_hub
        # Checkpoints hold the values of this dictionary.
        before = log.runtime_info.get(_LENGTH, length)
        done = self._iter - self._epoch * length
        if before != length or not 0 <= done <= length:
            raise ValueError(
                f'the checkpoint of iteration {self._iter} in epoch {self._epoch + 1} was written '
                f'in a training of {before} batches an epoch, and now there are {length}: resume '
                'with the images, the batch size and the number of processes of that training'
            )
        log.update_info(_LENGTH, length)
        return super().run()

    def run_epoch(self) -> None:
        """Trains for the rest of an epoch."""
        length = len(self.dataloader)
        done = self._iter - self._epoch * length
        self.runner.call_hook('before_train_epoch')
        self.runner.model.train()
        batches = iter(self.dataloader)
        for index in range(length):
            numbers = np.random.SeedSequence([self.runner.seed, self._epoch, index])
            # Small enough that the number of the process can be added.
            set_random_seed(int(numbers.generate_state(1)[0] // 2), diff_rank_seed=True)
            batch = next(batches)
            if index >= done:
                self.run_iter(index, batch)
        self.runner.call_hook('after_train_epoch')
        self._epoch += 1
