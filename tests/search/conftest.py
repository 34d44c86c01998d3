"""One PostgreSQL server for all tests of searches."""

from __future__ import annotations

from collections.abc import Iterator

import postgresql_server
import pytest


@pytest.fixture(scope="session")
def server() -> Iterator[postgresql_server.Server]:
    if reason := postgresql_server.missing():
        pytest.skip(reason)
    with postgresql_server.running() as found:
        yield found
