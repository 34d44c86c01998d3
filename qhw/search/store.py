"""The record of a search: an Optuna study, in an SQLite file or a PostgreSQL database.

Optuna's own tools (optuna-dashboard, ``optuna.load_study``) read it: each variable is a categorical parameter
with its formats as text, the values are (cost, quality), and what else is known of a point is in user
attributes. It is written below Optuna's API, into the tables that Optuna makes: one transaction when an
evaluation begins and one when it ends, whatever the number of variables and facts.
``benchmarks/results/search_store.md`` says what that gains.
"""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from qhw.errors import InputError
from qhw.outside import shown
from qhw.outside.text import parse_json
from qhw.search.databases import IDENTITY, Database, StoreLostError, added
from qhw.search.space import Point

if TYPE_CHECKING:
    from sqlalchemy import Connection, Row

__all__ = ["ABANDONED", "PATIENCE_S", "Store", "StoreLostError", "Stored"]

ABANDONED = "abandoned: its search ended before it did"
"""The reason of trials whose search was stopped or died; their points are still to be evaluated."""

PATIENCE_S = 120.0
"""How long a database that goes away is waited for."""

_TOLD = 5
"""Differences that a message names."""

_ANOTHER = "begin another search with another --name or --store"

State = Literal["running", "done", "failed"]


@dataclass(frozen=True)
class Stored:
    """A trial in the store.

    Args:
        number: counted from 0 within the study.
        cost: the objective, less is better; NaN unless it is done.
        quality: more is better; NaN unless it is done.
        facts: what else was written about it; of a failed one the ``reason``.
    """

    number: int
    point: Point
    state: State
    cost: float
    quality: float
    facts: Mapping[str, Any]

    @property
    def abandoned(self) -> bool:
        """Whether it did not fail by itself: its point is still to be evaluated."""
        return self.state == "failed" and self.facts.get("reason") == ABANDONED


