"""Pools of workers: the same evaluations everywhere, every point once, whatever a worker does."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import digits_search
import numpy as np
import psutil
import pytest

pytest.importorskip("distributed", reason="Dask is not installed: pip install 'qhw[search]'")

from qhw.errors import CheckFailedError, InputError
from qhw.search.evaluators.base import Evaluation, Evaluator
from qhw.search.space import Point, Space
from qhw.search.workers import InProcess, Pool, Setup, pool

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Trouble(Setup):
    """Evaluations of the real network, some of which go wrong.

    Args:
        slow: points whose evaluation takes so long that their worker can be killed, once.
        deadly: points that kill whatever worker gets them.
        nan: points whose loss is NaN.
        odd: points at which something is raised that cannot be pickled.
        folder: where workers tell what they do.
    """

    slow: tuple[Point, ...] = ()
    deadly: tuple[Point, ...] = ()
    nan: tuple[Point, ...] = ()
    odd: tuple[Point, ...] = ()
    folder: str = ""

    def make(self) -> Evaluator:
        with (Path(self.folder) / "made").open("a") as file:
            file.write(f"{os.getpid()}\n")
        evaluator = super().make()
        real = evaluator.quality_of

        def quality_of(point: Point) -> Evaluation:
            with (Path(self.folder) / "begun").open("a") as file:
                file.write(f"{os.getpid()} {self.space.every().tolist().index(list(point))}\n")
            if point in self.deadly:
                os.kill(os.getpid(), signal.SIGKILL)
            if point in self.slow and not (Path(self.folder) / f"slow{point}").exists():
                (Path(self.folder) / f"slow{point}").write_text(str(os.getpid()))
                time.sleep(600)
            if point in self.odd:
                raise UnpicklableError(point)
            found = real(point)
            return replace(found, quality=float("nan")) if point in self.nan else found

        evaluator.quality_of = quality_of  # type: ignore[method-assign]
        return evaluator


class UnpicklableError(Exception):
    """Its arguments are not those that it was made with."""

    def __init__(self, point: Point) -> None:
        super().__init__(f"at {point}")
        self.lock = __import__("threading").Lock()


def trouble(folder: Path, **kinds: tuple[Point, ...]) -> Trouble:
    real = digits_search.setup()
    return Trouble(
        real.model, real.space, real.calibration, real.held, real.evaluator, folder=str(folder), **kinds
    )


def points(space: Space, count: int) -> list[Point]:
    return list(dict.fromkeys(space.sample(np.random.default_rng(0), 2 * count)))[:count]


def collect(workers: Pool, asked: list[Point], watch: Callable[[], None] = lambda: None) -> dict:
    """Keep the pool full until all points are evaluated; each must come once."""
    waiting, flying, found = list(asked), 0, {}
    results = workers.results()
    while waiting or flying:
        while waiting and flying < workers.size:
            workers.submit(waiting.pop(0))
            flying += 1
        watch()
        point, result = next(results)
        assert point not in found, "a point came twice"
        found[point], flying = result, flying - 1
    assert list(results) == []
    return found


@pytest.fixture(scope="module")
def expected() -> dict[Point, Evaluation]:
    """The evaluations by this process."""
    setup = digits_search.setup()
    with pool(setup) as workers:
        return collect(workers, points(setup.space, 24))


def alike(one: object, other: object) -> bool:
    """Whether evaluations are the same but for the time they took."""
    assert isinstance(one, Evaluation), one
    assert isinstance(other, Evaluation), other
    return replace(one, seconds=0.0) == replace(other, seconds=0.0)


def children() -> list[psutil.Process]:
    """Processes below this one, but for that by which multiprocessing tidies up, once for all."""
    found = psutil.Process().children(recursive=True)
    return [p for p in found if p.is_running() and "resource_tracker" not in " ".join(p.cmdline())]


def test_one_worker_is_this_process(expected: dict[Point, Evaluation], tmp_path: Path) -> None:
    asked = list(expected)
    setup = trouble(tmp_path, nan=(asked[2],), odd=(asked[4],))
    evaluator = setup.make()
    with pool(setup, evaluator=evaluator) as workers:
        assert isinstance(workers, InProcess)
        found = collect(workers, asked)
    assert set((tmp_path / "made").read_text().split()) == {str(os.getpid())}
    assert isinstance(found.pop(asked[2]), CheckFailedError)
    assert isinstance(found.pop(asked[4]), UnpicklableError)
    assert all(alike(found[point], expected[point]) for point in found)


@pytest.mark.slow
def test_workers_that_die_lose_nothing_and_count_nothing_twice(
    expected: dict[Point, Evaluation], tmp_path: Path
) -> None:
    """One of two workers is killed in the middle of an evaluation, and one point kills each that gets it."""
    asked = list(expected)
    slow, deadly, nan, odd = asked[3], asked[8], asked[12], asked[16]
    before = children()

    def kill_once() -> None:
        told = tmp_path / f"slow{slow}"
        if told.exists() and (text := told.read_text()) and not (tmp_path / "killed").exists():
            (tmp_path / "killed").write_text(text)
            os.kill(int(text), signal.SIGKILL)

    with pool(trouble(tmp_path, slow=(slow,), deadly=(deadly,), nan=(nan,), odd=(odd,)), 2) as workers:
        assert workers.size >= 2
        found = collect(workers, asked, kill_once)
    assert list(found.keys() ^ expected.keys()) == []
    assert str(found.pop(deadly)) == "3 workers died on it, one after another"
    assert isinstance(found.pop(nan), CheckFailedError)
    assert str(found.pop(odd)) == f"UnpicklableError: at {odd}"
    assert all(alike(found[point], expected[point]) for point in found)
    begun = [tuple(line.split()) for line in (tmp_path / "begun").read_text().splitlines()]
    every = digits_search.space().every().tolist()
    times = [sum(place == str(every.index(list(point))) for _, place in begun) for point in asked]
    assert times[asked.index(deadly)] == 3
    # What was finished, but not fetched yet when its worker died, was done once more, the slow point as well:
    # at each of the four deaths up to two points beside the one that was being evaluated.
    assert times[asked.index(slow)] >= 2
    assert min(times) >= 1
    assert sum(times) <= len(asked) + 3 + 2 * 4
    made = (tmp_path / "made").read_text().split()
    assert 2 <= len(made) == len(set(made)) <= 2 + 4, "each worker makes its evaluator once"
    assert os.getpid() not in map(int, made)
    assert children() == before


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_workers_that_do_not_come_back_end_the_search(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qhw.search.cluster._RETURN_S", 0.0)
    asked = points(digits_search.space(), 2)
    with pool(trouble(tmp_path, deadly=tuple(asked)), 2) as workers:
        for point in asked:
            workers.submit(point)
        with pytest.raises(CheckFailedError, match=r"do not come back\. What was evaluated is kept"):
            list(workers.results())


SEARCH = """
import os, signal, sys, threading
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored, where a shell runs the tests behind it
sys.path[:0] = [{tests!r}, {here!r}]
from pathlib import Path
from test_workers import points, pool, trouble, digits_search

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    asked = points(digits_search.space(), 4)
    with pool(trouble(folder, slow=tuple(asked)), 2) as workers:
        for point in asked:
            workers.submit(point)
        list(workers.results())
