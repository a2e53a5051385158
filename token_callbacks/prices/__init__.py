"""What calls cost: the user's own table, the ``genai-prices`` library, LiteLLM's price map, the provider's own word.

A price is an opinion of the day it is formed on. The lines of the log hold figures and no money, so that prices can be
applied anew whenever they are read; a run's summary keeps what was thought when it was written.
"""

from __future__ import annotations

from token_callbacks.prices.book import PRICES_VARIABLE, Price, PriceBook
from token_callbacks.prices.costs import cost_of

__all__ = ["PRICES_VARIABLE", "Price", "PriceBook", "cost_of"]
