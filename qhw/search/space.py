"""The formats that a search chooses from: one variable per layer's weights and per layer's result.

A **point** gives each variable the place of one of its options; it stands for a :class:`QuantConfig`.
"""

from __future__ import annotations

import dataclasses
import fnmatch
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np

from qhw.errors import InputError, UnsupportedError, closest
from qhw.formats import Format, parse_format
from qhw.formats.modes import IntArray
from qhw.quant_config import QuantConfig

Point: TypeAlias = tuple[int, ...]
"""The place of the option that each variable takes, in the order of the space's variables."""

Kind = Literal["weights", "activations"]

WEIGHTS = (
    *("binary", "ternary", "fixed<2>", "fixed<3>", "e2m1", "khot<4,1>", "fixed<4>", "e2m2", "fixed<5>"),
    *("e2m3", "e3m2", "khot<6,2>", "fixed<6>", "e3m4", "e4m3", "khot<8,2>", "fixed<8>"),
)
"""Formats of weights, unless a space names others."""

ACTIVATIONS = (
    *("fixed<2>", "fixed<3>", "e2m1", "fixed<4>", "e2m2", "fixed<5>", "e2m3", "e3m2", "fixed<6>"),
    *("e3m4", "e4m3", "fixed<8>"),
)
"""Formats of results, unless a space names others."""

GROUPS = {
    "integers": tuple(f"fixed<{bits}>" for bits in range(2, 9)),
    "minifloats": tuple(
        f"e{exponent}m{bits - 1 - exponent}" for bits in range(3, 9) for exponent in range(1, min(bits, 6))
    ),
    "khots": ("khot<3,1>", "khot<4,1>", "khot<5,2>", "khot<6,2>", "khot<7,2>", "khot<8,2>"),
    "powers": ("pow2<2>", "pow2<3>", "pow2<4>"),
    "few-valued": ("binary", "ternary"),
}
"""Names that stand for several formats, of 2 to 8 bits; minifloats have up to 5 bits of exponent."""


@dataclass(frozen=True)
class Variable:
    """One choice of a format.

    Args:
        name: as tables and files show it: ``conv1.weights``; of a tied group, the first layer's.
        kind: whose format it is: weights, or the layer's result.
        layers: the paths of the layers that get it, several where they are tied.
        options: formats as text, cheapest first as far as that is known.
    """

    name: str
    kind: Kind
    layers: tuple[str, ...]
    options: tuple[str, ...]


@dataclass(frozen=True)
class Site:
    """A layer with weights, or one whose result is brought into a format.

    Args:
        path: the layer's path.
        kind: "weights" or "activations".
        meets: the number of the group of results that meet in additions or concatenations; None: none.
        joins: the same for concatenations alone, which need one format.
        is_output: the network's own result.
    """

    path: str
    kind: Kind
    meets: int | None = None
    joins: int | None = None
    is_output: bool = False


