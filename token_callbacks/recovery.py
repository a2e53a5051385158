"""Summaries from the lines of a log: of runs whose process died inside them, and of runs that span processes.

A run has a marker in ``open/`` for every process that has calls in it. One whose processes are all dead or done, and
that has no summary or one without all of its processes, is summed up from the lines. Doing so twice changes nothing,
and only one process does it at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from token_callbacks.records import Cost, OpenRun, RunOutcome, RunSummary, read_open_run, read_record, read_summary
from token_callbacks.sinks.json_files import JsonFiles
from token_callbacks.sinks.log_folder import OPEN, RUNS, LogFolder, Marker, is_run_id, lines_of, new_writer
from token_callbacks.summaries import summed_up
from token_callbacks.totals import Totals

LOCK_SECONDS = 2.0
"""How long one waits for another process that is adding up."""

NAME_UNKNOWN = "unknown"
"""The name of a run of which there are lines and nothing else."""

Pricing = Callable[[Totals], Cost | None]
"""Tells what the calls in some totals cost; raises nothing."""


def not_priced(totals: Totals) -> None:
    """Tell no cost."""


class Recovery(msgspec.Struct, kw_only=True):
    """What a recovery did and left."""

    summaries: list[RunSummary] = []
    """Those that were written."""
    alive: int = 0
    """Runs of processes that go on; they write their summaries themselves."""
    left: int = 0
    """Runs that would have taken more reading than was allowed."""
    in_the_way: list[str] = []
    """Runs whose summary has no place, as a folder has its name; they are left as they were."""
    unreadable_lines: int = 0
    """Torn by a death or a full disk, or not ours."""
    is_busy: bool = False
    """Whether another process is at it, and nothing was done."""


class _Parent(msgspec.Struct):
    parent_run_id: str | None = None


_parent = msgspec.json.Decoder(_Parent)


class Folded:
    """What the lines tell of one run."""

    __slots__ = ("ended_at", "losses", "nested", "started_at", "totals")

    def __init__(self) -> None:
        self.totals = Totals()
        self.nested = [0, 0, 0]
        self.losses = (0, 0)
        """Records that were lost, and faults, as parts that are done told of themselves."""
        self.started_at: datetime | None = None
        self.ended_at: datetime | None = None


class Fold:
    """The lines of some files, folded run by run."""

    def __init__(self, folder: LogFolder, markers: Iterable[Marker]) -> None:
        self.runs: dict[str, Folded] = {}
        self.unreadable_lines = 0
        self._folder = folder
        self._markers = {marker.run_id: marker.name for marker in markers}
        self._parents: dict[str, str | None] = {}

    def of(self, run_id: str) -> Folded:
        """Return what was read of a run."""
        return self.runs.get(run_id) or Folded()

    def read(self, files: Iterable[str]) -> None:
        """Fold the lines of files in, past those that cannot be read."""
        for name in files:
            try:
                with self._folder.reading(None, name) as file:
                    for line in lines_of(file):
                        self._add_line(line or b"")
            except FileNotFoundError:  # tidied away meanwhile
                continue

    def _add_line(self, line: bytes) -> None:
        try:
            record = read_record(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            self.unreadable_lines += 1
            return
        run = self._run(record.run_id)
        run.totals.add(record)
        run.started_at = min(run.started_at or record.started_at, record.started_at)
        run.ended_at = max(run.ended_at or record.ended_at, record.ended_at)
        if not record.cached:
            for ancestor in self._ancestors(record.run_id):
                nested, usage = self._run(ancestor).nested, record.usage
                nested[0] += usage.embedding_tokens or 0
                nested[1] += usage.prompt_tokens or 0
                nested[2] += usage.completion_tokens or 0

    def _run(self, run_id: str) -> Folded:
        run = self.runs.get(run_id)
        if run is None:
            run = self.runs[run_id] = Folded()
        return run

    def _ancestors(self, run_id: str) -> Iterator[str]:
        seen = {run_id}
        parent = self._parent_of(run_id)
        while parent is not None and parent not in seen:
            yield parent
            seen.add(parent)
            parent = self._parent_of(parent)

    def _parent_of(self, run_id: str) -> str | None:
        if run_id not in self._parents:
            self._parents[run_id] = self._parent_told(run_id)
        return self._parents[run_id]

    def _parent_told(self, run_id: str) -> str | None:
        if not is_run_id(run_id):
            return None
        marker = self._markers.get(run_id)
        content = None if marker is None else self._folder.read(OPEN, marker)
        content = content or self._folder.read(RUNS, f"{run_id}.json")
        try:
            return None if content is None else _parent.decode(content).parent_run_id
        except msgspec.DecodeError:
            return None


class _Scene:
    """The folder as it is found: who has which runs open, who lives, and which files are whose."""

    def __init__(self, folder: LogFolder) -> None:
        self.folder = folder
        self.markers = folder.markers()
        self.files = folder.calls_files()
        self._living: dict[str, bool] = {}

    def groups(self) -> dict[str, list[Marker]]:
        """Gather the markers of each run."""
        groups: dict[str, list[Marker]] = {}
        for marker in sorted(self.markers):
            groups.setdefault(marker.run_id, []).append(marker)
        return groups

    def is_alive(self, writer: str) -> bool:
        """Tell whether a writer lives."""
        if writer not in self._living:
            marked = {marker.writer for marker in self.markers}
            wanted = (marked if writer in marked else {*self.files, writer}) - self._living.keys()
            living = self.folder.living(wanted)
            self._living |= {each: each in living for each in wanted}
        return self._living[writer]

    def goes_on(self, group: Iterable[Marker]) -> bool:
        """Tell whether a process that lives has the run open."""
        return any(marker.is_open and self.is_alive(marker.writer) for marker in group)

    def facts(self, group: Iterable[Marker]) -> OpenRun | None:
        """Read what is known of a run, best from who opened it."""
        told = []
        for marker in group:
            content = self.folder.read(OPEN, marker.name)
            try:
                told.append(read_open_run(content or b""))
            except (msgspec.DecodeError, RecursionError):
                continue
        return min(told, key=lambda run: run.is_joined, default=None)

    def losses(self, group: Iterable[Marker]) -> tuple[int, int]:
        """Add up what the parts that are done told of their losses."""
        parts = [run for marker in group if not marker.is_open and (run := self.facts([marker])) is not None]
        return sum(run.lost_records for run in parts), sum(run.internal_errors for run in parts)

    def summary(self, run_id: str) -> RunSummary | None:
        """Read the summary of a run."""
        try:
            return read_summary(self.folder.read(RUNS, f"{run_id}.json") or b"")
        except (msgspec.DecodeError, RecursionError):
            return None

    def files_of(self, run_id: str, group: Iterable[Marker], facts: OpenRun | None) -> set[str]:
        """List the files that may hold lines of a run: those of its writers, all since then if one is not known."""
        if facts is not None and not facts.is_joined:
            return {name for marker in group for name in self.files.get(marker.writer, ())}
        day = f"calls-{run_id[:4]}-{run_id[4:6]}-{run_id[6:8]}"
        return {name for names in self.files.values() for name in names if name >= day}

    def size(self, files: Iterable[str]) -> int:
        """Tell how many bytes the files hold."""
        return sum(self.folder.size(name) for name in files)


def recover(
    log_dir: str | Path, *, pricing: Pricing = not_priced, most_bytes: int | None = None, with_unknown: bool = True
) -> Recovery:
    """Sum up the runs that nobody lives to sum up; ``OSError`` where the folder or the disk does not allow it.

    ``most_bytes``: how much to read at most; what would take more is left. ``with_unknown``: also the runs of which
    there are lines and nothing else, which takes reading every file whose writer is dead. ``pricing``: what tells their
    cost; without it, it is ``None``.
    """
    folder = LogFolder(log_dir)
    seen = _Scene(folder)
    if not with_unknown and all(seen.goes_on(group) for group in seen.groups().values()):
        return Recovery(alive=len(seen.groups()))
    with folder.locked(LOCK_SECONDS if with_unknown else 0.0) as is_ours:
        if not is_ours:
            return Recovery(is_busy=True)
        done = Recovery()
        scene = _Scene(folder)
        _tidy(scene)
        _sum_up_marked(scene, done, pricing, most_bytes)
        if with_unknown:
            _sum_up_unknown(_Scene(folder), done, pricing)
        return done


def _tidy(scene: _Scene) -> None:
    for name, writer in scene.folder.drafts():
        if not scene.is_alive(writer):
            scene.folder.unlink(OPEN, name)


def _sum_up_marked(scene: _Scene, done: Recovery, pricing: Pricing, most_bytes: int | None) -> None:
    wanted: dict[str, tuple[list[Marker], OpenRun | None]] = {}
    files: set[str] = set()
    read = 0
    for run_id, group in scene.groups().items():
        if scene.goes_on(group):
            done.alive += 1
            continue
        if len(group) == 1 and scene.summary(run_id) is not None and not _is_joined(scene, group):
            _forget(scene, group)  # it died between its summary and its marker
            continue
        facts = scene.facts(group)
        more = scene.files_of(run_id, group, facts) - files
        size = 0 if most_bytes is None else scene.size(more)
        if most_bytes is not None and read + size > most_bytes:
            done.left += 1
            continue
        files |= more
        read += size
        wanted[run_id] = (group, facts)
    if not wanted:
        return
    fold = _folded(scene, files)
    done.unreadable_lines += fold.unreadable_lines
    for run_id, (group, facts) in wanted.items():
        folded = fold.of(run_id)
        if scene.summary(run_id) is None:  # else they are in it
            folded.losses = scene.losses(group)
        try:
            done.summaries.append(_write(scene, run_id, facts, folded, pricing))
        except IsADirectoryError:
            done.in_the_way.append(run_id)
        else:
            _forget(scene, group)


def _sum_up_unknown(scene: _Scene, done: Recovery, pricing: Pricing) -> None:
    known = {marker.run_id for marker in scene.markers} | {
        name.removesuffix(".json") for name in scene.folder.names(RUNS)
    }
    fold = _folded(
        scene, {name for writer, names in scene.files.items() if not scene.is_alive(writer) for name in names}
    )
    done.unreadable_lines = fold.unreadable_lines
    for run_id, folded in sorted(fold.runs.items()):
        if run_id not in known and is_run_id(run_id) and folded.started_at is not None:
            done.summaries.append(_write(scene, run_id, None, folded, pricing))


def settle(folder: LogFolder, run_id: str, pricing: Pricing, losses: tuple[int, int] = (0, 0)) -> None:
    """Sum up a run that spans processes anew, from its lines, now that another of them is done; under the lock.

    ``losses``: the records that this one lost, and its faults.
    """
    scene = _Scene(folder)
    group = scene.groups().get(run_id, [])
    facts = scene.facts(group)
    folded = _folded(scene, scene.files_of(run_id, group, facts)).of(run_id)
    folded.losses = losses
    _write(scene, run_id, facts, folded, pricing)
    if not scene.goes_on(group):
        _forget(scene, group)


def end_part(files: JsonFiles, run_id: str, pricing: Pricing, losses: tuple[int, int] = (0, 0)) -> None:
    """Mark a run as done in this process, and sum it up anew if its summary came first; under the lock."""
    files.mark_done(run_id, lost_records=losses[0], internal_errors=losses[1])
    if files.folder.exists(RUNS, f"{run_id}.json"):
        settle(files.folder, run_id, pricing, losses)


def told_elsewhere(folder: LogFolder, run_id: str, *, writer: str) -> Folded:
    """Fold what other processes than this writer's wrote of a run up to now."""
    scene = _Scene(folder)
    others = [marker for marker in scene.groups().get(run_id, []) if marker.writer != writer]
    folded = _folded(scene, {name for marker in others for name in scene.files.get(marker.writer, ())}).of(run_id)
    folded.losses = scene.losses(others)
    return folded


