"""Fork a process for each script, with LiteLLM imported: importing it anew would take seconds a script.

Each request line names a folder; its ``script.py`` runs in a child that ends as any Python program does, with its exit
handlers. The answer line is the child's exit status.
"""

from __future__ import annotations

import gc
import os
import runpy
import signal
import sys

_LONGEST_SECONDS = 120


def main() -> None:
    """Serve until the requests end."""
    import litellm
    import openai.resources  # noqa: F401 - what the first call would import

    litellm.suppress_debug_info = True
    gc.freeze()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.chdir(line.strip())
            signal.alarm(_LONGEST_SECONDS)
            return
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()
    os._exit(0)


main()
for _name, _number in (("stdout", 1), ("stderr", 2)):
    os.dup2(os.open(_name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), _number)
runpy.run_path("script.py", run_name="__main__")
