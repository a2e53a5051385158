"""Loads run beside what tests of other suites left open."""

from tests.llama_index.figures import calls_of_others

__all__ = ["calls_of_others"]
