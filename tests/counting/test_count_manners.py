"""What counting must not do to the process it runs in."""

import subprocess
import sys

import pytest

COUNTS = """
from token_callbacks.counting import count_completion, count_embedding, count_prompt
print(count_prompt(model="gpt-4o", messages=[{"role": "user", "content": "hello world"}]).tokens)
print(count_completion(model="gpt-4", text="hello world").tokens)
print(count_embedding(model="text-embedding-3-small", inputs=["hello world"]).tokens)
print(count_completion(model="ollama/mine", text="hello world").tokens > 0)
"""
LOADED = "print(sorted({'tiktoken', 'litellm', 'llama_index', 'requests'} & set(sys.modules)))"
REFUSES_NETWORK = """
import os, sys

def refuse(event, arguments):
    if event.startswith("socket."):
        print("network:", event, flush=True)
        os._exit(3)

sys.addaudithook(refuse)
"""


def printed(code: str) -> list[str]:
    """Return the lines that a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True, timeout=60)
    return done.stdout.splitlines()


def test_import_loads_neither_tiktoken_nor_a_framework() -> None:
    """The room itself is cheap to import."""
    assert ["[]"] == printed(f"import sys, token_callbacks.counting\n{LOADED}")


def test_counting_loads_tiktoken_and_no_framework() -> None:
    """The vocabularies of the frameworks are found without importing them."""
    without = "import sys\nsys.modules['splintr'] = None\n"

    assert ["9", "2", "2", "True", "['tiktoken']"] == printed(f"{without}{COUNTS}{LOADED}")


@pytest.mark.usefixtures("proved_splintr")
def test_counting_with_splintr_loads_not_even_tiktoken() -> None:
    """Where splintr-rs is installed, it has OpenAI's vocabularies inside it."""
    assert ["9", "2", "2", "True", "[]"] == printed(f"import sys\n{COUNTS}{LOADED}")


def test_counting_opens_no_connection() -> None:
    """Neither a socket nor a name look-up is tried to find the vocabularies that are installed."""
    assert ["9", "2", "2", "True"] == printed(REFUSES_NETWORK + COUNTS)


def test_machine_without_vocabularies_opens_no_connection() -> None:
    """Where no vocabulary is found, characters are counted and nothing is fetched."""
    without = (
        "from token_callbacks.counting import vocabularies\nvocabularies.FOLDERS_IN_PACKAGES = ()\n"
        "sys.modules['splintr'] = None\n"
    )
    nowhere = {"TIKTOKEN_CACHE_DIR": "", "DATA_GYM_CACHE_DIR": "", "TMPDIR": "/nowhere"}

    lines = printed(f"{REFUSES_NETWORK}{without}os.environ.update({nowhere})\n{COUNTS}")

    assert [str(3 + 1 + 3 + 3), "3", "3", "True"] == lines


def test_refusal_of_the_network_works() -> None:
    """The block above is not blind: a name look-up ends the process."""
    with pytest.raises(subprocess.CalledProcessError):
        printed(f"{REFUSES_NETWORK}import socket\nsocket.getaddrinfo('localhost', 80)")
