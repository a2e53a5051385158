"""Take the place of LaVague's token counters, of both generations, with figures that are the provider's own.

    from token_callbacks.adapters.lavague import TokenCounter       # LaVague 0.2.24 to 0.2.35
    from token_callbacks.adapters.lavague import init_token_counter # LaVague 0.2.23

A plain ``token_callbacks.TokenCounter`` that an agent is given is made the same.

Facts about LaVague that shape this file (lavague-core 0.2.23 and 0.2.35; tests/lavague shows them):

- From 0.2.24 on the agent calls ``process_token_usage`` once a step and unpacks what it returns; what that raises ends
  the run, and the step's row is lost. Before, it took two counters out of a mapping when it was made.
- ``WebAgent.run`` catches ``KeyboardInterrupt`` and returns as if nothing had been.
- The agents that a page shows (gradio) are generators, read by whatever thread has time.
"""

from __future__ import annotations

import contextvars
import functools
import inspect
import itertools
import logging
import sys
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import msgspec

from token_callbacks import counter as counters
from token_callbacks import hooks
from token_callbacks.binding import bound
from token_callbacks.charges import Charged
from token_callbacks.errors import InvalidArgument, UnknownKey
from token_callbacks.imports import is_of_class, version_of
from token_callbacks.ledger import Draft, Ledger
from token_callbacks.records import Operation, RunOutcome
from token_callbacks.runs import Run, Scope, acting, outcome_of, within
from token_callbacks.totals import Totals
from token_callbacks.usage import part

if TYPE_CHECKING:
    from token_callbacks.prices import PriceBook

_log = logging.getLogger("token_callbacks")
_step_log = logging.getLogger("token_callbacks.lavague")

WORLD_MODEL = "world_model"
ACTION_ENGINE = "action_engine"
_EMBEDDING = "embedding"
_LLM = (WORLD_MODEL, ACTION_ENGINE)

_FREE = Decimal(0)


# --- what a step used


class Spent(msgspec.Struct, frozen=True, kw_only=True):
    """The tokens that went in (of embeddings: all) and came out, and what they cost in US dollars."""

    input_tokens: int = 0
    output_tokens: int = 0
    input_cost: Decimal = _FREE
    output_cost: Decimal = _FREE

    def __add__(self, other: Spent) -> Spent:
        """Add figure by figure."""
        return Spent(
            input_tokens=self.input_tokens + other.input_tokens,
            output_tokens=self.output_tokens + other.output_tokens,
            input_cost=self.input_cost + other.input_cost,
            output_cost=self.output_cost + other.output_cost,
        )


class Prices:
    """What calls cost, for LaVague's columns, which are numbers: 0.0 where no price is known, as LaVague has it."""

    def __init__(self, book: PriceBook | None) -> None:
        self._book = book
        self._unpriced: set[str | None] = set()

    def spent(self, charged: Charged) -> Spent:
        """Tell what calls used and cost; those that were answered from a framework's cache, nothing."""
        usage = charged.usage
        spent = Spent(
            input_tokens=(usage.embedding_tokens or 0) + (usage.prompt_tokens or 0),
            output_tokens=usage.completion_tokens or 0,
        )
        if spent == Spent():
            return spent
        input_cost, output_cost = self._costs(charged)
        return msgspec.structs.replace(spent, input_cost=input_cost, output_cost=output_cost)

    def _costs(self, charged: Charged) -> tuple[Decimal, Decimal]:
        """Split a price; what is neither the prompt's nor the answer's, or not told apart, goes with the prompt."""
        if self._book is None:
            return _FREE, _FREE
        price = self._book.price(charged.charge, charged.usage, calls=charged.calls, reported=charged.reported)
        if price is None or price.currency != "USD":
            self._note_unpriced(charged.charge.model)
            return _FREE, _FREE
        answered = price.completion or _FREE
        return price.amount - answered, answered

    def _note_unpriced(self, model: str | None) -> None:
        if model not in self._unpriced:
            self._unpriced.add(model)
            _log.warning("no price in US dollars is known for %s: LaVague's columns have 0.0 for its cost", model)


