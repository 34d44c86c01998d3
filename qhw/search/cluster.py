"""Points evaluated by the workers of a Dask cluster: processes of this machine, or those of a scheduler.

A worker that dies costs the time of what it was at: Dask gives the point to another one. The setup travels as
a plugin, which Dask gives to every worker once, also to those that join later or replace one that died. It is
pickled: it goes to processes of this user, or to a scheduler that the user named and so trusts.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import gc
import importlib.metadata
import itertools
import logging
import multiprocessing
import os
import pickle
import platform
import queue
import signal
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import cloudpickle
import cryptography  # noqa: F401  what Dask makes the keys of a local cluster with
import dask
from distributed import Client, Future, KilledWorker, LocalCluster, Worker, get_worker
from distributed.diagnostics.plugin import WorkerPlugin
from distributed.security import Security

from qhw.errors import CheckFailedError, InputError
from qhw.outside import shown
from qhw.search.evaluators.base import Evaluator
from qhw.search.space import Point
from qhw.search.workers import Pool, Result, Setup, evaluated, keep_freed_memory

logger = logging.getLogger(__name__)

DEATHS = 3
"""Workers that die on a point until it has failed; those of a local cluster, else its settings say."""

ANSWER_S = 10
"""How long a scheduler may take to answer."""

_START_S = 120
_RETURN_S = 600.0
"""How long a worker of this machine that died may take to come back: on a busy one Dask waits too short."""

_CLOSE_S = 10
_LOOK_S = 2.0
_QUIET_S = 60.0

_DECIDING = ("torch", "brevitas", "numpy", "distributed", "cloudpickle")
"""Packages of which other versions may give other numbers, or write what the others cannot read."""


class LostError(CheckFailedError):
    """A scheduler that went away."""


class OtherVersionError(Exception):
    """A worker has another qhw than the search, or another version of what decides numbers."""


def local(setup: Setup, workers: int) -> ClusterPool:
    """Processes of this machine, whose connections are encrypted by a key made for them alone.

    Raises:
        CheckFailedError: they do not start.
        InputError: the setup cannot be sent to them.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise InputError(
            "A worker runs the script that started it, from its beginning",
            hint="put the call behind: if __name__ == '__main__':",
        )
    packed = _packed(setup)
    settings = {
        "distributed.scheduler.allowed-failures": DEATHS - 1,
        # No point waits at a worker, to be blamed for its death.
        "distributed.scheduler.worker-saturation": 1.0,
    }
    with dask.config.set(settings), _environment_kept():
        try:
            cluster = LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                security=Security.temporary(),
                dashboard_address=None,
                memory_limit=0,
                silence_logs=logging.CRITICAL,
            )
        except (OSError, RuntimeError) as error:
            raise CheckFailedError(f"The workers do not start: {_line(error)}") from None
        try:
            client = Client(cluster, timeout=_START_S, set_as_default=False)
            # Read whenever a worker dies, so set as long as there are workers.
            patience = dask.config.set({"distributed.deploy.lost-worker-timeout": _RETURN_S})
            return ClusterPool(client, packed, "the local cluster", cluster, patience)
        except BaseException:
            cluster.close(timeout=_CLOSE_S)
            raise


def joined(setup: Setup, address: str) -> ClusterPool:
    """The workers of a scheduler that runs.

    Raises:
        InputError: it does not answer; it has other versions of qhw or of a package that decides numbers; the
            setup cannot be sent to it.
    """
    packed, client, reason = _packed(setup), None, ""
    try:
        client = Client(address, timeout=ANSWER_S, set_as_default=False)
    except (OSError, ValueError, TypeError) as error:
        reason = _line(error)
    if client is None:
        # The client that did not start waits for its threads when it is collected. Nothing holds it any more,
        # so that is here: in a thread of another client that is starting, both would wait for ever.
        gc.collect()
        raise InputError(
            f"The scheduler {shown(address)} does not answer: {reason}",
            allowed="tcp://host:port or tls://host:port, where a Dask scheduler runs",
            hint="start one with 'dask scheduler', and workers with 'dask worker tcp://host:port'",
        )
    try:
        _check_versions(client, address)
        return ClusterPool(client, packed, f"the scheduler {address}")
    except BaseException:
        client.close(timeout=_CLOSE_S)
        raise


