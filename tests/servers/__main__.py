"""Install local servers and test with them: one command, which takes a while the first time.

    python -m tests.servers                      # llama-cpp, vllm and transformers
    python -m tests.servers vllm                 # one of them

Environments and models are kept in the folder that `TOKEN_CALLBACKS_SERVERS` names, by default one under the system's
folder for temporary files. Needs `uv` and, for llama-cpp, a C++ compiler. The exit status is pytest's.
"""

from __future__ import annotations

import os
import subprocess
import sys

from .recipes import ENVIRONMENTS_VARIABLE, HERE, RECIPES, environments, python_of

_SUITES = {name: HERE / f"test_{name.replace('-', '_')}.py" for name in RECIPES}


def main(names: list[str]) -> int:
    """Install what is missing, and run the suites."""
    unknown = set(names) - set(RECIPES)
    if unknown:
        raise SystemExit(f"no recipe for {', '.join(sorted(unknown))}: choose from {', '.join(RECIPES)}")
    os.environ[ENVIRONMENTS_VARIABLE] = str(environments())
    wanted = names or list(RECIPES)
    for name in wanted:
        folder = environments() / name
        is_whole = folder / "installed"
        if not is_whole.exists():
            print(f"{name}: installing into {folder}", flush=True)  # noqa: T201
            folder.mkdir(parents=True, exist_ok=True)
            RECIPES[name](folder)
            is_whole.touch()
        assert python_of(name).exists()
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *(_SUITES[name] for name in wanted)], check=False
    ).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
