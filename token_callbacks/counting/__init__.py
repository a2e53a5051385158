"""Count the tokens of a text when nobody told us, offline and with a word on how good the count is.

A provider's own figure always wins; this room is asked only where a call ended without one. It opens no connection,
changes no environment variable and imports tiktoken with the first text that it counts.
"""

from token_callbacks.counting.rules import Count, count_completion, count_embedding, count_prompt

__all__ = ["Count", "count_completion", "count_embedding", "count_prompt"]