"""


@pytest.mark.slow
@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGKILL])
def test_no_process_is_left_behind(ending: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C, which a terminal sends to workers as well, and the death of the search."""
    script = tmp_path / "search.py"
    script.write_text(SEARCH.format(tests=str(ROOT / "tests"), here=str(Path(__file__).parent)))
    process = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stderr=subprocess.PIPE,
        text=True,
    )
    family: list[psutil.Process] = []
    try:
        end = time.monotonic() + 300
        while len(list(tmp_path.glob("slow*"))) < 2 and time.monotonic() < end and process.poll() is None:
            time.sleep(0.05)
        family = psutil.Process(process.pid).children(recursive=True)
        assert len(family) >= 2
        if ending == signal.SIGINT:
            os.killpg(process.pid, ending)
        else:
            process.kill()
        _, told = process.communicate(timeout=120)
        assert process.returncode == (-signal.SIGINT if ending == signal.SIGINT else -signal.SIGKILL)
        assert told.count("Traceback") == (ending == signal.SIGINT), told
        _, alive = psutil.wait_procs(family, timeout=30)
        assert alive == []
    finally:
        for member in [*family, process]:
            if isinstance(member, subprocess.Popen) or member.is_running():
                member.kill()


@pytest.mark.parametrize("environment", [{}, {"MALLOC_TRIM_THRESHOLD_": "65536"}])
def test_memory_that_is_freed_is_kept(environment: dict[str, str]) -> None:
    """Blocks as large as a layer's results cost no page faults again, in a nanny's environment too."""
    code = """
import resource
from qhw.search.workers import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        b"x" * (1 << 26)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

usual = faults()
keep_freed_memory()
faults()
print(usual, faults())
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    usual, kept = map(int, done.stdout.split())
    assert kept < usual / 10


# --- a scheduler of somebody else's -----------------------------------------------------------------


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def started(package: Path, module: str, *arguments: str) -> subprocess.Popen[bytes]:
    """One of Dask's programs, with the qhw that lies in a folder."""
    return subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        env={**os.environ, "PYTHONPATH": str(package), "OMP_NUM_THREADS": "1"},
        cwd=package,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.fixture
