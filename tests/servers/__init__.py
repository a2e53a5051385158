"""Local servers, for real: llama-cpp-python's, vLLM on CPU, transformers serve. Run by `python -m tests.servers`."""
