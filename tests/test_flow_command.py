"""Flows' own options on the command line."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from qhw.flow_command import FlowCommand, flow_options


@pytest.mark.parametrize(
    "given",
    [{}, {"sources": "generated"}, {"io_type": "io_stream"}, {"io_type": "auto", "sources": "simulated"}],
    ids=str,
)
def test_each_option_has_its_own_value(given: dict[str, str]) -> None:
    app, seen = typer.Typer(), []

    @app.command(cls=FlowCommand)
    def command(context: typer.Context) -> None:
        seen.append(flow_options(context))

    words = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
    result = CliRunner().invoke(app, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert seen == [given]