def _row(
    unit: str, amounts: Callable[[Spent], tuple[Any, Any]], number: Callable[[Any], Any], spent: Mapping[str, Spent]
) -> dict[str, Any]:
    """Lay out nine of LaVague's eighteen columns, in its order."""
    world_in, world_out = amounts(spent[WORLD_MODEL])
    action_in, action_out = amounts(spent[ACTION_ENGINE])
    embedding, _ = amounts(spent[_EMBEDDING])
    world, action = world_in + world_out, action_in + action_out
    columns = {
        f"world_model_input_{unit}": world_in,
        f"world_model_output_{unit}": world_out,
        f"action_engine_input_{unit}": action_in,
        f"action_engine_output_{unit}": action_out,
        f"total_world_model_{unit}": world,
        f"total_action_engine_{unit}": action,
        f"total_llm_{unit}": world + action,
        f"total_embedding_{unit}": embedding,
        f"total_step_{unit}": world + action + embedding,
    }
    return {name: number(amount) for name, amount in columns.items()}


def _columns(spent: Mapping[str, Spent]) -> tuple[dict[str, int], dict[str, float]]:
    return (
        _row("tokens", lambda it: (it.input_tokens, it.output_tokens), int, spent),
        _row("cost", lambda it: (it.input_cost, it.output_cost), float, spent),
    )


_PARTS = (WORLD_MODEL, ACTION_ENGINE, _EMBEDDING)
_Key = tuple[int | None, str]
"""Whose calls, by number, and which."""


# --- where a call comes from

WORLD_MODEL_METHODS = ("get_instruction",)
ACTION_ENGINE_METHODS = ("dispatch_instruction", "dispatch_instruction_gradio")
ENGINE_METHODS = (
    "execute_instruction",
    "execute_instruction_gradio",
    "get_action",
    "get_action_from_context",
    "get_nodes",
)
"""Of the engines below the action engine, which may be called by themselves."""