@dataclass(frozen=True)
class Space:
    """The formats that are searched.

    Args:
        variables: in the order of the network.
        base: the formats of everything else.

    Raises:
        InputError: no variable, or one without options.
    """

    variables: tuple[Variable, ...]
    base: QuantConfig = dataclasses.field(default_factory=QuantConfig)

    def __post_init__(self) -> None:
        if not self.variables:
            raise InputError(
                "The search space is empty: every format is pinned",
                hint="leave one layer's format open, or build that network with qhw build",
            )
        for variable in self.variables:
            if not variable.options:
                raise InputError(f"The search space gives {variable.name} no format", allowed="one or more")
            if len(set(variable.options)) != len(variable.options):
                raise InputError(f"The search space names a format of {variable.name} twice")

    @property
    def counts(self) -> IntArray:
        """How many options each variable has."""
        return np.array([len(variable.options) for variable in self.variables])

    @property
    def size(self) -> int:
        """The number of points."""
        return math.prod(len(variable.options) for variable in self.variables)

    def config(self, point: Sequence[int]) -> QuantConfig:
        """The formats that a point stands for."""
        overrides: dict[str, dict[str, Any]] = {key: dict(of) for key, of in self.base.overrides.items()}
        for variable, place in zip(self.variables, self.checked(point), strict=True):
            for path in variable.layers:
                overrides.setdefault(_literal(path), {})[variable.kind] = variable.options[place]
        return dataclasses.replace(self.base, overrides=overrides)

    def checked(self, point: Sequence[int]) -> Point:
        """The point, if it is one of the space; raises InputError otherwise."""
        places = tuple(int(place) for place in point)
        if len(places) != len(self.variables) or any(
            not 0 <= place < len(variable.options)
            for place, variable in zip(places, self.variables, strict=False)
        ):
            raise InputError(f"{places} is no point of the space", allowed=f"{len(self.variables)} places")
        return places

    def formats(self, point: Sequence[int]) -> dict[str, str]:
        """The format of each variable, by its name."""
        return {v.name: v.options[place] for v, place in zip(self.variables, point, strict=True)}

    def point(self, formats: Mapping[str, str]) -> Point:
        """The point with those formats, by the variables' names.

        Raises:
            InputError: a variable is missing or unknown, or lacks the format.
        """
        names = [variable.name for variable in self.variables]
        for name in formats:
            if name not in names:
                raise InputError(f"{name!r} is no variable of the space", hint=closest(name, names))
        places = []
        for variable in self.variables:
            given = formats.get(variable.name, "")
            if given not in variable.options:
                raise InputError(f"{variable.name} is {given!r}", allowed=", ".join(variable.options))
            places.append(variable.options.index(given))
        return tuple(places)

    def uniform(self) -> list[Point]:
        """The points of one format for all weights and one for all results, as far as variables have them."""
        kinds = {
            kind: _every(v for v in self.variables if v.kind == kind) for kind in ("weights", "activations")
        }
        points: dict[Point, None] = {}
        for weights in kinds["weights"] or [""]:
            for activations in kinds["activations"] or [""]:
                wanted = {"weights": weights, "activations": activations}
                points.setdefault(tuple(_nearest(v, wanted[v.kind]) for v in self.variables))
        return list(points)

    def widest(self) -> Point:
        """The point of the most bits everywhere, of equals the last: what others are measured against."""
        return tuple(
            max(range(len(v.options)), key=lambda place: (_width(v.options[place]), place))
            for v in self.variables
        )

    def neighbours(self, point: Sequence[int]) -> Iterator[Point]:
        """Every point that differs in one variable."""
        for index, variable in enumerate(self.variables):
            for place in range(len(variable.options)):
                if place != point[index]:
                    yield (*point[:index], place, *point[index + 1 :])

    def sample(self, rng: np.random.Generator, count: int) -> list[Point]:
        """Points drawn evenly, with repetition."""
        drawn = rng.integers(0, self.counts, size=(count, len(self.variables)))
        return [tuple(map(int, row)) for row in drawn]

    def every(self) -> IntArray:
        """All points, shape (size, variables), the last variable changing fastest."""
        grids = np.indices(tuple(self.counts)).reshape(len(self.variables), -1)
        return np.ascontiguousarray(grids.T)

    def to_mapping(self) -> dict[str, Any]:
        """The space as plain values, which :meth:`from_mapping` takes back."""
        return {
            "variables": [dataclasses.asdict(variable) for variable in self.variables],
            "base": self.base.to_mapping(),
        }

    @classmethod
    def from_mapping(cls, stored: Mapping[str, Any]) -> Space:
        """The space that :meth:`to_mapping` wrote."""
        variables = tuple(
            Variable(v["name"], v["kind"], tuple(v["layers"]), tuple(v["options"]))
            for v in stored["variables"]
        )
        return cls(variables, QuantConfig.from_mapping(stored["base"]))


class Carries(Protocol):
    """Whether a flow carries a format; ``computed``: also as the result of a layer."""

    def __call__(self, format: Format, *, computed: bool = False) -> bool: ...


