"""The errors this package raises: only for wrong use of its own API, never for what a framework or a provider does."""


class TokenCallbacksError(Exception):
    """The root of every error that token_callbacks raises."""


class InvalidArgument(TokenCallbacksError, ValueError):
    """An argument has a value or a type that cannot be used."""


class InvalidPrices(InvalidArgument):
    """A table of prices cannot be read, or says something that is no price."""


class UnknownOption(TokenCallbacksError, TypeError):
    """A keyword argument that does not exist."""


class CounterClosed(TokenCallbacksError, RuntimeError):
    """A counter, or a run of it, is used after ``counter.close()``."""


class RunOrderError(TokenCallbacksError, RuntimeError):
    """A run or a step is left while one that was opened inside it is still open."""


class BudgetExceeded(TokenCallbacksError, ValueError):
    """A token budget that the user asked for is used up; raised before the next call, never after a paid one."""


class MissingExtra(TokenCallbacksError, ImportError):
    """A part of this package needs a library that is not installed."""


class NoLogs(TokenCallbacksError, FileNotFoundError):
    """A folder or file of logs that is to be read does not exist."""