class Store:
    """One study, open for one search; others that try to write it meanwhile are refused.

    Made by :meth:`open`; a context manager; for one thread.
    """

    def __init__(self, database: Database, name: str, variables: Mapping[str, Sequence[str]]) -> None:
        self._database, self._tables, self._study = database, database.tables, database.study
        self.name = name
        self._variables = {key: tuple(options) for key, options in variables.items()}
        self._distributions = [_distribution(options) for options in self._variables.values()]
        self._trials: dict[int, Stored] = {}
        self._ids: dict[int, int] = {}
        self._taken: dict[Point, int] = {}

    @classmethod
    def open(
        cls,
        where: str | Path,
        name: str,
        identity: Mapping[str, Any],
        *,
        resume: bool = False,
        patience_s: float = PATIENCE_S,
    ) -> Store:
        """Open the study of a search, or begin it.

        Args:
            where: an SQLite file, or a URL ``postgresql://user@host/database``.
            name: the study's, of which a store may have many.
            identity: all that decides results, as JSON values; ``space`` is that of :meth:`Space.to_mapping`.
                Kept in the study.
            resume: go on with a study that has trials; one without any is begun either way.
            patience_s: how long a database that goes away later is waited for.

        Raises:
            InputError: the store cannot be used; the study has trials and ``resume`` was not asked for, or it
                is that of a search with another identity; another search is running on it.
            ToolMissingError: Optuna or the database's driver is not installed.
        """
        given = parse_json(json.dumps(identity, allow_nan=False), "The identity of a search")
        variables = {v["name"]: v["options"] for v in given["space"]["variables"]}
        database = Database.of(where, patience_s)
        try:
            database.enter(name, given)
            store = cls(database, name, variables)
            # Nothing was evaluated yet, so there is little to be patient for.
            database.run(
                lambda connection, _: store._take_over(connection, given, resume), min(5, patience_s)
            )
        except BaseException:
            database.close()
            raise
        return store

    def __enter__(self) -> Store:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def where(self) -> str:
        """The store as messages name it, without a password."""
        return self._database.shown

    def trials(self) -> list[Stored]:
        """All trials, by number. They are read once: nobody else writes them while the store is open."""
        return [self._trials[number] for number in sorted(self._trials)]

    def begin(self, point: Point) -> int:
        """Write down that a point is being evaluated.

        Returns:
            The number of its trial.

        Raises:
            ValueError: it is being evaluated, or was: no point counts twice.
            StoreLostError: the store cannot be written.
        """
        if point in self._taken:
            raise ValueError(f"{point} is trial {self._taken[point]} already")
        rows = [
            {"param_name": key, "param_value": float(place), "distribution_json": distribution}
            for key, place, distribution in zip(self._variables, point, self._distributions, strict=True)
        ]
        number, identifier = self._database.run(
            lambda connection, again: self._added(connection, rows, again)
        )
        self._ids[number], self._taken[point] = identifier, number
        self._trials[number] = Stored(number, point, "running", math.nan, math.nan, {})
        return number

    def finish(self, number: int, cost: float, quality: float, facts: Mapping[str, Any]) -> None:
        """Write down what an evaluation found.

        Args:
            facts: JSON values by name.

        Raises:
            ValueError: the trial is not running, or a number is NaN.
            StoreLostError: the store cannot be written.
        """
        cost, quality = float(cost), float(quality)
        if math.isnan(cost) or math.isnan(quality):
            raise ValueError(f"trial {number} is worth ({cost}, {quality}): such an evaluation has failed")
        self._end(replace(self._running(number), state="done", cost=cost, quality=quality, facts=dict(facts)))

    def fail(self, number: int, reason: str) -> None:
        """Write down why an evaluation gave nothing; its point may begin again.

        Raises:
            ValueError: the trial is not running.
            StoreLostError: the store cannot be written.
        """
        self._end(replace(self._running(number), state="failed", facts={"reason": reason}))

    def close(self) -> None:
        """Mark what is still running as abandoned, and let others write the study."""
        running = [self._ids[trial.number] for trial in self._trials.values() if trial.state == "running"]
        self._database.close(lambda connection: self._abandon(connection, running))

    def _take_over(self, connection: Connection, identity: Mapping[str, Any], resume: bool) -> None:
        """Compare identities, read the trials, and mark those of a search that died."""
        from sqlalchemy import func, select

        trials, attributes = self._tables.trials, self._tables.study_attributes
        own = (attributes.c.study_id == self._study) & (attributes.c.key == IDENTITY)
        text = connection.execute(select(attributes.c.value_json).where(own)).scalar()
        if text is None:
            raise InputError(
                f"The study {self.name!r} in {self.where} was not made by a search of qhw", hint=_ANOTHER
            )
        stored = parse_json(text, f"The identity of the study {self.name!r} in {self.where}")
        mine = trials.c.study_id == self._study
        count = connection.execute(select(func.count()).select_from(trials).where(mine)).scalar_one()
        if count and stored != identity:
            raise InputError(
                f"The search {self.name!r} in {self.where} is not this one: {_differences(stored, identity)}",
                hint=f"ask for what it was begun with, or {_ANOTHER}",
            )
        if count and not resume:
            raise InputError(
                f"The search {self.name!r} in {self.where} was begun before: it has {count:,} trials",
                hint=f"go on with it by --resume, or {_ANOTHER}",
            )
        if stored != identity:
            connection.execute(attributes.update().where(own).values(value_json=json.dumps(identity)))
        self._read(connection)
        dead = [trial for trial in self._trials.values() if trial.state == "running"]
        self._abandon(connection, [self._ids[trial.number] for trial in dead])
        for trial in dead:
            self._trials[trial.number] = replace(trial, state="failed", facts={"reason": ABANDONED})
        self._taken = {trial.point: trial.number for trial in self._trials.values() if trial.state == "done"}

    def _read(self, connection: Connection) -> None:
        """Read the trials, each table once."""
        from optuna.trial import TrialState

        states: dict[Any, State] = {
            TrialState.RUNNING: "running",
            TrialState.COMPLETE: "done",
            TrialState.FAIL: "failed",
        }
        tables, study = self._tables, self._study
        places = {key: index for index, key in enumerate(self._variables)}
        chosen: dict[int, dict[int, float]] = defaultdict(dict)
        for identifier, key, value in connection.execute(
            tables.of_trials(study, tables.parameters, "param_name", "param_value")
        ):
            chosen[identifier][places.get(key, -1)] = value
        worth: dict[int, dict[int, float]] = defaultdict(dict)
        for identifier, objective, value, kind in connection.execute(
            tables.of_trials(study, tables.values, "objective", "value", "value_type")
        ):
            worth[identifier][objective] = tables.values_model.stored_repr_to_value(value, kind)
        rows = connection.execute(tables.of_trials(study, tables.facts, "key", "value_json")).all()
        facts = _facts(rows, self.where)
        self._trials, self._ids = {}, {}
        nothing = {0: math.nan, 1: math.nan}
        for row in connection.execute(tables.trials.select().where(tables.trials.c.study_id == study)):
            # Trials that wait, or were pruned, are of Optuna's other tools.
            if row.state in states:
                found = worth[row.trial_id] if row.state == TrialState.COMPLETE else nothing
                point = self._point(row.number, chosen[row.trial_id], found)
                self._ids[row.number] = row.trial_id
                self._trials[row.number] = Stored(
                    row.number, point, states[row.state], found[0], found[1], facts.get(row.trial_id, {})
                )

    def _point(self, number: int, chosen: Mapping[int, float], worth: Mapping[int, float]) -> Point:
        """The point of a trial; raises InputError for one that no search wrote."""
        point = tuple(int(chosen.get(index, -1)) for index in range(len(self._variables)))
        sizes = map(len, self._variables.values())
        in_space = all(0 <= place < size for place, size in zip(point, sizes, strict=True))
        if not in_space or len(chosen) != len(point) or worth.keys() != {0, 1}:
            raise InputError(
                f"Trial {number} of {self.name!r} in {self.where} is none of this search: "
                "another program wrote or changed it",
                hint=_ANOTHER,
            )
        return point

    def _added(
        self, connection: Connection, rows: Sequence[Mapping[str, Any]], again: bool
    ) -> tuple[int, int]:
        """The number and the id of a new running trial; of a try whose answer was lost, those it made."""
        from optuna.trial import TrialState

        tables = self._tables
        if connection.execute(tables.study(self._study)).first() is None:
            raise self._database.stopped(f"the study {self.name!r} was deleted")
        last = connection.execute(tables.last_trial(self._study)).first()
        if again and last is not None and last.state == TrialState.RUNNING and last.number not in self._ids:
            return last.number, last.trial_id
        number = 0 if last is None else last.number + 1
        identifier = added(
            connection,
            tables.trials,
            number=number,
            study_id=self._study,
            state=TrialState.RUNNING,
            datetime_start=_now(),
        )
        connection.execute(tables.parameters.insert(), [{"trial_id": identifier, **row} for row in rows])
        return number, identifier

    def _running(self, number: int) -> Stored:
        if number not in self._trials or self._trials[number].state != "running":
            raise ValueError(f"trial {number} is not running")
        return self._trials[number]

    def _end(self, trial: Stored) -> None:
        """Bring a running trial to its end: its state, its values and its facts at once."""
        from optuna.trial import TrialState

        tables, identifier = self._tables, self._ids[trial.number]
        state = TrialState.COMPLETE if trial.state == "done" else TrialState.FAIL
        facts = [
            {"trial_id": identifier, "key": key, "value_json": json.dumps(value, allow_nan=False)}
            for key, value in trial.facts.items()
        ]
        values = []
        for objective, value in enumerate((trial.cost, trial.quality) if trial.state == "done" else ()):
            stored, kind = tables.values_model.value_to_stored_repr(value)
            values.append(
                {"trial_id": identifier, "objective": objective, "value": stored, "value_type": kind}
            )

        def work(connection: Connection, again: bool) -> None:
            if not self._ended(connection, identifier, state):
                found = connection.execute(
                    tables.trials.select().where(tables.trials.c.trial_id == identifier)
                )
                row = found.first()
                if not again or row is None or row.state != state:
                    raise self._database.stopped(f"another program changed trial {trial.number}")
                return  # by the try whose answer was lost
            for table, rows in ((tables.values, values), (tables.facts, facts)):
                if rows:
                    connection.execute(table.insert(), rows)

        self._database.run(work)
        self._trials[trial.number] = trial
        if trial.state == "failed":
            del self._taken[trial.point]

    def _ended(self, connection: Connection, identifier: int, state: Any) -> bool:
        """Bring a trial to a state, if it is running; whether it was."""
        from optuna.trial import TrialState

        trials = self._tables.trials
        running = (trials.c.trial_id == identifier) & (trials.c.state == TrialState.RUNNING)
        done = trials.update().where(running).values(state=state, datetime_complete=_now())
        return connection.execute(done).rowcount == 1

    def _abandon(self, connection: Connection, identifiers: Sequence[int]) -> None:
        from optuna.trial import TrialState

        for identifier in identifiers:
            if self._ended(connection, identifier, TrialState.FAIL):
                reason = json.dumps(ABANDONED)
                added(connection, self._tables.facts, trial_id=identifier, key="reason", value_json=reason)


