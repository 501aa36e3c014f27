"""Writes checkpoints completely or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmdet.registry import HOOKS
from mmengine.dist import is_main_process
from mmengine.fileio import LocalBackend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import Runner

from ..utils.files import UNFINISHED, write_whole


@register_backend('atomic_local')
class AtomicLocalBackend(LocalBackend):
    """Writes local files completely or not at all, by :func:`write_whole`."""

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Writes a file, see :func:`write_whole`."""
        write_whole(obj, filepath)

    def put_text(self, obj: str, filepath: str | Path, encoding: str = 'utf-8') -> None:
        """Writes a text file, as :meth:`put` does."""
        self.put(obj.encode(encoding), filepath)


class _PostponedRemoval:
    """A file backend that notes the files to remove instead of removing them."""

    def __init__(self, backend: Any) -> None:
        self.backend = backend
        self.outdated: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def remove(self, path: str) -> None:
        self.outdated.append(path)


@HOOKS.register_module()
class AtomicCheckpointHook(CheckpointHook):
    """MMEngine's checkpoint hook, safe against interruptions at any moment.

    MMEngine overwrites a checkpoint and the file ``last_checkpoint``, by which a resumed run finds
    it. It also removes outdated checkpoints before it has written the new one. If a run is killed
    then, half a file is left, or none. This hook writes both files completely or not at all
    (:class:`AtomicLocalBackend`), and removes outdated checkpoints last.

    All arguments are those of MMEngine's ``CheckpointHook``. With ``backend_args``, or with an
    ``out_dir`` that is not local, that file backend writes.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if self.backend_args is None and '://' not in str(self.out_dir):
            self.backend_args = dict(backend='atomic_local')

    def before_train(self, runner: Runner) -> None:
        """Removes the unfinished files of an interrupted run."""
        super().before_train(runner)
        # The work directory may have been moved since the best checkpoint was written.
        if getattr(self, 'best_ckpt_path', None):
            self.best_ckpt_path = self._find_moved(self.best_ckpt_path)
        paths = getattr(self, 'best_ckpt_path_dict', {})
        paths |= {key: path and self._find_moved(path) for key, path in paths.items()}
        if is_main_process():
            for folder in {str(self.out_dir), runner.work_dir}:
                for path in Path(folder).glob(f'*{UNFINISHED}'):
                    if path.is_file():
                        path.unlink()

    def _find_moved(self, path: str) -> str:
        here = self.file_backend.join_path(self.out_dir, Path(path).name)
        return here if self.file_backend.isfile(here) else path

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict[str, Any]) -> None:
        outdated = None
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            if len(self.keep_ckpt_ids) == self.max_keep_ckpts:
                outdated = self.filename_tmpl.format(self.keep_ckpt_ids.popleft())
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = self.file_backend.join_path(self.out_dir, name)
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args,
        )
        if is_main_process():
            pointer = Path(runner.work_dir) / 'last_checkpoint'
            AtomicLocalBackend().put_text(self.last_ckpt, pointer)
            if outdated:
                path = self.file_backend.join_path(self.out_dir, outdated)
                if self.file_backend.isfile(path):
                    self.file_backend.remove(path)

    def _save_best_checkpoint(self, runner: Runner, metrics: dict[str, float]) -> None:
        if not hasattr(self, 'file_backend'):
            # Runner.val() validates without a training.
            return
        with self._removing_afterwards():
            super()._save_best_checkpoint(runner, metrics)

    @contextmanager
    def _removing_afterwards(self) -> Iterator[None]:
        backend = self.file_backend
        self.file_backend = postponed = _PostponedRemoval(backend)
        try:
            yield
        finally:
            self.file_backend = backend
        kept = {self.last_ckpt, getattr(self, 'best_ckpt_path', None)}
        kept.update(getattr(self, 'best_ckpt_path_dict', {}).values())
        for path in postponed.outdated:
            if path not in kept:
                backend.remove(path)