def programs() -> Iterator[list[subprocess.Popen[bytes]]]:
    running: list[subprocess.Popen[bytes]] = []
    yield running
    for program in running:
        program.kill()
    for program in running:
        program.wait(30)


def scheduler(package: Path) -> tuple[str, subprocess.Popen[bytes]]:
    address = f"tcp://127.0.0.1:{free_port()}"
    arguments = ("--host", "127.0.0.1", "--port", address.rpartition(":")[2], "--no-dashboard")
    program = started(package, "distributed.cli.dask_scheduler", *arguments)
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with socket.socket() as trial:
            if trial.connect_ex(("127.0.0.1", int(arguments[3]))) == 0:
                break
        time.sleep(0.1)
    return address, program


def worker(package: Path, address: str, *arguments: str) -> subprocess.Popen[bytes]:
    return started(package, "distributed.cli.dask_worker", address, "--no-dashboard", *arguments)


@pytest.mark.slow
def test_a_scheduler_that_is_joined(
    expected: dict[Point, Evaluation], programs: list[subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    """Its workers may have several threads, and may come late; when it ends, so does the search."""
    address, main = scheduler(ROOT)
    programs.append(main)
    asked = list(expected)
    with pool(trouble(tmp_path, slow=(asked[-1],)), scheduler=address) as workers:
        assert workers.size == 2
        for point in asked:
            workers.submit(point)
        programs.append(worker(ROOT, address, "--nthreads", "2", "--no-nanny"))
        results = workers.results()
        found = dict(next(results) for _ in asked[1:])
        assert all(alike(found[point], expected[point]) for point in found)
        main.kill()
        with pytest.raises(
            CheckFailedError, match=r"The connection to the scheduler tcp:.* is lost\. .* kept"
        ):
            next(results)
    assert len((tmp_path / "made").read_text().split()) == 1


@pytest.mark.slow
def test_another_qhw_is_refused(programs: list[subprocess.Popen[bytes]], tmp_path: Path) -> None:
    import shutil

    other = tmp_path / "other"
    shutil.copytree(ROOT / "qhw", other / "qhw", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("hls", "mcu", "boards", "cost_models"):
        (other / name).symlink_to(ROOT / name)
    with (other / "qhw" / "search" / "pareto.py").open("a") as file:
        file.write("\n# changed\n")
    asked = points(digits_search.space(), 2)
    address, main = scheduler(other)
    programs.append(main)
    with pytest.raises(
        InputError, match=r"The scheduler tcp:.* is not like this process: qhw is \w{16} there"
    ):
        pool(digits_search.setup(), scheduler=address)
    address, main = scheduler(ROOT)
    programs.append(main)
    with pool(digits_search.setup(), scheduler=address) as workers:
        workers.submit(asked[0])
        programs.append(worker(other, address, "--nthreads", "1", "--no-nanny"))
        with pytest.raises(
            InputError, match=r"A worker of the scheduler .* is not like this process: qhw is "
        ):
            next(workers.results())


@pytest.mark.parametrize(
    ("address", "message"),
    [
        (None, "does not answer: "),
        ("nonsense", "does not answer: "),
        ("udp://127.0.0.1:8786", "does not answer: unknown address scheme 'udp'"),
    ],
)
def test_a_scheduler_that_does_not_answer(
    address: str | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("qhw.search.cluster.ANSWER_S", 1)
    given = address or f"tcp://127.0.0.1:{free_port()}"
    with pytest.raises(InputError, match=message) as raised:
        pool(digits_search.setup(), scheduler=given)
    assert given in raised.value.message
    assert "dask scheduler" in str(raised.value.hint)


def test_numbers_of_workers_that_are_none() -> None:
    with pytest.raises(InputError, match="--workers is 0"):
        pool(digits_search.setup(), 0)
    with pytest.raises(InputError, match="--workers and --scheduler are both given"):
        pool(digits_search.setup(), 2, "tcp://127.0.0.1:8786")


def test_a_network_that_cannot_be_sent_is_refused() -> None:
    import threading

    setup = digits_search.setup()
    setup.model.lock = threading.Lock()  # type: ignore[assignment]
    try:
        with pytest.raises(InputError, match="cannot be sent to workers: cannot pickle"):
            pool(setup, 2)
    finally:
        del setup.model.lock