class ClusterPool(Pool):
    """The workers that a client's scheduler has.

    Args:
        packed: the pickled setup.
        where: the scheduler, in messages.
        cluster: what is closed with the pool.
        settings: what ends with it.
    """

    def __init__(
        self,
        client: Client,
        packed: bytes,
        where: str,
        cluster: LocalCluster | None = None,
        settings: AbstractContextManager[object] | None = None,
    ) -> None:
        self._client, self._where, self._cluster, self._settings = client, where, cluster, settings
        self._name = f"qhw-search-{os.getpid()}-{time.time_ns():x}"
        self._flying: dict[Point, Future[Any]] = {}
        self._done: queue.SimpleQueue[tuple[Point, Result]] = queue.SimpleQueue()
        self._numbers = itertools.count()
        self._workers, self._looked, self._seen = 0, -_LOOK_S, time.monotonic()
        client.register_plugin(Bench(packed, versions(), is_ours=cluster is not None), name=self._name)

    @property
    def size(self) -> int:
        # One more than there are workers, so that none waits while a result is written down.
        return max(1, self._look()) + 1

    def submit(self, point: Point) -> None:
        key = f"{self._name}-{next(self._numbers)}"
        future = self._client.submit(evaluate, self._name, point, key=key, pure=False)
        self._flying[point] = future
        loop = self._client.loop
        assert loop is not None
        loop.add_callback(self._fetch, point, future)

    async def _fetch(self, point: Point, future: Future[Any]) -> None:
        """Bring a result here once it is there: until then it would go down with its worker."""
        try:
            result: Result = pickle.loads(await self._client.gather(future, asynchronous=True))
        except KilledWorker as error:
            deaths = error.allowed_failures + 1
            result = CheckFailedError(f"{deaths} workers died on it, one after another")
        except (asyncio.CancelledError, concurrent.futures.CancelledError):
            result = self._lost()
        except Exception as error:
            result = error
        self._done.put((point, result))

    def results(self) -> Iterator[tuple[Point, Result]]:
        while self._flying:
            try:
                point, result = self._done.get(timeout=_LOOK_S)
            except queue.Empty:
                self._look()
                continue
            if isinstance(result, LostError):
                raise result
            if isinstance(result, OtherVersionError):
                raise InputError(
                    f"A worker of {self._where} is not like this process: {result}",
                    hint="install the same versions there; what was evaluated is kept",
                )
            del self._flying[point]
            yield point, result

    def _look(self) -> int:
        """How many workers there are; it is told, once, when there have been none for a while."""
        now = time.monotonic()
        if now - self._looked < _LOOK_S:
            return self._workers
        if self._client.status != "running":
            raise self._lost()
        try:
            self._workers = len(self._client.nthreads())
        except (OSError, RuntimeError) as error:
            raise self._lost() from error
        self._looked = now
        if not self._workers and self._cluster is not None and not self._cluster.workers:
            raise LostError(
                "The workers of this machine died, and do not come back. What was evaluated is kept",
                hint="go on with --resume, with fewer --workers if memory was short",
            )
        if self._workers:
            self._seen = now
        elif now - self._seen > _QUIET_S:
            logger.warning("%s has no worker: the search waits for one", self._where.capitalize())
            self._seen = float("inf")
        return self._workers

    def _lost(self) -> LostError:
        return LostError(
            f"The connection to {self._where} is lost. What was evaluated is kept",
            hint="once it is there again, go on with --resume: what was in flight is repeated",
        )

    def close(self) -> None:
        futures = list(self._flying.values())
        self._flying.clear()
        with contextlib.suppress(Exception):
            if self._client.status == "running" and self._cluster is None:
                self._client.cancel(futures, force=True)
                self._client.unregister_worker_plugin(self._name)
        self._client.close(timeout=_CLOSE_S)
        if self._cluster is not None:
            self._cluster.close(timeout=_CLOSE_S)
        if self._settings is not None:
            self._settings.__exit__(None, None, None)
            self._settings = None