def goes_on_elsewhere(folder: LogFolder, run_id: str, *, writer: str) -> bool:
    """Tell whether another process that lives has the run open; where none has, take the others' markers away."""
    scene = _Scene(folder)
    others = [marker for marker in scene.groups().get(run_id, []) if marker.writer != writer]
    if scene.goes_on(others):
        return True
    _forget(scene, others)
    return False


def known(folder: LogFolder, run_id: str) -> OpenRun | RunSummary | None:
    """Read what is known of a run: from who has it open, else from its summary."""
    scene = _Scene(folder)
    return scene.facts(scene.groups().get(run_id, [])) or scene.summary(run_id)


def _is_joined(scene: _Scene, group: Iterable[Marker]) -> bool:
    facts = scene.facts(group)
    return facts is not None and facts.is_joined


def _folded(scene: _Scene, files: Iterable[str]) -> Fold:
    fold = Fold(scene.folder, scene.markers)
    fold.read(sorted(files))
    return fold


def _forget(scene: _Scene, group: Iterable[Marker]) -> None:
    for marker in group:
        scene.folder.unlink(OPEN, marker.name)


def unfinished(log_dir: str | Path, *, now: datetime, pricing: Pricing = not_priced) -> list[RunSummary]:
    """Sum up the runs that have no summary yet, from the lines they have by now, and write nothing.

    Their outcome is ``running`` where a process that lives has the run open, else ``interrupted``. ``OSError`` where
    the folder cannot be read.
    """
    scene = _Scene(LogFolder(log_dir))
    open_ones = {run_id: group for run_id, group in scene.groups().items() if scene.summary(run_id) is None}
    facts = {run_id: scene.facts(group) for run_id, group in open_ones.items()}
    files = {name for run_id, group in open_ones.items() for name in scene.files_of(run_id, group, facts[run_id])}
    fold = _folded(scene, files)
    summaries = []
    for run_id, group in open_ones.items():
        folded = fold.of(run_id)
        summary = _summed_up(scene, run_id, facts[run_id], folded, pricing)
        summaries.append(_so_far(summary, folded, now) if scene.goes_on(group) else summary)
    return summaries


