"""A thread for what takes too long to do while the host waits: counting long texts.

It is started when there is something to do for the first time, and it is the only thread of this package. Whoever needs
a result now, a run that ends or a summary that is read, does what is waiting by himself.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Hashable


class Worker:
    """Jobs in the order they came, each done once. All methods are thread-safe; a job must not raise."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[tuple[Hashable, Callable[[], object]]] = deque()
        self._thread: threading.Thread | None = None

    def submit(self, key: Hashable, job: Callable[[], object]) -> None:
        """Have a job done soon."""
        with self._changed:
            self._waiting.append((key, job))
            if self._thread is None:
                # A daemon: the interpreter must not wait for it. Counters close before it ends, and do what is left.
                self._thread = threading.Thread(target=self._work, name="token_callbacks", daemon=True)
                self._thread.start()
            self._changed.notify()

    def finish(self, is_wanted: Callable[[Hashable], bool]) -> None:
        """Do those of the waiting jobs that are wanted, here and now; one that the thread is at is left to it."""
        while (job := self._taken(is_wanted)) is not None:
            job()

    def _taken(self, is_wanted: Callable[[Hashable], bool]) -> Callable[[], object] | None:
        with self._changed:
            for position, (key, job) in enumerate(self._waiting):
                if is_wanted(key):
                    del self._waiting[position]
                    return job
        return None

    def _work(self) -> None:
        while True:
            with self._changed:
                while not self._waiting:
                    self._changed.wait()
                _, job = self._waiting.popleft()
            job()
            del job  # it holds texts