def _distribution(options: tuple[str, ...]) -> str:
    """A variable as Optuna writes a categorical parameter."""
    from optuna.distributions import CategoricalDistribution, distribution_to_json

    return distribution_to_json(CategoricalDistribution(options))


def _now() -> datetime:
    """As Optuna's tables hold it: UTC, without a zone."""
    return datetime.now(UTC).replace(tzinfo=None)


def _facts(rows: Sequence[Row[Any]], where: str) -> dict[int, dict[str, Any]]:
    """The user attributes of trials, parsed as one list: one by one, a hundred thousand take seconds."""
    text = "[" + ",".join(row.value_json or "null" for row in rows) + "]"
    values = parse_json(text, f"The store {where}")
    if len(values) != len(rows):
        raise InputError(f"The store {where} holds a user attribute that is no JSON", hint=_ANOTHER)
    facts: dict[int, dict[str, Any]] = defaultdict(dict)
    for row, value in zip(rows, values, strict=True):
        facts[row.trial_id][row.key] = value
    return facts


def _differences(there: Any, here: Mapping[str, Any]) -> str:
    """What two identities differ in, in words."""
    if not isinstance(there, Mapping):
        return "its identity is no mapping"
    told = []
    for key in dict.fromkeys([*there, *here]):
        old, new = there.get(key), here.get(key)
        if old != new:
            is_plain = all(isinstance(value, str | int | float | None) for value in (old, new))
            told.append(f"{key} was {_short(old)} and is {_short(new)} now" if is_plain else f"another {key}")
    more = f", and {len(told) - _TOLD} more" if len(told) > _TOLD else ""
    return "; ".join(told[:_TOLD]) + more


def _short(value: Any) -> str:
    text = shown(value)
    return text if len(text) <= 40 else f"{text[:16]}…"
