"""The strategies and evaluators of a search, as tables."""

from __future__ import annotations

from typing import Any

from qhw.report.tables import Table
from qhw.search.evaluators import evaluator_class, list_evaluators
from qhw.search.strategies import list_strategies, strategy_class


def choices_json() -> dict[str, Any]:
    """Names and descriptions as JSON values."""
    strategies = {name: strategy_class(name) for name in list_strategies()}
    return {
        "strategies": {n: {"title": of.title, "source": of.source} for n, of in strategies.items()},
        "evaluators": {n: {"title": evaluator_class(n).title} for n in list_evaluators()},
    }


def choices_tables() -> list[Table]:
    """A row for each strategy, then one for each evaluator, cheapest first."""
    found = choices_json()
    strategies = tuple((name, of["title"], of["source"]) for name, of in found["strategies"].items())
    evaluators = tuple((name, of["title"]) for name, of in found["evaluators"].items())
    return [
        Table("Strategies: how points are proposed", ("--strategy", "", "source"), strategies),
        Table("Evaluators: how points are judged", ("--evaluator", ""), evaluators),
    ]