def _so_far(summary: RunSummary, folded: Folded, now: datetime) -> RunSummary:
    return msgspec.structs.replace(
        summary,
        outcome=RunOutcome.RUNNING,
        ended_at=None,
        duration_seconds=max(0.0, (now - summary.started_at).total_seconds()),
        lower_bound=folded.totals.lower_bound,
    )


def _write(scene: _Scene, run_id: str, facts: OpenRun | None, folded: Folded, pricing: Pricing) -> RunSummary:
    summary = _summed_up(scene, run_id, facts, folded, pricing)
    content = msgspec.json.format(msgspec.json.encode(summary), indent=1) + b"\n"
    scene.folder.replace(RUNS, f"{run_id}.json", content, writer=new_writer())
    return summary


def _moment_of(run_id: str) -> datetime:
    try:
        return datetime.fromisoformat(f"{run_id[:15]}+00:00")
    except ValueError:  # an id that is shaped as ours are and names a day that there is not
        return datetime.fromtimestamp(0, UTC)


def _summed_up(scene: _Scene, run_id: str, facts: OpenRun | None, folded: Folded, pricing: Pricing) -> RunSummary:
    before = scene.summary(run_id)
    told = before or facts
    name, tags, parent = ("", {}, None) if told is None else (told.name, told.tags, told.parent_run_id)
    started_at = folded.started_at if told is None else told.started_at
    if started_at is None:
        started_at = _moment_of(run_id)
    lost, errors = folded.losses
    if before is not None:
        lost, errors = lost + before.lost_records, errors + before.internal_errors
    ended_before = None if before is None else before.ended_at
    ended_at = max(moment for moment in (started_at, folded.ended_at, ended_before) if moment is not None)
    return summed_up(
        folded.totals,
        nested=folded.nested,
        run_id=run_id,
        parent_run_id=parent,
        name=name or NAME_UNKNOWN,
        tags=tags,
        outcome=RunOutcome.INTERRUPTED if before is None else before.outcome,
        started_at=started_at,
        ended_at=ended_at,
        until=ended_at,
        internal_errors=errors,
        lost_records=lost,
        has_gaps=lost > 0,
        cost=pricing(folded.totals),
    )
