"""Searches that are killed at moments drawn at random, each gone on with by the next (test_store_kills).

    python store_killer.py WHERE SEED KILLS

Prints, as JSON, what each search was told to be written before it died, and what the store held after it.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from qhw.search.space import Point, Space, Variable
from qhw.search.store import Store

SPACE = Space(tuple(Variable(f"l{k}.weights", "weights", (f"l{k}",), ("a", "b", "c")) for k in range(6)))
IDENTITY = {"space": SPACE.to_mapping()}
IN_FLIGHT = 3


def quality(point: Point) -> float:
    """What a point is worth."""
    return 1 / (1 + sum(place * 7**index for index, place in enumerate(point)))


def searched(where: str, told: int) -> None:
    """A search with some evaluations in flight, each of which takes no time; it tells what is written."""
    store = Store.open(where, "s", IDENTITY, resume=True)
    os.write(told, b"open\n")
    done = {trial.point for trial in store.trials() if trial.state == "done"}
    left = [point for point in map(tuple, SPACE.every().tolist()) if point not in done]
    flying: list[tuple[int, Point]] = []
    for point in left:
        flying.append((store.begin(point), point))
        if len(flying) == IN_FLIGHT:
            number, oldest = flying.pop(0)
            store.finish(number, float(sum(oldest)), quality(oldest), {"figure": quality(oldest)})
            os.write(told, f"{json.dumps(oldest)}\n".encode())


def killed(where: str, count: int, delay_s: float) -> list[Point]:
    """Kill a search some time after it wrote so many trials, and say which it was told to be written."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        searched(where, writing)
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as lines:
        first = [lines.readline() for _ in range(1 + count)]
        assert first[0] == "open\n"
        time.sleep(delay_s)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return [tuple(json.loads(line)) for line in (*first[1:], *lines) if line.endswith("\n")]


def main(where: str, seed: int, kills: int) -> None:
    drawn = random.Random(seed)
    rounds = []
    for _ in range(kills):
        told = killed(where, drawn.randrange(6), drawn.uniform(0, 0.02))
        with Store.open(where, "s", IDENTITY, resume=True) as store:
            rounds.append({"told": told, "trials": [[t.point, t.state, t.quality] for t in store.trials()]})
    print(json.dumps(rounds))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
