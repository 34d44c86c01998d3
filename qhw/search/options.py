"""The options of a search: on the command line, in a TOML file, or from Python."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from qhw.errors import InputError, closest
from qhw.outside import shown
from qhw.outside.text import read_toml
from qhw.pipeline.options import BuildOptions, merge
from qhw.ptq.settings import PtqSettings
from qhw.search.pricing import OBJECTIVES
from qhw.search.space import SpaceSettings
from qhw.search.strategies import DEFAULT, strategy_class

DEFAULT_EVALUATOR = "calibrated"
DEFAULT_EVALUATIONS = 200

_LARGEST_FILE = 1 << 18


@dataclass(frozen=True)
class SearchOptions:
    """Everything that a search depends on.

    Args:
        build: the model, its data, the board and the flow, as for a build; its formats are those of what is
            not searched.
        space: the formats to choose from, see :class:`qhw.search.space.SpaceSettings`.
        against: what is minimised beside the loss of accuracy, one of ``qhw.search.pricing.OBJECTIVES``;
            empty: what is usual for the kind of board.
        strategy, evaluator: by name.
        evaluations: how many points may be evaluated.
        methods: methods of :mod:`qhw.ptq` by which points are quantised; None: its default ones, or none
            where points are trained.
        workers: processes that evaluate.
        scheduler: a Dask scheduler to join, ``tcp://…``.
        store: the record: an SQLite file, or a PostgreSQL URL; None: ``search.db`` in the output folder.
        name: the study's name in the store.
        resume: go on with what the store holds.
        points: points of the front that are kept, at most.

    Raises:
        InputError: an option is out of its bounds.
    """

    build: BuildOptions
    space: SpaceSettings = field(default_factory=SpaceSettings)
    against: str = ""
    strategy: str = DEFAULT
    evaluator: str = DEFAULT_EVALUATOR
    evaluations: int = DEFAULT_EVALUATIONS
    methods: str | None = None
    workers: int = 1
    scheduler: str | None = None
    store: str | None = None
    name: str = "search"
    resume: bool = False
    points: int = 24

    def __post_init__(self) -> None:
        known = list(dict.fromkeys(name for names in OBJECTIVES.values() for name in names))
        if self.against and self.against not in known:
            raise InputError(
                f"--against {self.against!r} is nothing that a search minimises",
                allowed=", ".join(known),
                hint=closest(self.against, known),
            )
        PtqSettings(self.methods or "")
        for name in ("evaluations", "workers", "points"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}", allowed="integers from 1")
        if self.build.model.endswith((".onnx", ".qonnx")):
            raise InputError(
                f"{self.build.model} is quantised already: there is no format left to choose",
                hint="give the float network: a built-in model, or file.py:function with --state",
            )

    def check_methods(self) -> None:
        """Raise InputError where methods are named that quantise without training, and points are trained."""
        if self.trains and PtqSettings(self.methods or "").methods:
            raise InputError(
                f"The methods {self.methods} quantise without training, but points are trained "
                f"(strategy {self.strategy}, evaluator {self.evaluator})",
                hint="leave --methods out, or take another evaluator or strategy",
            )

    @property
    def trains(self) -> bool:
        """Whether points are trained, by the strategy or by the evaluator."""
        from qhw.search.evaluators import evaluator_class
        from qhw.search.strategies.training import TrainingStrategy

        return evaluator_class(self.evaluator).trains or issubclass(
            strategy_class(self.strategy), TrainingStrategy
        )

    @property
    def quantised_by(self) -> tuple[str, ...]:
        """The methods by which points are quantised."""
        if self.trains:
            return ()
        return tuple((PtqSettings() if self.methods is None else PtqSettings(self.methods)).methods)

    def identity(self) -> dict[str, Any]:
        """What decides results, as JSON values."""
        return {
            "space": asdict(self.space),
            "against": self.against,
            "evaluator": self.evaluator,
            "methods": list(self.quantised_by),
        }


OWN = tuple(item.name for item in fields(SearchOptions) if item.name != "build")


def merged(config: Path | None, given: Mapping[str, Any]) -> SearchOptions:
    """The options of a TOML file, with those of the command line (not None) in their place.

    Raises:
        InputError: the file cannot be read, or an option in it is unknown or of the wrong type.
    """
    from_file = _read(config) if config is not None else {}
    from_user = {name: value for name, value in given.items() if value is not None}
    own = {name: from_file.pop(name) for name in OWN if name in from_file}
    own |= {name: from_user.pop(name) for name in OWN if name in from_user}
    if isinstance(own.get("space"), Mapping):
        own["space"] = SpaceSettings.from_mapping(own["space"])
    options = merge(None, from_file | from_user)
    return replace(SearchOptions(options), **own)


_KINDS: dict[str, type | tuple[type, ...]] = {
    "space": dict, "against": str, "strategy": str, "evaluator": str, "evaluations": int, "methods": str,
    "workers": int,
    "scheduler": str, "store": str, "name": str, "resume": bool, "points": int,
}  # fmt: skip


def _read(path: Path) -> dict[str, Any]:
    from qhw.pipeline.options import check_option

    config = read_toml(path, "config file", _LARGEST_FILE)
    for name, value in config.items():
        if name not in OWN:
            check_option(path, name, value, also=OWN)
        elif not isinstance(value, _KINDS[name]) or isinstance(value, bool) is not (_KINDS[name] is bool):
            raise InputError(f"{path}: {name} is {shown(value)}, of type {type(value).__name__}")
    return dict(config)
