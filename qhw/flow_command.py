"""Commands that take the options of every flow, beside their own; flows are looked at when one is parsed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import typer
from typer.core import TyperCommand

_KEY = "qhw.flow_options"


class FlowCommand(TyperCommand):
    """A command with the options that flows have of their own; :func:`flow_options` tells what was given."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Its own parameters and, before the help, those of the flows."""
        own = super().get_params(ctx)
        return [*own[:-1], *_parameters(), *own[-1:]]


def flow_options(context: typer.Context) -> dict[str, str]:
    """The flows' own options that were given, by name."""
    given: dict[str, str] = context.meta.get(_KEY, {})
    return given


def _parameters() -> list[Any]:
    from qhw.flows.base import every_option

    return [
        _parameter(name, " ".join(f"{option.help} ({flow}: {_values(option)})" for flow, option in given))
        for name, given in every_option().items()
    ]


def _values(option: Any) -> str:
    return ", ".join(map(str, option.allowed)) or str(option.kind.__name__)


def _parameter(name: str, help: str) -> Any:
    """An option as Typer makes it of a function's parameter, which is kept in the context."""
    app = typer.Typer(add_completion=False)

    @app.command()
    def command(
        value: str | None = typer.Option(
            None, f"--{name.replace('_', '-')}", help=help, callback=_keeping(name), expose_value=False
        ),
    ) -> None:
        """Never called."""

    parameter = typer.main.get_command(app).params[0]
    parameter.name = name  # of two parameters with one name, each would take the other's value
    return parameter


def _keeping(name: str) -> Callable[[typer.Context, str | None], None]:
    def keep(context: typer.Context, value: str | None) -> None:
        if value is not None:
            context.meta.setdefault(_KEY, {})[name] = value

    return keep
