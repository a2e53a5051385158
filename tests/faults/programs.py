"""The programs that the fault tests run in processes of their own: ``python -m tests.faults.programs NAME …``.

They ask the loopback server over httpx and tell, on a line of stdout each, which calls have closed.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import logging.config
import os
import signal
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.abc import MetaPathFinder
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx

from tests.calls import Told, make_call, open_call
from token_callbacks import TokenCounter
from token_callbacks.ledger import process_ledger
from token_callbacks.records import Outcome
from token_callbacks.recovery import recover

MESSAGES = [{"role": "user", "content": "When does the library open?"}]
MODEL = "gpt-4o"
FILLED = 2**30
"""Bytes that a process takes which the kernel is to end for it."""


def tell(*words: str) -> None:
    """Write a line at once, whole whoever writes beside."""
    os.write(1, (" ".join(words) + "\n").encode())


def wait() -> None:
    """Wait until the test says to go on."""
    sys.stdin.readline()


def ask(counter: TokenCounter, base_url: str, client: httpx.Client | None = None) -> str:
    """Make one streamed call and return the id of the answer, once it has closed."""
    body = {"model": MODEL, "messages": MESSAGES, "stream": True, "stream_options": {"include_usage": True}}
    with contextlib.ExitStack() as stack:
        client = client or stack.enter_context(httpx.Client(timeout=60))
        response = stack.enter_context(client.stream("POST", f"{base_url}/chat/completions", json=body))
        lines = list(counter.stream(response.iter_lines(), model=MODEL, messages=MESSAGES))
    return str(json.loads(lines[0].removeprefix("data: "))["id"])


def load(base_url: str, log_dir: str) -> None:
    """Ask without end, from two threads in each of two runs and one outside of any."""
    counter = TokenCounter(log_dir=log_dir)

    def forever(run_id: str) -> None:
        with httpx.Client(timeout=60) as client:
            while True:
                tell(run_id, ask(counter, base_url, client))

    def run(name: str) -> None:
        with counter.run(name, tags={"team": "search"}) as run:
            import contextvars

            context = contextvars.copy_context()
            other = threading.Thread(target=context.run, args=(forever, run.run_id), daemon=True)
            other.start()
            forever(run.run_id)

    for name in ("first", "second"):
        threading.Thread(target=run, args=(name,), daemon=True).start()
    forever("default")


def bare_load(log_dir: str, calls: str, death: str = "kill") -> None:
    """Make calls without a server, and die after the last."""
    counter = TokenCounter(log_dir=log_dir)
    with counter.run("bare"):
        for _ in range(int(calls)):
            make_call(prompt=3, completion=4)
        DEATHS[death]()


def bare_threads(log_dir: str, threads: str, calls: str, death: str) -> None:
    """Make calls from several threads at once, tell each that has closed, and die in the middle of one of them."""
    counter = TokenCounter(log_dir=log_dir)
    numbers = itertools.count(1)

    def calls_of_one() -> None:
        while True:
            number = next(numbers)
            if number == int(calls):
                DEATHS[death]()
            make_call(prompt=number, completion=4)
            os.write(1, number.to_bytes(4))  # a pipe takes so few bytes whole

    with counter.run("threads") as run:
        started = [threading.Thread(target=run.bind(calls_of_one)) for _ in range(int(threads))]
        for thread in started:
            thread.start()
        for thread in started:
            thread.join()


def _end(number: int) -> None:
    os.kill(os.getpid(), number)
    signal.pause()


def _fill_memory() -> None:
    """Have the kernel end this process, in a control group that does not allow it as much as this."""
    hoard = [b"x" * 2**24]
    while len(hoard) < FILLED // 2**24:
        hoard.append(hoard[0] + b"x")


DEATHS: dict[str, Callable[[], None]] = {
    "kill": lambda: _end(signal.SIGKILL),
    "term": lambda: _end(signal.SIGTERM),
    "exit": lambda: os._exit(0),
    "memory": _fill_memory,
}


def bare_workers(log_dir: str, workers: str, calls: str) -> None:
    """Fork workers inside a run, which share its calls among them, and tell the run's sum."""
    counter = TokenCounter(log_dir=log_dir)
    with counter.run("parent") as run:
        children = []
        for _ in range(int(workers)):
            child = os.fork()
            if child == 0:
                for _ in range(int(calls) // int(workers)):
                    make_call(prompt=3, completion=4)
                sys.exit()
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
    tell(str(run.summary.total_llm_tokens))


def exit_at_once(base_url: str, log_dir: str) -> None:
    """Leave by ``os._exit`` in the middle of two runs."""
    counter = TokenCounter(log_dir=log_dir)
    with counter.run("outer") as outer, counter.run("inner") as inner:
        tell(inner.run_id, ask(counter, base_url))
        tell(outer.run_id, "none")
        os._exit(3)


def die_at_each_step(log_dir: str) -> None:
    """Live through a short program again and again, killed at its first, second … change of a file; tell how often."""
    step = 0
    while True:
        child = os.fork()
        if child == 0:
            _short_program(f"{log_dir}/{step}", step)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != -signal.SIGKILL:
            tell(str(step))
            return
        step += 1


def _short_program(log_dir: str, step: int) -> None:
    Path(log_dir).mkdir()
    left = [step]
    for name in ("open", "write", "replace", "unlink", "mkdir", "rename"):
        setattr(os, name, _deadly(getattr(os, name), left))
    counter = TokenCounter(log_dir=f"{log_dir}/logs")
    closed = Path(log_dir, "closed").open("ab", buffering=0)  # noqa: SIM115 - as long as it lives
    with counter.run("outer", tags={"team": "search"}), counter.run("inner"):
        for _ in range(3):
            make_call(prompt=3, completion=4)
            closed.write(b".")
    counter.close()


def _deadly(function: Callable[..., Any], left: list[int]) -> Callable[..., Any]:
    def deadly(*args: Any, **kwargs: Any) -> Any:
        left[0] -= 1
        if left[0] < 0:
            if function.__name__ == "write":  # not even the whole of it
                function(args[0], bytes(args[1])[: len(args[1]) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*args, **kwargs)

    return deadly


def recover_folder(log_dir: str) -> None:
    """Recover, as the command does."""
    recover(log_dir)


def stay(log_dir: str) -> None:
    """Keep a run open until told to go on."""
    counter = TokenCounter(log_dir=log_dir)
    with counter.run("staying") as run:
        make_call(prompt=3, completion=4)
        tell(run.run_id)
        wait()


def fork_workers(base_url: str, log_dir: str, calls: str) -> None:
    """Fork four workers inside a run, each with calls of the run and of one of its own; one is killed."""
    counter = TokenCounter(log_dir=log_dir)
    ask(counter, base_url)
    with counter.run("parent") as run:
        open_call()
        children = [os.fork() for _ in range(1)]
        for _ in range(3):
            if 0 not in children:
                children.append(os.fork())
        if 0 in children:
            for _ in range(int(calls)):
                ask(counter, base_url)
            with counter.run("worker"):
                ask(counter, base_url)
            if len(children) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            sys.exit()
        ask(counter, base_url)
        for child in children:
            os.waitpid(child, 0)
    tell(run.run_id, str(run.summary.total_llm_tokens))


_counters: dict[str, TokenCounter] = {}


def _task(base_url: str, log_dir: str, token: str) -> int:
    counter = _counters.get(log_dir) or _counters.setdefault(log_dir, TokenCounter(log_dir=log_dir))
    with counter.join_run(token):
        ask(counter, base_url)
    return os.getpid()


def pool(base_url: str, log_dir: str, method: str, calls: str) -> None:
    """Hand a run's token to the tasks of a process pool."""
    counter = TokenCounter(log_dir=log_dir)
    with counter.run("pool") as run:
        ask(counter, base_url)
        with ProcessPoolExecutor(2, mp_context=get_context(method)) as workers:
            list(workers.map(_task, *zip(*[(base_url, log_dir, run.token)] * int(calls), strict=True)))
    tell(run.run_id, str(run.summary.total_llm_tokens))


def part(base_url: str, log_dir: str) -> None:
    """Take part in the run that the environment names, and in a run inside it, when told to."""
    counter = TokenCounter(log_dir=log_dir)
    ask(counter, base_url)
    tell("here")
    wait()
    ask(counter, base_url)
    with counter.run("nested"):
        ask(counter, base_url)
    tell("there")
    wait()


class _Slow(MetaPathFinder):
    """Stops the first import of a module until the process was forked, or for a second."""

    def __init__(self, module: str) -> None:
        self._module = module
        self.is_under_way, self.has_forked = threading.Event(), threading.Event()

    def find_spec(self, name: str, path: object, target: object = None) -> None:
        """Find nothing."""
        if name == self._module and not self.is_under_way.is_set():
            self.is_under_way.set()
            self.has_forked.wait(1)


def fork_in_import(log_dir: str, module: str) -> None:
    """Fork while a thread that counts and prices imports a module, and count and price in the child."""
    counter = TokenCounter(log_dir=log_dir)
    slow = _Slow(module)
    sys.meta_path.insert(0, slow)

    def count() -> None:
        with counter.run("counted"):
            told = Told(None, text="At nine.", messages=MESSAGES)
            process_ledger().close_call(open_call(), outcome=Outcome.COMPLETED, evidence=[told])

    thread = threading.Thread(target=count)
    thread.start()
    if not slow.is_under_way.wait(60):
        raise SystemExit(f"{module} was not imported")
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        count()
        os._exit(0)
    slow.has_forked.set()
    _, status = os.waitpid(child, 0)
    thread.join()
    tell(str(status))


def fork_beside_a_lock(log_dir: str) -> None:
    """Fork while a thread that has logging's lock, which every fork takes, imports something of ours."""
    has_lock, is_forking = threading.Event(), threading.Event()
    # At a fork the hooks that came last are first: after the one that comes with an import of ours, before logging's.
    os.register_at_fork(before=is_forking.set)
    from token_callbacks.imports import importing

    class Handler(logging.Handler):
        def __init__(self) -> None:
            super().__init__()
            has_lock.set()
            is_forking.wait(20)
            with importing:
                pass

    with importing:
        pass
    configuration = {"version": 1, "handlers": {"slow": {"()": Handler}}}
    thread = threading.Thread(target=logging.config.dictConfig, args=[configuration])
    thread.start()
    has_lock.wait(20)
    signal.alarm(30)  # a fork that hangs
    child = os.fork()
    if child == 0:
        os._exit(0)
    _, status = os.waitpid(child, 0)
    thread.join()
    TokenCounter(log_dir=log_dir).close()
    tell(str(status))


def interrupt_a_waiting_fork(log_dir: str) -> None:
    """Interrupt a fork that waits for an import of ours."""
    from token_callbacks.imports import importing

    TokenCounter(log_dir=log_dir).close()
    is_importing, is_over = threading.Event(), threading.Event()

    def import_slowly() -> None:
        with importing:
            is_importing.set()
            is_over.wait(20)

    thread = threading.Thread(target=import_slowly)
    thread.start()
    is_importing.wait(20)
    interrupt = threading.Timer(0.2, signal.raise_signal, [signal.SIGINT])
    os.register_at_fork(before=interrupt.start)
    try:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)
        is_over.wait(10)
        tell("not interrupted")
    except KeyboardInterrupt:
        tell("interrupted")
    is_over.set()
    thread.join()


def litellm_and_die(base_url: str, log_dir: str, kind: str, is_forked: str) -> None:
    """Make a call through LiteLLM and die as soon as it has returned, in a child whose parent made one, too, or not."""
    import litellm

    counter = TokenCounter(log_dir=log_dir)

    def call() -> None:
        told: dict[str, Any] = {"api_base": base_url, "api_key": "sk-loopback"}
        if kind == "embedding":
            litellm.embedding("openai/text-embedding-3-small", input=["nine"], **told)
        elif kind == "responses":
            litellm.responses(model=f"openai/{MODEL}", input="When?", **told)
        elif kind == "text":
            litellm.text_completion(model="text-completion-openai/gpt-3.5-turbo-instruct", prompt="When?", **told)
        elif kind == "stream":
            list(litellm.completion(f"openai/{MODEL}", messages=MESSAGES, stream=True, **told))
        else:
            litellm.completion(f"openai/{MODEL}", messages=MESSAGES, **told)

    if is_forked == "True":
        call()
        counter.close()
        counter = TokenCounter(log_dir=log_dir)
        child = os.fork()
        if child != 0:
            os.waitpid(child, 0)
            return
    call()
    os.kill(os.getpid(), signal.SIGKILL)


def lose_permission(log_dir: str, calls: str) -> None:
    """Make calls while the folder is not ours to write to, and as many when it is again."""
    TokenCounter(log_dir=None).close()  # loads what may lie where only root may read
    if os.geteuid() == 0:
        os.seteuid(65534)
    folder = Path(log_dir, "logs")
    counter = TokenCounter(log_dir=folder)
    with counter.run("before"):
        make_call(prompt=3, completion=4)
    counter.close()
    folder.chmod(0o500)
    counter = TokenCounter(log_dir=folder)
    with counter.run("during") as run:
        for _ in range(int(calls)):
            make_call(prompt=5, completion=6)
        folder.chmod(0o700)
        for _ in range(int(calls)):
            make_call(prompt=7, completion=8)
    tell(str(run.summary.total_llm_tokens), str(run.summary.lost_records))


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