@dataclass(frozen=True)
class SpaceSettings:
    """What a user says about the space; the ``[space]`` table of a configuration file.

    Args:
        weights, activations: formats to choose from; a name of ``GROUPS`` stands for several.
        tie: groups of layers that share their formats, as patterns of paths.
        residual: whether results that meet in an addition share one format; in a concatenation they do.
        pin: formats that some layers have, by pattern: ``{"conv1": {"weights": "fixed<8>"}}``.
        options: other formats to choose from for some layers, by pattern:
            ``{"block1.*": {"weights": ["e2m1", "fixed<4>"]}}``.
    """

    weights: tuple[str, ...] = WEIGHTS
    activations: tuple[str, ...] = ACTIVATIONS
    tie: tuple[tuple[str, ...], ...] = ()
    residual: bool = True
    pin: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
    options: Mapping[str, Mapping[str, Sequence[str]]] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_mapping(cls, given: Mapping[str, Any]) -> SpaceSettings:
        """The settings in a table of a configuration file.

        Raises:
            InputError: a setting is unknown or not understood.
        """
        known = [item.name for item in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                raise InputError(f"unknown setting {name!r} of the search space", hint=closest(name, known))
        settings = dict(given)
        for kind in ("weights", "activations"):
            if kind in settings:
                settings[kind] = _formats(kind, settings[kind])
        if not isinstance(settings.get("residual", True), bool):
            raise InputError(f"residual is {settings['residual']!r}", allowed="true or false")
        settings["tie"] = tuple(_group(group) for group in settings.get("tie", ()))
        for name in ("pin", "options"):
            table = settings.get(name, {})
            if not isinstance(table, Mapping) or not all(isinstance(of, Mapping) for of in table.values()):
                raise InputError(f"{name} is {table!r}", allowed=f'a table, as in [space.{name}."conv1"]')
            settings[name] = {pattern: _by_kind(name, pattern, of) for pattern, of in table.items()}
        return cls(**settings)

    def carried(self, carries: Carries, flow: str) -> SpaceSettings:
        """The settings with those of the formats to choose from that a flow carries.

        Formats that nobody asked for, since they are chosen from by default, are left out where it does not.

        Args:
            carries: whether the flow carries a format, and, computed, as the result of a layer.
            flow: its name, for messages.

        Raises:
            UnsupportedError: it does not carry a format that was asked for.
        """
        kept = {}
        for kind, default in (("weights", WEIGHTS), ("activations", ACTIVATIONS)):

            def fits(text: str, computed: bool = kind == "activations") -> bool:
                return carries(parse_format(text), computed=computed)

            chosen: tuple[str, ...] = getattr(self, kind)
            kept[kind] = tuple(filter(fits, chosen))
            asked = () if chosen == default and kept[kind] else chosen
            for of in (*self.options.values(), *self.pin.values()):
                named = of.get(kind, ())
                asked += (named,) if isinstance(named, str) else tuple(named)
            if left := [text for text in dict.fromkeys(asked) if not fits(text)]:
                raise UnsupportedError(
                    f"The search space has {', '.join(left)} for {kind}, which the {flow} flow cannot carry",
                    allowed=", ".join(kept[kind]) or None,
                    hint="leave it out, or search for another flow",
                )
        return dataclasses.replace(self, weights=kept["weights"], activations=kept["activations"])

    def space(self, sites: Sequence[Site], base: QuantConfig) -> Space:
        """The space of a network.

        Args:
            sites: the layers in order; the network's own result keeps ``base.outputs``.

        Raises:
            InputError: a pattern matches no layer, or nothing is left to choose.
        """
        self._check_patterns([site.path for site in sites])
        groups: dict[tuple[str, Any], list[Site]] = {}
        pinned: dict[str, dict[str, Any]] = {key: dict(of) for key, of in base.overrides.items()}
        for site in sites:
            fixed = self._pinned(site)
            if fixed is not None:
                pinned.setdefault(_literal(site.path), {})[site.kind] = fixed
            elif not site.is_output:
                groups.setdefault((site.kind, self._group_of(site)), []).append(site)
        variables = tuple(
            Variable(
                f"{members[0].path}.{kind}",
                members[0].kind,
                tuple(member.path for member in members),
                self._options_of(members[0]),
            )
            for (kind, _), members in groups.items()
        )
        return Space(variables, dataclasses.replace(base, overrides=pinned))

    def _pinned(self, site: Site) -> str | None:
        found = [
            of[site.kind] for pattern, of in self.pin.items() if _fits(site, pattern) and site.kind in of
        ]
        options = self._options_of(site)
        return found[-1] if found else options[0] if len(options) == 1 and not site.is_output else None

    def _options_of(self, site: Site) -> tuple[str, ...]:
        chosen: Sequence[str] = self.weights if site.kind == "weights" else self.activations
        for pattern, of in self.options.items():
            if _fits(site, pattern) and site.kind in of:
                chosen = of[site.kind]
        return tuple(chosen)

    def _group_of(self, site: Site) -> Any:
        if site.joins is not None and not self.residual:
            return ("joins", site.joins)
        for index, patterns in enumerate(self.tie):
            if any(_fits(site, pattern) for pattern in patterns):
                return ("tie", index)
        if self.residual and site.meets is not None:
            return ("meets", site.meets)
        return ("alone", site.path)

    def _check_patterns(self, paths: Sequence[str]) -> None:
        patterns = [*self.pin, *self.options, *(pattern for group in self.tie for pattern in group)]
        for pattern in patterns:
            if not any(fnmatch.fnmatchcase(path, pattern) for path in paths):
                raise InputError(
                    f"The search space names {pattern!r}, which matches no layer",
                    allowed=", ".join(dict.fromkeys(paths)),
                    hint=closest(pattern, paths),
                )


def _fits(site: Site, pattern: str) -> bool:
    return fnmatch.fnmatchcase(site.path, pattern)


def _literal(path: str) -> str:
    """A path as a pattern that matches it alone."""
    return "".join(f"[{c}]" if c in "*?[" else c for c in path)


def _formats(name: str, given: Any) -> tuple[str, ...]:
    """Formats as text, groups written out."""
    if (
        isinstance(given, str)
        or not isinstance(given, Sequence)
        or not all(isinstance(f, str) for f in given)
    ):
        raise InputError(
            f"{name} is {given!r}",
            allowed=f'a list of formats, as in ["fixed<4>", "e2m1"], or of groups: {", ".join(GROUPS)}',
        )
    texts = [text for item in given for text in GROUPS.get(item, (item,))]
    for text in texts:
        parse_format(text)
    if not texts:
        raise InputError(f"{name} is empty: the search space has nothing to choose from")
    return tuple(texts)


def _by_kind(name: str, pattern: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """What ``pin`` or ``options`` say of some layers."""
    found: dict[str, Any] = {}
    for kind, value in given.items():
        if kind not in ("weights", "activations"):
            raise InputError(f"{name} of {pattern!r} names {kind!r}", allowed="weights, activations")
        texts = _formats(f"{name} of {pattern!r}, {kind}", [value] if name == "pin" else value)
        found[kind] = value if name == "pin" else texts
    return found


def _group(given: Any) -> tuple[str, ...]:
    if (
        isinstance(given, str)
        or not isinstance(given, Sequence)
        or not all(isinstance(p, str) for p in given)
    ):
        raise InputError(f"tie holds {given!r}", allowed='groups of layers, as in [["conv1", "conv2"]]')
    return tuple(given)


def _width(text: str) -> int:
    return parse_format(text).width


def _every(variables: Iterable[Variable]) -> list[str]:
    """All options of some variables, each once, in order."""
    return list(dict.fromkeys(option for variable in variables for option in variable.options))


def _nearest(variable: Variable, wanted: str) -> int:
    """The place of a format; of one that the variable lacks, that of the next wider one."""
    if wanted in variable.options:
        return variable.options.index(wanted)
    widths = [_width(option) for option in variable.options]
    wider = [place for place, width in enumerate(widths) if not wanted or width >= _width(wanted)]
    return min(wider, key=lambda place: widths[place]) if wider else widths.index(max(widths))
