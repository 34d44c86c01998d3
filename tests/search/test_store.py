"""The record of a search: what is written is read, by qhw and by Optuna; one search at a time writes it."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("optuna", reason="Optuna is not installed: pip install 'qhw[search]'")

import optuna
import postgresql_server

from qhw.errors import InputError
from qhw.search.space import Space, Variable
from qhw.search.store import ABANDONED, Store, StoreLostError

SPACE = Space(
    (
        Variable("conv1.weights", "weights", ("conv1",), ("binary", "e2m1", "fixed<4>")),
        Variable("conv1.activations", "activations", ("conv1",), ("fixed<4>", "fixed<8>")),
        Variable("fc.weights", "weights", ("fc",), ("khot<4,1>", "e4m3")),
    )
)
IDENTITY = {"space": SPACE.to_mapping(), "evaluator": "calibrated", "seed": 0, "data": {"name": "digits"}}
POINTS = [tuple(map(int, row)) for row in SPACE.every()]
FACTS = {"figure": 0.1 + 0.2, "low": 0.25, "seconds": 1e-17, "costs": {"lut": 12, "dsp": 0}, "evaluator": "é"}


@pytest.fixture(params=["sqlite", "postgresql"])
def where(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A place for studies: a file with an odd name, or a server."""
    if request.param == "sqlite":
        return str(tmp_path / "a {search}?x=%20#1.db")
    return request.getfixturevalue("server").url


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """The study's name: a server has those of all tests."""
    return f"{request.node.name} \N{SNOWMAN}"


def test_what_is_written_is_read(where: str, name: str) -> None:
    with Store.open(where, name, IDENTITY) as store:
        assert store.trials() == []
        numbers = [store.begin(point) for point in POINTS[:3]]
        store.finish(numbers[1], 1 / 3, -0.75, FACTS)
        store.fail(numbers[0], "the loss is NaN\nin epoch 2")
        store.finish(numbers[2], math.inf, 0.5, {})
        written = store.trials()
    assert numbers == [0, 1, 2]
    with Store.open(where, name, IDENTITY, resume=True) as store:
        assert store.trials() == written
    assert [trial.point for trial in written] == POINTS[:3]
    assert [trial.state for trial in written] == ["failed", "done", "done"]
    assert written[1].cost == 1 / 3
    assert written[1].facts == FACTS
    assert written[2].cost == math.inf
    assert written[0].facts == {"reason": "the loss is NaN\nin epoch 2"}
    assert not written[0].abandoned


def test_optuna_reads_it(server: postgresql_server.Server, name: str, tmp_path: Path) -> None:
    """Optuna's own loader is the oracle, for both databases."""
    for where, url in (
        (tmp_path / "s.db", f"sqlite:///{tmp_path}/s.db"),
        (server.url, server.url.replace("postgresql", "postgresql+psycopg")),
    ):
        with Store.open(where, name, IDENTITY) as store:
            for index, point in enumerate(POINTS):
                number = store.begin(point)
                store.finish(number, 10.0 - index, 0.1 * (-1) ** index, FACTS)
        study = optuna.load_study(study_name=name, storage=url)
        assert [way.name for way in study.directions] == ["MINIMIZE", "MAXIMIZE"]
        assert study.user_attrs["identity"] == json.loads(json.dumps(IDENTITY))
        trials = study.trials
        assert [trial.number for trial in trials] == list(range(len(POINTS)))
        assert [trial.params for trial in trials] == [SPACE.formats(point) for point in POINTS]
        assert trials[3].values == [7.0, -0.1]
        assert trials[3].user_attrs == FACTS
        assert all(trial.state == optuna.trial.TrialState.COMPLETE for trial in trials)
        assert trials[0].distributions["fc.weights"].choices == ("khot<4,1>", "e4m3")
        assert trials[0].datetime_start is not None
        assert abs(time.time() - trials[0].datetime_start.timestamp()) < 3600
        assert trials[0].datetime_complete is not None
        assert {trial.number for trial in study.best_trials} == {len(POINTS) - 1, len(POINTS) - 2}