class _Place(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """What part of which agent the running code is in."""

    part: str
    owner: int | None
    """The world model or action engine whose code it is, by number."""
    agent: Any = None
    visit: _Visit | None = None


_place: contextvars.ContextVar[_Place | None] = contextvars.ContextVar("token_callbacks_lavague", default=None)

_numbers: weakref.WeakKeyDictionary[Any, int] = weakref.WeakKeyDictionary()
_next_number = itertools.count(1)


def _number_of(owner: object) -> int | None:
    """Number an object, the same every time; ``None`` for what cannot be told apart."""
    try:
        return _numbers.setdefault(owner, next(_next_number)) if owner is not None else None
    except TypeError:  # it has no hash, or no weak references
        return None


@contextmanager
def _in_place(place: _Place) -> Iterator[None]:
    token = _place.set(place)
    try:
        with acting(place.part):
            yield
    finally:
        _place.reset(token)


def _step_of(agent: object) -> str | None:
    """Name the step as the row that LaVague logs for it is numbered."""
    number = part(part(agent, "logger"), "current_step")
    return f"step {number}" if isinstance(number, int) else None


class _Seat(Scope):
    """A counter's place in a call that an agent makes."""

    __slots__ = ("owner", "part")

    def __init__(self, scope: Scope, place: _Place) -> None:
        super().__init__(scope.run, scope.step or _step_of(place.agent), scope.outer)
        self.part = place.part
        self.owner = place.owner


# --- the object that LaVague is given


class TokenCounter(counters.TokenCounter):
    """A ``token_callbacks.TokenCounter`` that any LaVague agent takes as its ``token_counter``, whatever the release.

    Each ``agent.run(...)`` is a run of it, named after the agent's class, with LaVague's steps; ``by_agent`` of its
    summary tells ``world_model`` and ``action_engine`` apart, by where a call comes from. Make it before or after the
    LLMs: it does not matter. Agents that run at once may share one. Nothing that LaVague calls on it raises.

    ``log``: tell each step's counts on stderr, as LaVague's does. ``mm_llm_name``, ``embedding_model_name``, which
    LaVague 0.2.23 to 0.2.26 took, are accepted and not needed. Everything else is ``token_callbacks.TokenCounter``'s.

    Raises ``UnknownOption`` and ``InvalidArgument`` for what it cannot use.
    """

    def __init__(
        self,
        *given: bool | str | None,
        log: bool = False,
        mm_llm_name: str | None = None,
        embedding_model_name: str | None = None,
        **options: Any,
    ) -> None:
        for value in given:  # LaVague's positions changed between its releases; the types tell them apart
            if not isinstance(value, bool | str | None):
                raise InvalidArgument(f"TokenCounter takes LaVague's log=True, or keyword arguments, not {value!r}")
        super().__init__(**options)
        self._serve_lavague(is_logging=log or True in given)

    @classmethod
    def made_of(cls, counter: counters.TokenCounter) -> TokenCounter:
        """Make a plain counter one of these; it stays the same object, with its runs and its files."""
        if not isinstance(counter, cls):
            counter.__class__ = cls
            assert isinstance(counter, cls)  # noqa: S101 - for the type checker
            counter._serve_lavague(is_logging=False)  # noqa: SLF001 - it is one of these by now
        return counter

    def _serve_lavague(self, *, is_logging: bool) -> None:
        self._is_logging = is_logging
        self._tallies: weakref.WeakKeyDictionary[Run, dict[_Key, Totals]] = weakref.WeakKeyDictionary()
        self._prices = Prices(self._book)
        self._views = {
            "llm_token_counter": CountView(self, _LLM),
            "embedding_token_counter": CountView(self, (_EMBEDDING,)),
        }
        self._columns_since = self._ledger.shielded(self._take_columns)
        self._add_up = self._ledger.shielded(_add_up)
        self._spent_since = self._ledger.shielded(self._spent_on)
        self._forget_safely = self._ledger.shielded(self._forget)
        if is_logging:
            _log_to_stderr()

    # LaVague 0.2.24 to 0.2.35.

    def process_token_usage(
        self, world_model: object = None, action_engine: object = None, result_to_update: object = None
    ) -> tuple[dict[str, int], dict[str, float]]:
        """Return LaVague's nine counts and nine costs of what was used since the last time, and start anew.

        Inside ``agent.run`` they are those of this run; outside, of the current run, those of these two and what
        neither of them called. Costs are in US dollars, 0.0 where no price is known. ``result_to_update``: has both
        totals added to it, if it has such attributes.
        """
        counts, costs = self._columns_since(world_model, action_engine) or _columns(dict.fromkeys(_PARTS, Spent()))
        self._add_up(result_to_update, "total_estimated_tokens", counts["total_step_tokens"])
        self._add_up(result_to_update, "total_estimated_cost", costs["total_step_cost"])
        if self._is_logging and any(counts.values()):
            told = "\n".join(f"{name}: {count}" for name, count in counts.items() if count)
            _step_log.info("Token consumption:\n%s", told)
        return counts, costs

    # LaVague 0.2.23, to which a counter is a mapping.

    def get(self, key: str, default: Any = None) -> Any:
        """Return the view of this name: ``llm_token_counter`` or ``embedding_token_counter``."""
        return self._views.get(key, default)

    def __getitem__(self, key: str) -> CountView:
        """Return the view of this name; raises ``UnknownKey`` for any other."""
        try:
            return self._views[key]
        except KeyError:
            raise UnknownKey(f"this counter has {' and '.join(map(repr, self._views))}, not {key!r}") from None

    def __contains__(self, key: object) -> bool:
        """Tell whether there is a view of this name."""
        return key in self._views

    def __iter__(self) -> Iterator[str]:
        """Walk over the names of the views."""
        return iter(self._views)

    def keys(self) -> list[str]:
        """List the names of the views."""
        return list(self._views)

    def __bool__(self) -> bool:
        """Tell that there is a counter: LaVague 0.2.23 takes a false one for none."""
        return True

    # The ledger's and our own side.

    def seat(self) -> Scope:
        """Settle the run, the step and the part of the agent that a call opening now belongs to."""
        scope, place = super().seat(), _place.get()
        return scope if place is None else _Seat(scope, place)

    def take(self, draft: Draft, scope: Scope) -> None:
        """Make a record of a call, and add it to what its part of the agent has spent."""
        super().take(draft, scope)
        name = _EMBEDDING if draft.call.operation is Operation.EMBEDDING else getattr(scope, "part", ACTION_ENGINE)
        tallies = self._tallies.setdefault(scope.run, {})
        key = (getattr(scope, "owner", None), name)
        tallies.setdefault(key, Totals()).fold(draft.entry, None)

    def spent_on(self, parts: Collection[str]) -> Spent:
        """Tell what these parts used in the current run, or by the current agent, since it was last forgotten."""
        return self._spent_since(parts) or Spent()

    def forget(self, parts: Collection[str]) -> None:
        """Start these parts anew from zero."""
        self._forget_safely(parts)

    def _spent_on(self, parts: Collection[str]) -> Spent:
        run, owners = self._place_read()
        self.drain_run(run)
        self._load_prices(run)
        with self._ledger.lock:
            return self._sum(run, parts, owners)

    def _forget(self, parts: Collection[str]) -> None:
        run, owners = self._place_read()
        with self._ledger.lock:
            self._drop(run, parts, owners)

    def _take_columns(self, world_model: object, action_engine: object) -> tuple[dict[str, int], dict[str, float]]:
        if _once.current is not None:
            _once.current.tell_apart(world_model, action_engine)
        run, owners = self._place_read(_owners(world_model, action_engine))
        self.drain_run(run)
        self._load_prices(run)
        with self._ledger.lock:
            spent = {name: self._sum(run, (name,), owners) for name in _PARTS}
            self._drop(run, _PARTS, owners)
        return _columns(spent)

    def _place_read(self, owners: _Owners = None) -> tuple[Run, _Owners]:
        """Tell whose figures are asked for: all of a run that is the agent's own, else those of its two parts."""
        run, place = self._current_scope().run, _place.get()
        if place is None or place.agent is None:
            return run, owners
        if place.visit is not None and place.visit.run is run:
            return run, None
        return run, owners or _owners(part(place.agent, "world_model"), part(place.agent, "action_engine"))

    def _sum(self, run: Run, parts: Collection[str], owners: _Owners) -> Spent:
        tallies = self._tallies.get(run, {})
        charges = (charged for key in _keys(tallies, parts, owners) for charged in tallies[key].charges)
        return sum(map(self._prices.spent, charges), start=Spent())

    def _drop(self, run: Run, parts: Collection[str], owners: _Owners) -> None:
        tallies = self._tallies.get(run, {})
        for key in _keys(tallies, parts, owners):
            del tallies[key]


_Owners = Collection[int | None] | None
"""Whose calls: those of these world models and action engines, and of nobody told; ``None`` is everybody's."""


def _keys(tallies: Mapping[_Key, Totals], parts: Collection[str], owners: _Owners) -> list[_Key]:
    return [key for key in tallies if key[1] in parts and (owners is None or key[0] in owners)]


def _owners(world_model: object, action_engine: object) -> _Owners:
    """Number them, with ``None`` for what neither of them called; everybody's where one is not told."""
    if world_model is None or action_engine is None:
        return None
    return {_number_of(world_model), _number_of(action_engine), None}


class CountView:
    """LaVague 0.2.23's half of a counter: what one kind of calls used since the last ``reset_counts()``.

    It has the figures of LlamaIndex's ``TokenCountingHandler`` that LaVague reads; those of the other kind are 0.
    """

    def __init__(self, counter: TokenCounter, parts: Collection[str]) -> None:
        self.counter = counter
        """The counter that it is a view of."""
        self._parts = parts

    @property
    def prompt_llm_token_count(self) -> int:
        """The prompt tokens of all LLM calls."""
        return self._llm.input_tokens

    @property
    def completion_llm_token_count(self) -> int:
        """The completion tokens of all LLM calls."""
        return self._llm.output_tokens

    @property
    def total_llm_token_count(self) -> int:
        """Prompt plus completion tokens."""
        llm = self._llm
        return llm.input_tokens + llm.output_tokens

    @property
    def total_embedding_token_count(self) -> int:
        """The tokens of all embedding requests."""
        return 0 if self._parts is _LLM else self.counter.spent_on(self._parts).input_tokens

    def reset_counts(self) -> None:
        """Start anew from zero."""
        self.counter.forget(self._parts)

    @property
    def _llm(self) -> Spent:
        return self.counter.spent_on(self._parts) if self._parts is _LLM else Spent()


def init_token_counter(
    mm_llm_name: str | None = None, embedding_model_name: str | None = None, **options: Any
) -> TokenCounter:
    """Make a ``TokenCounter`` by the name that LaVague 0.2.23 have for it."""
    return TokenCounter(mm_llm_name=mm_llm_name, embedding_model_name=embedding_model_name, **options)


def _add_up(result: object, name: str, amount: float) -> None:
    before = getattr(result, name, _ABSENT)
    if before is None or isinstance(before, int | float):
        setattr(result, name, (before or 0) + amount)


_ABSENT = object()


def _log_to_stderr() -> None:
    # As LaVague's counter does, whose log=True it is; a second counter must not tell everything twice.
    if not _step_log.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s - %(levelname)s - %(message)s"))
        _step_log.addHandler(handler)
        _step_log.setLevel(logging.INFO)
        _step_log.propagate = False


# --- LaVague's side


class _Visit:
    """One ``agent.run(...)`` under way."""

    def __init__(self, agent: Any, counter: TokenCounter) -> None:
        self.agent = agent
        self.counter = counter
        self.place = msgspec.structs.replace(_place_of(agent), visit=self)
        self.run = counter.open_run(type(agent).__name__, _tags())
        self._is_in_step = False
        self._steps = 0
        self._has_result = False

    def enter_step(self) -> None:
        self._is_in_step = True
        self._steps += 1

    def leave_step(self, result: object) -> None:
        self._is_in_step = False
        self._has_result = result is not None

    @property
    def was_interrupted(self) -> bool:
        """Whether the agent returned before it was through, which it does when Ctrl-C is pressed and only then."""
        most = part(self.agent, "n_steps")
        is_early = isinstance(most, int) and 0 < self._steps < most and not self._has_result
        return self._is_in_step or is_early


@contextmanager
def _visiting(visit: _Visit) -> Iterator[None]:
    with within(visit.run, None), _in_place(visit.place):
        yield


def _place_of(agent: Any) -> _Place:
    """Place what an agent calls: outside its engines it is taken for its action engine's, as LaVague does."""
    if _once.current is not None:
        _once.current.tell_apart(part(agent, "world_model"), part(agent, "action_engine"))
    place = _place.get()
    if place is not None and place.agent is agent:
        return place
    return _Place(part=ACTION_ENGINE, owner=_number_of(part(agent, "action_engine")), agent=agent)


class _Installed:
    """The wrappers around LaVague's methods, while they are in."""

    def __init__(self, ledger: Ledger) -> None:
        self._begin = ledger.shielded(_begin)
        self._end = ledger.shielded(_end)
        self._place_of = ledger.shielded(_place_of)
        self._serve = ledger.shielded(TokenCounter.made_of)
        self.tell_apart = ledger.shielded(self._tell_apart)
        self._patches = hooks.Patches()
        self._wrapped: set[tuple[type, str]] = set()
        agents = sys.modules["lavague.core.agents"]
        kinds = (agents.WebAgent, agents.WorldModel, agents.ActionEngine)
        self._wrap(kinds[0], ("__init__",), self._around_init)
        self._wrap(kinds[0], ("run",), self._around_run)
        self._wrap(kinds[0], ("_run_demo",), self._around_demo)
        self._wrap(kinds[0], ("run_step", "_run_step_gradio"), self._around_step)
        self._wrap(kinds[1], WORLD_MODEL_METHODS, self._around_world_model)
        self._wrap(kinds[2], ACTION_ENGINE_METHODS, self._around_action_engine)
        self._warn_of_changes()

    def _warn_of_changes(self) -> None:
        wrapped = {name for _, name in self._wrapped}
        missing = [
            name for name in ("run", "run_step", "get_instruction", "dispatch_instruction") if name not in wrapped
        ]
        if missing:
            _log.warning(
                "LaVague %s has no %s where it was known: its calls are counted, but its runs, steps or parts are not"
                " told apart; update token_callbacks",
                _tags().get("lavague"),
                ", ".join(missing),
            )

    def _wrap(self, kind: type, names: Collection[str], around: Callable[[Any], Any]) -> None:
        """Wrap methods in the class, and every base of it, that has them; each once."""
        for home in kind.__mro__:
            for name in names:
                if inspect.isfunction(vars(home).get(name)) and (home, name) not in self._wrapped:
                    self._wrapped.add((home, name))
                    self._patches.wrap(home, name, around)

    def _tell_apart(self, world_model: object, action_engine: object) -> None:
        """Wrap what subclasses have in the place of LaVague's own."""
        self._wrap(type(world_model), WORLD_MODEL_METHODS, self._around_world_model)
        self._wrap(type(action_engine), ACTION_ENGINE_METHODS, self._around_action_engine)
        for name in ("navigation_engine", "python_engine", "navigation_control"):
            self._wrap(type(part(action_engine, name)), ENGINE_METHODS, self._around_engine)

    def _around_init(self, original: Any) -> Any:
        @functools.wraps(original)
        def __init__(agent: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807 - it takes its place
            for given in (*args, *kwargs.values()):
                if type(given) is counters.TokenCounter:
                    self._serve(given)
            original(agent, *args, **kwargs)

        return __init__

    def _around_run(self, original: Any) -> Any:
        @functools.wraps(original)
        def run(agent: Any, *args: Any, **kwargs: Any) -> Any:
            visit = self._begin(agent)
            if visit is None:
                return original(agent, *args, **kwargs)
            try:
                with _visiting(visit):
                    result = original(agent, *args, **kwargs)
            except BaseException as error:
                self._end(visit, error)
                raise
            self._end(visit, None)
            return result

        return run

    def _around_demo(self, original: Any) -> Any:
        @functools.wraps(original)
        def run_demo(agent: Any, *args: Any, **kwargs: Any) -> Any:
            visit = self._begin(agent)
            if visit is None:
                return (yield from original(agent, *args, **kwargs))
            try:
                shown = bound(functools.partial(_visiting, visit), original(agent, *args, **kwargs))
                result = yield from shown
            except BaseException as error:
                self._end(visit, error)
                raise
            self._end(visit, None)
            return result

        return run_demo

    def _around_step(self, original: Any) -> Any:
        @functools.wraps(original)
        def run_step(agent: Any, *args: Any, **kwargs: Any) -> Any:
            place = self._place_of(agent)
            if place is None:
                return original(agent, *args, **kwargs)
            if place.visit is not None:
                place.visit.enter_step()
            result = _bound(place, original, agent)(*args, **kwargs)
            if place.visit is not None:
                place.visit.leave_step(result)
            return result

        return run_step

    def _around_world_model(self, original: Any) -> Any:
        return self._around_part(original, WORLD_MODEL, is_owner=True)

    def _around_action_engine(self, original: Any) -> Any:
        return self._around_part(original, ACTION_ENGINE, is_owner=True)

    def _around_engine(self, original: Any) -> Any:
        return self._around_part(original, ACTION_ENGINE, is_owner=False)

    def _around_part(self, original: Any, name: str, *, is_owner: bool) -> Any:
        @functools.wraps(original)
        def method(home: Any, *args: Any, **kwargs: Any) -> Any:
            place = _place.get() or _Place(part=name, owner=None)
            owner = _number_of(home) if is_owner else place.owner
            return _bound(msgspec.structs.replace(place, part=name, owner=owner), original, home)(*args, **kwargs)

        return method

    def remove(self) -> None:
        self._patches.remove()


def _bound(place: _Place, original: Any, home: Any) -> Any:
    return bound(functools.partial(_in_place, place), functools.partial(original, home))


def _begin(agent: Any) -> _Visit | None:
    """Open a run for an agent that carries a counter of ours, unless it is in one: a subclass called its base's."""
    counter, place = _counter_of(agent), _place.get()
    if counter is None or (place is not None and place.visit is not None and place.visit.agent is agent):
        return None
    return _Visit(agent, counter)


def _end(visit: _Visit, error: BaseException | None) -> None:
    outcome = RunOutcome.CANCELLED if error is None and visit.was_interrupted else outcome_of(error)
    visit.counter.finish_run(visit.run, outcome)


def _counter_of(agent: Any) -> TokenCounter | None:
    counter = part(agent, "token_counter")
    if is_of_class(counter, TokenCounter):
        return counter
    view = part(agent, "mm_llm_token_counter")  # 0.2.23 keeps the views
    return view.counter if is_of_class(view, CountView) else None


@functools.cache
def _tags() -> Mapping[str, str]:
    version = version_of("lavague-core")
    return {} if version is None else {"lavague": version}


_once: hooks.Once[_Installed] = globals().get("_once") or hooks.Once(_Installed)
install, uninstall = _once.install, _once.uninstall
