"""Imports that are done while the program runs, and a fork that must not fall into one; what is imported again."""

import _thread
import os
import threading
from typing import TypeGuard, TypeVar

_T = TypeVar("_T")

_IMPORT_SECONDS = 10.0
"""So long a fork waits for imports: that of the prices takes seconds on a busy machine; a child that hangs is worse."""
_FORK_SECONDS = 2.0
_SOON_SECONDS = 0.05


class _Importing:
    """``with importing:`` stands around every import that this package does while the program runs.

    Python's lock of a module that another thread was importing at a fork is locked in the child for ever (3.11 to
    3.14), and so is whoever imports it there. A fork waits until none of ours goes on, and an import until no fork
    does, neither for ever: either may hold, or be about to wait for, a lock of somebody's that the other one needs.
    """

    def __init__(self) -> None:
        self._importing: list[int] = []
        """The threads that do, by their numbers; one that is in an import within an import is here twice."""
        self._forking: set[int] = set()
        self._changed = threading.Condition()
        self._is_hooked = False
        self._was_interrupted = False

    def __enter__(self) -> None:
        itself = threading.get_ident()
        with self._changed:
            if not self._is_hooked:
                self._hook()
            if not self._changed.wait_for(lambda: self._forking <= {itself}, _FORK_SECONDS):
                self._forking.clear()  # they wait for this thread, so that it need not wait for them again
            self._importing.append(itself)

    def __exit__(self, *exception: object) -> None:
        with self._changed:
            self._importing.remove(threading.get_ident())
            self._changed.notify_all()

    def _hook(self) -> None:
        self._is_hooked = True
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(before=self._wait, after_in_parent=self._go_on, after_in_child=self._start_afresh)

    def _wait(self) -> None:
        itself = threading.get_ident()
        with self._changed:
            self._forking.add(itself)
            try:
                self._changed.wait_for(lambda: set(self._importing) <= {itself, *self._forking}, _IMPORT_SECONDS)
            except KeyboardInterrupt:  # Python drops what is raised in here
                self._was_interrupted = True

    def _go_on(self) -> None:
        with self._changed:
            self._forking.discard(threading.get_ident())
            self._changed.notify_all()
            was_interrupted, self._was_interrupted = self._was_interrupted, False
        if was_interrupted:  # once it can be raised again
            threading.Timer(_SOON_SECONDS, _thread.interrupt_main).start()

    def _start_afresh(self) -> None:
        self._importing = [thread for thread in self._importing if thread == threading.get_ident()]
        self._forking = set()
        self._changed = threading.Condition()
        self._was_interrupted = False


importing = _Importing()


def version_of(package: str) -> str | None:
    """Look up the release of a package that is installed; ``None`` where none is, or a copy that nobody installed."""
    with importing:  # not with this file: it costs as much as all the rest; and the lookup imports a parser
        from importlib.metadata import PackageNotFoundError, version

        try:
            return version(package)
        except PackageNotFoundError:
            return None


def is_of_class(value: object, kind: type[_T]) -> TypeGuard[_T]:
    """Tell whether an object is of a class, or of the one that was there before its module was loaded again."""
    return any((it.__module__, it.__qualname__) == (kind.__module__, kind.__qualname__) for it in type(value).__mro__)