def test_optunas_samplers_go_on_from_it(tmp_path: Path) -> None:
    """Trials that Optuna's own tools add beside ours have their own numbers."""
    with Store.open(tmp_path / "s.db", "s", IDENTITY) as store:
        for point in POINTS[:4]:
            store.finish(store.begin(point), float(sum(point)), 0.5, {})
        study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path}/s.db")
        study.enqueue_trial(SPACE.formats(POINTS[7]))
        assert store.begin(POINTS[4]) == 5
    with Store.open(tmp_path / "s.db", "s", IDENTITY, resume=True) as store:
        assert [trial.number for trial in store.trials()] == [0, 1, 2, 3, 5]


def test_going_on_has_to_be_asked_for(where: str, name: str) -> None:
    with Store.open(where, name, IDENTITY, resume=True) as store:
        assert store.trials() == []
    with Store.open(where, name, IDENTITY) as store:
        store.begin(POINTS[0])
    with pytest.raises(
        InputError, match=r"was begun before: it has 1 trials\nTo do: go on with it by --resume"
    ):
        Store.open(where, name, IDENTITY)
    with Store.open(where, "another " + name, IDENTITY) as store:
        assert store.trials() == []


def test_another_search_is_refused_by_what_differs(where: str, name: str) -> None:
    other = {**IDENTITY, "seed": 7, "evaluator": "output-error", "data": {"name": "wine"}, "qhw": "a" * 64}
    with Store.open(where, name, IDENTITY):
        pass
    with Store.open(where, name, other) as store:  # nothing was evaluated, so nothing is mixed
        store.begin(POINTS[0])
    for resume in (False, True):
        with pytest.raises(InputError) as raised:
            Store.open(where, name, IDENTITY, resume=resume)
        assert "evaluator was 'output-error' and is 'calibrated' now" in raised.value.message
        assert "seed was 7 and is 0 now; another data; qhw was 'aaaaaaaaaaaaaaa… and is None now" in str(
            raised.value
        )
        assert "--name" in str(raised.value.hint)


def test_one_search_at_a_time(where: str, name: str) -> None:
    code = f"""
import sys
sys.path[:0] = {[str(Path(__file__).parent), str(Path(__file__).parents[1])]!r}
from test_store import IDENTITY, Store
store = Store.open({where!r}, {name!r}, IDENTITY)
print("open", flush=True)
sys.stdin.read()
"""
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(InputError, match=rf"A search is running on .* now: process {other.pid} on "):
            Store.open(where, name, IDENTITY, resume=True)
        with Store.open(where, "another " + name, IDENTITY):
            pass
        other.kill()
    with Store.open(where, name, IDENTITY, resume=True), pytest.raises(InputError, match="is running on"):
        Store.open(where, name, IDENTITY, resume=True)


def test_what_a_stopped_search_left_is_evaluated_again_and_counted_once(where: str, name: str) -> None:
    with Store.open(where, name, IDENTITY) as store:
        store.finish(store.begin(POINTS[0]), 1, 1, {})
        store.begin(POINTS[1])
    with Store.open(where, name, IDENTITY, resume=True) as store:
        done, left = store.trials()
        assert (left.state, left.facts, left.abandoned) == ("failed", {"reason": ABANDONED}, True)
        with pytest.raises(ValueError, match=r"\(0, 0, 0\) is trial 0 already"):
            store.begin(done.point)
        again = store.begin(left.point)
        with pytest.raises(ValueError, match="is trial 2 already"):
            store.begin(left.point)
        with pytest.raises(ValueError, match="trial 1 is not running"):
            store.finish(left.number, 1, 1, {})
        store.fail(again, "NaN")
        assert store.begin(left.point) == 3  # what failed may be tried again


def test_figures_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.db", "s", IDENTITY) as store:
        number = store.begin(POINTS[0])
        for worth in ((math.nan, 1.0), (1.0, math.nan)):
            with pytest.raises(ValueError, match="such an evaluation has failed"):
                store.finish(number, *worth, {})
        with pytest.raises(ValueError, match="not JSON compliant"):
            store.finish(number, 1.0, 1.0, {"low": math.nan})
        store.finish(number, 1.0, 1.0, {})
        assert store.trials()[0].state == "done"


# --- databases that fail ----------------------------------------------------------------------------