class Bench(WorkerPlugin):
    """What a worker keeps of a search: the setup, and the evaluator once it is made.

    Args:
        packed: the pickled setup.
        wanted: the versions of the process that searches.
        is_ours: whether the worker is of a local cluster.
    """

    def __init__(self, packed: bytes, wanted: Mapping[str, str], is_ours: bool) -> None:
        self.packed, self.wanted, self.is_ours = packed, dict(wanted), is_ours
        self._evaluator: Evaluator | None = None
        self._other: str | None = None
        self._one: threading.Lock | None = None

    def setup(self, worker: Worker) -> None:
        """Called when a worker gets it."""
        self._one = threading.Lock()
        if self.is_ours and threading.current_thread() is threading.main_thread():
            # A terminal sends Ctrl-C to all its processes; it is the search that ends its workers.
            signal.signal(signal.SIGINT, signal.SIG_IGN)

    def evaluate(self, point: Point) -> Result:
        """A point's evaluation, one at a time: an evaluator is for one thread."""
        assert self._one is not None
        with self._one:
            if self._other is None:
                self._other = differing(self.wanted, versions())
            if self._other:
                return OtherVersionError(self._other)
            try:
                if self._evaluator is None:
                    import torch

                    torch.set_num_threads(1)
                    keep_freed_memory()
                    self._evaluator = cloudpickle.loads(self.packed).make()
            except Exception as error:
                return error
            return evaluated(self._evaluator, point)


def evaluate(name: str, point: Point) -> bytes:
    """On a worker: the pickled result of a point."""
    bench = get_worker().plugins[name]
    assert isinstance(bench, Bench)
    result = bench.evaluate(point)
    try:
        packed: bytes = cloudpickle.dumps(result)
        pickle.loads(packed)
    except Exception:  # an exception whose constructor takes more than a message does not come back whole
        packed = cloudpickle.dumps(RuntimeError(f"{type(result).__name__}: {result}"))
    return packed


def versions() -> dict[str, str]:
    """What two processes must have in common to give the same numbers."""
    from qhw.pipeline.build_stages import source_digest

    found = {"qhw": source_digest()[:16], "Python": ".".join(platform.python_version_tuple()[:2])}
    return found | {name: importlib.metadata.version(name) for name in _DECIDING}


def differing(wanted: Mapping[str, str], found: Mapping[str, str]) -> str:
    """What differs in versions, in words; empty where nothing does."""
    return ", ".join(
        f"{name} is {found.get(name)} there and {wanted.get(name)} here"
        for name in dict.fromkeys([*wanted, *found])
        if wanted.get(name) != found.get(name)
    )


def _check_versions(client: Client, address: str) -> None:
    """Refuse a scheduler or workers with other versions; those that join later are asked at their points."""
    try:
        found = {"scheduler": client.run_on_scheduler(versions), **client.run(versions)}
    except Exception as error:
        raise InputError(
            f"The scheduler {address} or a worker of it cannot run qhw: {_line(error)}",
            hint="install qhw with the same versions there",
        ) from None
    for who, theirs in found.items():
        if other := differing(versions(), theirs):
            name = f"The scheduler {address}" if who == "scheduler" else f"The worker {who} of {address}"
            raise InputError(
                f"{name} is not like this process: {other}",
                hint="install the same versions there",
            )


def _packed(setup: Setup) -> bytes:
    """A pickled setup; classes from files of the user's own travel with it, which workers cannot import."""
    own = [module for name in _modules_of(setup) if (module := sys.modules.get(name)) and _is_own(module)]
    try:
        for module in own:
            cloudpickle.register_pickle_by_value(module)
        packed: bytes = cloudpickle.dumps(setup)
    except Exception as error:
        raise InputError(
            f"The network cannot be sent to workers: {_line(error)}",
            hint="search in this process: --workers 1",
        ) from None
    finally:
        for module in own:
            cloudpickle.unregister_pickle_by_value(module)
    return packed


def _modules_of(setup: Setup) -> set[str]:
    """The Python modules that the network's layers, the metric and the setup itself are from."""
    layers = {type(layer).__module__ for layer in setup.model.modules()}
    return layers | {type(setup).__module__, str(setup.held.judge.metric.score.__module__)}


def _is_own(module: Any) -> bool:
    """Whether a module is a file of the user's, neither installed nor of qhw."""
    file = getattr(module, "__file__", None)
    if file is None or module.__name__ == "__main__" or module.__name__.split(".")[0] == "qhw":
        return False
    installed = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")}
    return not any(
        Path(file).resolve().is_relative_to(Path(folder).resolve()) for folder in installed if folder
    )


@contextlib.contextmanager
def _environment_kept() -> Iterator[None]:
    """Put the environment back behind Dask, which sets variables for its workers here."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)


def _line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__
