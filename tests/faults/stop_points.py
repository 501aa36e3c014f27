"""Stops a training within the moments in which a checkpoint takes the place of another.

Imported by the training's config. The environment variable SOAK_STOP names the moment, how often
it is to come, and the file by which the process tells that it waits there to be killed:
'before pointer:2:FILE'.
"""

import os
import time
from pathlib import Path

from mmdet_hadaptive.engine import AtomicLocalBackend

_stop = os.environ.get('SOAK_STOP')
_seen = []


def _stop_at(point):
    _seen.append(point)
    if _stop and _stop.startswith(f'{point}:{_seen.count(point)}:'):
        Path(_stop.split(':', 2)[2]).write_text(point)
        time.sleep(600)


_put, _remove = AtomicLocalBackend.put, AtomicLocalBackend.remove


def _stopping_put(self, obj, filepath):
    if Path(filepath).name == 'last_checkpoint':
        _stop_at('before pointer')
    _put(self, obj, filepath)


def _stopping_remove(self, filepath):
    _stop_at('before removal')
    _remove(self, filepath)
    _stop_at('after removal')


AtomicLocalBackend.put, AtomicLocalBackend.remove = _stopping_put, _stopping_remove