def test_a_server_that_restarts_costs_nothing(
    server: postgresql_server.Server, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Store.open(server.url, name, IDENTITY) as store:
        first, second = store.begin(POINTS[0]), store.begin(POINTS[1])
        server.stop()
        threading.Timer(1.0, server.start).start()
        with caplog.at_level(logging.WARNING):
            store.finish(first, 1.0, 0.5, FACTS)
        assert [record.message.split(" (")[0].split("] ")[-1] for record in caplog.records] == [
            f"The store {store.where} does not answer",
            f"The store {store.where} answers again",
        ]
        with pytest.raises(InputError, match="is running on"):  # the lock was taken anew
            Store.open(server.url, name, IDENTITY, resume=True)
        server.stop()
        server.start()
        third = store.begin(POINTS[2])
        store.finish(second, 2.0, 0.5, {})
        store.finish(third, 3.0, 0.5, {})
        written = store.trials()
    with Store.open(server.url, name, IDENTITY, resume=True) as store:
        assert store.trials() == written
        assert [trial.cost for trial in written] == [1.0, 2.0, 3.0]


def test_an_answer_that_was_lost_does_not_count_twice(
    server: postgresql_server.Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The connection breaks behind the commit: what the server has is taken for the answer."""
    with Store.open(server.url, name, IDENTITY) as store:
        database = store._database
        check = database.check

        def lose_once() -> None:
            check()
            if calls.pop():
                raise OSError("the answer was lost")

        monkeypatch.setattr(database, "check", lose_once)
        calls = [False, False, True, False]  # in front of a try and behind it, the last first
        number = store.begin(POINTS[0])
        calls = [False, False, True, False]
        store.finish(number, 1.0, 0.5, FACTS)
        monkeypatch.undo()
    with Store.open(server.url, name, IDENTITY, resume=True) as store:
        (only,) = store.trials()
        assert (only.point, only.state, only.facts) == (POINTS[0], "done", FACTS)


def test_a_server_that_stays_away_ends_the_search(server: postgresql_server.Server, name: str) -> None:
    with Store.open(server.url, name, IDENTITY, patience_s=0.5) as store:
        number = store.begin(POINTS[0])
        server.stop()
        try:
            with pytest.raises(StoreLostError, match=r"is kept\nTo do: .*--resume"):
                store.finish(number, 1.0, 0.5, {})
            with pytest.raises(InputError, match="cannot be used"):
                Store.open(server.url, name, IDENTITY, resume=True)
        finally:
            server.start()
    with Store.open(server.url, name, IDENTITY, resume=True) as store:
        assert [trial.abandoned for trial in store.trials()] == [True]


def test_a_study_that_another_search_took_is_left_to_it(
    server: postgresql_server.Server, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Store.open(server.url, name, IDENTITY) as first:
        first.begin(POINTS[0])
        server.stop()
        server.start()
        with monkeypatch.context() as patch:
            patch.setattr("qhw.search.databases.own_name", lambda: "process 1 on elsewhere")
            second = Store.open(server.url, name, IDENTITY, resume=True)
        with second:
            assert second.trials()[0].abandoned
            with pytest.raises(StoreLostError, match=r"another search took it .*: process 1 on elsewhere"):
                first.begin(POINTS[1])


def test_a_file_that_vanishes_or_is_replaced_ends_the_search(tmp_path: Path) -> None:
    path, aside = tmp_path / "s.db", tmp_path / "aside.db"
    with Store.open(path, "s", IDENTITY, patience_s=0.3) as store:
        number = store.begin(POINTS[0])
        path.rename(aside)
        with pytest.raises(StoreLostError, match="it was moved or removed"):
            store.finish(number, 1.0, 0.5, {})
        path.write_bytes(b"")
        with pytest.raises(StoreLostError, match="another file took its place"):
            store.finish(number, 1.0, 0.5, {})
        path.unlink()
        aside.rename(path)
        store.finish(number, 1.0, 0.5, {})
    with Store.open(path, "s", IDENTITY, resume=True) as store:
        assert store.trials()[0].cost == 1.0


def test_a_study_that_is_deleted_meanwhile_ends_the_search(tmp_path: Path) -> None:
    with Store.open(tmp_path / "s.db", "s", IDENTITY) as store:
        number = store.begin(POINTS[0])
        optuna.delete_study(study_name="s", storage=f"sqlite:///{tmp_path}/s.db")
        with pytest.raises(StoreLostError, match="another program changed trial 0"):
            store.finish(number, 1.0, 0.5, {})
        with pytest.raises(StoreLostError, match="the study 's' was deleted"):
            store.begin(POINTS[1])


# --- stores that are none ---------------------------------------------------------------------------


def _text(path: Path) -> None:
    path.write_text("no database")


def _other_program(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs (title)")


def _with_code(path: Path) -> None:
    with Store.open(path, "s", IDENTITY):
        pass
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TRIGGER t AFTER INSERT ON trials BEGIN DELETE FROM trials; END")


def _cut(path: Path) -> None:
    with Store.open(path, "s", IDENTITY) as store:
        store.begin(POINTS[0])
    path.write_bytes(path.read_bytes()[:5000])


def _folder(path: Path) -> None:
    path.mkdir()


def _of_optuna(path: Path) -> None:
    study = optuna.create_study(study_name="s", storage=f"sqlite:///{path}")
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=1)


def _changed(path: Path) -> None:
    with Store.open(path, "s", IDENTITY) as store:
        store.begin(POINTS[0])
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE trial_params SET param_value = 17")


def _broken_fact(path: Path) -> None:
    with Store.open(path, "s", IDENTITY) as store:
        store.fail(store.begin(POINTS[0]), "x")
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE trial_user_attributes SET value_json = '1, 2'")


def content(path: Path) -> object:
    """The rows of a database; of one that cannot be read, and of other files, the bytes."""
    if path.is_dir():
        return None
    try:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            return list(connection.iterdump())
    except sqlite3.DatabaseError:
        return path.read_bytes()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (_text, "is no SQLite file"),
        (_folder, "it is a folder"),
        (_other_program, "is a database of another program"),
        (_with_code, "is a database of another program"),
        (_cut, "cannot be used: .*malformed|cannot be written: .*malformed"),
        (_of_optuna, "was not made by a search of qhw"),
        (_changed, "Trial 0 of 's' .* is none of this search"),
        (_broken_fact, "holds a user attribute that is no JSON"),
    ],
)
def test_a_file_that_is_no_store_is_refused_and_left_as_it_is(
    make: Any, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "s.db"
    make(path)
    before = content(path)
    with pytest.raises(InputError, match=message):
        Store.open(path, "s", IDENTITY, resume=True, patience_s=0.1)
    assert content(path) == before
    assert not list(tmp_path.glob("*.lock"))


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("nowhere/s.db", "The folder of the store nowhere/s.db does not exist"),
        ("mysql://user@host/searches", "'mysql'://… is of no kind"),
        ("postgresql://u:secret@127.0.0.1:1/d", r"postgresql://u:\*\*\*@127.0.0.1:1/d cannot be used: "),
        ("postgresql://u:secret@host:port/d", "URL of the store is not understood"),
    ],
)
def test_a_place_that_is_none_is_refused_without_its_password(where: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        Store.open(where, "s", IDENTITY)
    assert "secret" not in str(raised.value)


def test_a_name_for_each_search_in_one_file(tmp_path: Path) -> None:
    path = tmp_path / "s.db"
    with Store.open(path, "a", IDENTITY) as a, Store.open(path, "b", IDENTITY) as b:
        for point in POINTS:
            a.finish(a.begin(point), 1.0, 0.5, {})
            assert b.begin(point) == a.trials()[-1].number
    assert [file.name for file in tmp_path.iterdir()] == ["s.db"]


def test_many_trials_are_read_at_once(tmp_path: Path) -> None:
    """Reading takes a few statements, however many trials there are."""
    path = tmp_path / "s.db"
    rng = np.random.default_rng(0)
    counts = []
    for share in (3, 12):
        statements: list[str] = []
        with Store.open(path, "s", IDENTITY, resume=True) as store:
            taken = {trial.point for trial in store.trials()}
            for index in rng.permutation(share):
                if POINTS[index] not in taken:
                    store.finish(store.begin(POINTS[index]), 1.0, 0.5, FACTS)
            connection = store._database._connection
            assert connection is not None
            connection.connection.driver_connection.set_trace_callback(statements.append)
            store._database.run(lambda connection, _: store._read(connection))
        counts.append(len(statements))
    assert counts[0] == counts[1]
