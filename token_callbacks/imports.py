"""Imports that are done while the program runs, and a fork that must not fall into one."""

import os
import threading

_FORK_SECONDS = 2.0


class _Importing:
    """``with importing:`` stands around every import that this package does while the program runs.

    Python's lock of a module that another thread was importing at a fork is locked in the child for ever (3.11 to
    3.14), and so is whoever imports it there. A fork waits until none of ours goes on, 2 s at most.
    """

    def __init__(self) -> None:
        self._threads: list[int] = []
        """Those that import, by their numbers; one that is in an import within an import is here twice."""
        self._changed = threading.Condition()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._wait, after_in_parent=self._go_on, after_in_child=self._start_afresh)

    def __enter__(self) -> None:
        with self._changed:
            self._threads.append(threading.get_ident())

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._threads.remove(threading.get_ident())
            self._changed.notify_all()

    def _wait(self) -> None:
        self._changed.acquire()  # who wants to begin an import waits until the child is there
        self._changed.wait_for(lambda: set(self._threads) <= {threading.get_ident()}, _FORK_SECONDS)

    def _go_on(self) -> None:
        self._changed.release()

    def _start_afresh(self) -> None:
        self._threads = [thread for thread in self._threads if thread == threading.get_ident()]
        self._changed = threading.Condition()


importing = _Importing()
