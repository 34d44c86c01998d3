"""QuantMCU: patch-based inference with feature maps of 8, 4 or 2 bits, chosen by their values, untrained.

Tao et al.: Value-Driven Mixed-Precision Quantization for Patch-Based Inference on Microcontrollers,
arXiv 2401.13714. Patches whose input holds outliers keep 8 bits along their branch
(:mod:`qhw.patch.outliers`); for the others the bits of each feature map are searched
(:mod:`qhw.patch.search`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import numpy as np

from qhw.errors import CheckFailedError, InputError, UnsupportedError
from qhw.formats.modes import IntArray
from qhw.graph import ir
from qhw.graph.ir import ExactGraph
from qhw.patch.correction import corrections, with_added
from qhw.patch.observed import OutputErrors
from qhw.patch.outliers import outlier_shares
from qhw.patch.plan import (
    Footprint,
    PatchPlan,
    front_of,
    layer_by_layer,
    live_sets,
    node_macs,
    patches_of,
    peak_bytes,
    plans,
)
from qhw.patch.regions import Region, regions_of
from qhw.patch.search import Choice, Piece, best_bits, bit_operations, entropy
from qhw.patch.unrolled import with_patches
from qhw.patch.widths import Width, best_width, carried, code_map, feature_maps, narrowed

Scale = Literal["own", "largest", "sum"]
"""What a number of a feature map is divided by: its own at 8 bits, the largest of any, or the sum of all."""

Measure = Literal["entropy", "error", "outputs"]
"""What Ω is the change of: the entropy of the codes, the power of the numbers (their squared error), or the
network's outputs."""

BATCH = 32
"""Samples that are run at a time, so that their feature maps take little memory."""


@dataclass(frozen=True)
class Settings:
    """What the paper leaves open, and its λ. The defaults of λ and ``measure`` are those that did best in
    ``benchmarks/quantmcu.py``; ``measure="entropy"`` is the paper's.

    Args:
        bit_widths: what feature maps may have. The paper's are 8, 4 and 2. With one width alone, all have it.
        omega_weight: λ, from 0 (bit operations alone) to 1 (what is lost alone).
        sigmas: standard deviations from the mean beyond which a value is an outlier; None: there are none, as
            without VDPC. 3 is the usual rule for a Gaussian.
        outlier_share: the share of samples with an outlier from which on a patch keeps 8 bits. Patches are
            classified once, when the firmware is made, while whether a patch holds an outlier depends on the
            image: at 0.5 a patch belongs to the class that it is usually in.
        measure: what Ω is the change of. "entropy" is the paper's. "error", ours, is the squared error of the
            narrower numbers against their power: it grows fourfold with each bit that is taken away, where
            entropy falls by about one bit for each, just as bit operations do, so that hardly any λ prefers
            4 bits to both 8 and 2. "outputs", ours too, is the squared error of the network's outputs when
            this feature map alone is narrower, against their variance (:mod:`qhw.patch.observed`): maps
            differ in how far their errors reach. It runs the network once per feature map and width.
        omega: what the change is divided by. "own": the feature map's entropy (power) at 8 bits, so Ω is the
            share of it that is lost, from 0 to 1 for every map.
        phi: what the drop in bit operations is divided by. "largest": the most bit operations that one
            feature map has at 8 bits, so Φ is on Ω's scale and still tells large layers from small ones
            ("own" does not: there every map drops by the same share).
        per_patch: whether each patch without outliers gets widths of its own; else they share them, so that
            one piece of code serves them all.
        correct_bias: whether the constants that layers add per channel take back what narrower feature maps
            do to the mean of their sums (:mod:`qhw.patch.correction`). This is ours; it trains nothing.
            Patches with outliers keep theirs.
        behind: whether feature maps behind the cut are searched too. They are the ends of all branches; with
            False they keep 8 bits, and only what runs by patches gains.

    The histogram of the entropy has one bin for each code: nothing is open there.

    Raises:
        InputError: a number is out of range.
    """

    bit_widths: tuple[int, ...] = (8, 4, 2)
    omega_weight: float = 0.95
    sigmas: float | None = 3.0
    outlier_share: float = 0.5
    measure: Measure = "outputs"
    omega: Scale = "own"
    phi: Scale = "largest"
    per_patch: bool = False
    correct_bias: bool = True
    behind: bool = True

    def __post_init__(self) -> None:
        widths = self.bit_widths
        if not widths or any(not isinstance(b, int) or not 1 <= b <= 8 for b in widths):
            raise InputError(f"bit_widths is {widths!r}", allowed="one or more integers from 1 to 8")
        for name in ("omega_weight", "outlier_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"{name} is {getattr(self, name)!r}", allowed="a number from 0 to 1")
        if self.sigmas is not None and not self.sigmas > 0:
            raise InputError(f"sigmas is {self.sigmas!r}", allowed="a positive number, or None")
        for name, kind in (("measure", Measure), ("omega", Scale), ("phi", Scale)):
            if getattr(self, name) not in get_args(kind):
                raise InputError(f"{name} is {getattr(self, name)!r}", allowed=", ".join(get_args(kind)))
        if self.measure == "error" and self.omega != "own":
            raise InputError(
                f'omega is "{self.omega}", but the powers of feature maps have different units',
                allowed='"own", where measure is "error"',
            )
        if self.per_patch and self.correct_bias:
            raise InputError(
                "per_patch and correct_bias are both set, but patches that share constants share widths too",
                hint="set correct_bias=False",
            )


def uniform(bits: int) -> Settings:
    """The settings by which every feature map has so many bits: a baseline."""
    return Settings(bit_widths=(bits,), sigmas=None, measure="error")  # of one width, nothing is chosen


@dataclass(frozen=True)
class FeatureMapChoice:
    """What was chosen for one feature map, and why.

    Args:
        tensor: its name in the graph without patches.
        layer: the path of the layer whose result it is.
        patches: the patches that have it so; () for a feature map that is there as a whole.
        bits, exponent: of its codes.
        omega: Ω, what is lost.
        phi: Φ, the bit operations that are saved.
        score: S.
    """

    tensor: str
    layer: str
    patches: tuple[int, ...]
    bits: int
    exponent: int
    omega: float
    phi: float
    score: float


@dataclass(frozen=True)
class Record:
    """The choices of a search, and what they cost.

    Args:
        plan: the patches; its peak and MACs are those of the graph that was given.
        copies: whether the graph has a copy of the layers for each patch: where patches differ in widths.
        outlier_shares: of each patch, the share of samples with an outlier; () where none were looked for.
        outlier_patches: those that keep 8 bits.
        choices: every feature map that was searched.
        bit_operations: multiply-accumulates × weight bits × activation bits, recomputation included.
        wide_bit_operations: those of the same patches with the widths that were given.
        peak_bytes: SRAM, weights left out, by the footprint that was given.
        wide_peak_bytes: with the widths that were given.
    """

    settings: Settings
    plan: PatchPlan
    copies: bool
    outlier_shares: tuple[float, ...]
    outlier_patches: tuple[int, ...]
    choices: tuple[FeatureMapChoice, ...]
    bit_operations: int
    wide_bit_operations: int
    peak_bytes: int
    wide_peak_bytes: int

    def to_json(self) -> dict[str, Any]:
        """The same as JSON values."""
        return asdict(self)

    def overrides(self) -> dict[str, dict[str, str]]:
        """The widths as ``overrides`` of a :class:`qhw.quant_config.QuantConfig`, for training with them.

        Exponents are left to training.

        Raises:
            UnsupportedError: patches differ in their widths, while a layer has one.
        """
        if self.copies:
            raise UnsupportedError(
                "patches keep widths of their own, and a layer that is trained has one",
                hint="choose the widths without outliers (sigmas=None) and per_patch, or do not train",
            )
        return {choice.layer: {"activations": f"fixed<{choice.bits}>"} for choice in self.choices}


@dataclass(frozen=True)
class QuantMcu:
    """An exact graph of mixed widths, and how they were chosen.

    Args:
        graph: it runs by ``plan``.
        record: the choices.
    """

    graph: ExactGraph
    record: Record

    @property
    def plan(self) -> PatchPlan:
        """How the graph runs: by patches, or layer by layer where it spells them out (``copies``)."""
        return layer_by_layer(self.graph) if self.record.copies else self.record.plan

    @property
    def patches(self) -> str:
        """The plan as the ``mcu`` flow's option ``patches`` names it."""
        plan = self.plan
        return f"{plan.cut}:{'x'.join(map(str, plan.grid))}" if plan.cut else "none"


def quantmcu(
    graph: ExactGraph,
    samples: Mapping[str, IntArray],
    *,
    memory: int | None = None,
    plan: PatchPlan | None = None,
    among: Sequence[PatchPlan] | None = None,
    settings: Settings | None = None,
    footprint: Footprint | None = None,
    observed: OutputErrors | None = None,
) -> QuantMcu:
    """A network's patches with feature maps of mixed widths.

    Args:
        graph: feature maps of up to 8 bits, without patches yet.
        samples: mantissas (N, *shape) of its inputs, for their statistics; not the test split.
        memory: SRAM in bytes that may be taken; None for no limit.
        plan: the patches. None: those with the fewest multiply-accumulates within the memory: first at the
            given widths; then at those that the search chose for it, which often fit in fewer patches, that
            compute less twice; for these the search is made again.
        among: the plans to choose from where none is given, their peaks counted by the footprint; None:
            every one of :func:`qhw.patch.plans`.
        footprint: what counts as taken; left out, feature maps alone. The search itself adds up feature maps:
            what else a footprint counts is asked of each graph that it finds, and kept free in the next try,
            until a graph is within the memory.
        observed: of this graph and these samples, for ``measure="outputs"``: what earlier calls, with another
            λ, have measured; left out, it is measured here.

    Returns:
        A graph like any other: every executor gives its codes, and a flow can build it. Where all patches
        have the same widths it spells out no patches, and runs by the plan; else it has a copy of the layers
        for each patch.

    Raises:
        InputError: neither a memory nor a plan is given, or there are no samples.
        CheckFailedError: not even the narrowest feature maps fit the memory.
    """
    settings = settings or Settings()
    observed = observed or OutputErrors(graph, samples)
    if not len(next(iter(samples.values()))):
        raise InputError("no samples are given", allowed="one or more")
    if plan is not None:
        return _within(_Search.of(graph, samples, plan, settings, observed), samples, memory, footprint)
    if memory is None:
        raise InputError("neither a memory nor a patch plan is given", hint="give one of the two")
    every = list(plans(graph, footprint=footprint) if among is None else among)
    wide = min(every, key=lambda plan: _order(plan, plan.peak_bytes, memory))
    search = _Search.of(graph, samples, wide, settings, observed)
    search.choose(None)
    if wide.peak_bytes <= memory:
        every = [wide, *(plan for plan in every if plan.macs < wide.macs)]
    # Beside feature maps, other plans are taken to need what they need at the widths that were given.
    peaks = [
        plan.peak_bytes - peak_bytes(graph, sets) + peak_bytes(graph, sets, search.guess)
        for plan in every
        for sets in (live_sets(graph, plan.cut, plan.grid),)
    ]
    narrow, _ = min(zip(every, peaks, strict=True), key=lambda found: _order(found[0], found[1], memory))
    if narrow != wide:
        search = _Search.of(graph, samples, narrow, settings, observed)
    return _within(search, samples, memory, footprint)


def _within(
    search: _Search, samples: Mapping[str, IntArray], memory: int | None, footprint: Footprint | None
) -> QuantMcu:
    """The best widths whose graph keeps to a memory, as the footprint counts it."""
    search.choose(None)
    found = search.result(samples, footprint)
    while memory is not None and found.record.peak_bytes > memory:
        # The same again, less what it takes too much; every try gives the feature maps less.
        try:
            search.choose(search.peak_bytes - (found.record.peak_bytes - memory))
        except CheckFailedError:
            return _fewest(search, samples, memory, footprint)
        found = search.result(samples, footprint)
    return found


def _fewest(
    search: _Search, samples: Mapping[str, IntArray], memory: int, footprint: Footprint | None
) -> QuantMcu:
    """The graph whose feature maps all have the fewest bits.

    Raises:
        CheckFailedError: not even that keeps to the memory.
    """
    search.bits = {key: min(choice.bits) for key, choice in search.choices.items()}
    found = search.result(samples, footprint)
    if (needs := found.record.peak_bytes) > memory:
        raise CheckFailedError(
            f"with every feature map at its fewest bits, {needs:,} bytes of SRAM are needed, "
            f"{needs - memory:,} more than the {memory:,} that may be used",
            hint="cut the network elsewhere, take more patches, or allow fewer bits",
        )
    return found


def _order(plan: PatchPlan, peak: int, memory: int) -> tuple[bool, int, int]:
    """Plans within the memory come first, by multiply-accumulates; the others by what they need."""
    return (False, plan.macs, peak) if peak <= memory else (True, peak, plan.macs)


RESULT = "_result"
"""What a layer's path ends with where it is that of its result's quantizer."""

CORRECTED_ON = 32
"""Samples that means are taken over: of a feature map's pixels, these are many thousands per channel."""

Key = tuple[int | None, str]
"""A feature map of a branch: the branch's first patch (None for what is there as a whole), and the tensor."""


class _Search:
    """The feature maps of one plan: their statistics, scores and choices."""

    def __init__(
        self,
        graph: ExactGraph,
        plan: PatchPlan,
        settings: Settings,
        outliers: frozenset[int],
        shares: tuple[float, ...],
        observed: OutputErrors,
    ) -> None:
        self.graph, self.plan, self.settings = graph, plan, settings
        self.outliers, self.shares, self.observed = outliers, shares, observed
        self.bits: dict[Key, int] = {}
        """What was chosen."""
        self.front, self.rest = front_of(graph, plan)
        self.codes = carried(graph)
        self.regions = [
            regions_of(graph, self.front, plan.cut, patch)
            for patch in (patches_of(graph, plan.cut, plan.grid) if plan.cut else ())
        ]
        self.joined = self.codes[plan.cut] if plan.cut else ""
        """The feature map whose codes the cut holds: its patches are put together, so they have one width."""
        self.plain = [patch for patch in range(len(self.regions)) if patch not in outliers]
        in_front = {node.output for node in self.front} - {self.joined}
        maps = feature_maps(graph)
        self.in_patches = [name for name in maps if name in in_front]
        self.whole = [name for name in maps if name not in in_front and settings.behind]
        self.counts: dict[Key, IntArray] = {}
        for name in self.whole:
            self.counts[None, name] = self._nothing(name)
        for patch in self.plain:
            for name in self.in_patches:
                if name in self.regions[patch]:
                    self.counts.setdefault((self._branch(patch), name), self._nothing(name))

    @classmethod
    def of(
        cls,
        graph: ExactGraph,
        samples: Mapping[str, IntArray],
        plan: PatchPlan,
        settings: Settings,
        observed: OutputErrors,
    ) -> _Search:
        """The feature maps of a plan, counted on samples."""
        shares: list[float] = []
        if plan.cut and settings.sigmas is not None:
            shares = outlier_shares(graph, plan, samples, settings.sigmas)
        kept = frozenset(patch for patch, share in enumerate(shares) if share >= settings.outlier_share)
        search = cls(graph, plan, settings, kept, tuple(shares), observed)
        search.count(samples)
        return search

    def choose(self, memory: int | None) -> None:
        """Choose the best widths of which no live set exceeds a memory (bytes; None: no limit)."""
        self.bits = best_bits(self.choices, self.pieces, memory)

    def _nothing(self, name: str) -> IntArray:
        return np.zeros(1 << self.graph.tensors[name].format.width, dtype=np.int64)

    def _branch(self, patch: int) -> int:
        return patch if self.settings.per_patch else self.plain[0]

    def _patches(self, key: Key) -> tuple[int, ...]:
        """The patches of a feature map's branch that compute it."""
        branch, name = key
        if branch is None:
            return ()
        members = [branch] if self.settings.per_patch else self.plain
        return tuple(patch for patch in members if name in self.regions[patch])

    def key(self, tensor: str, patch: int | None) -> Key | None:
        """Whose width a tensor has in a patch; None where it keeps the one that it was given."""
        name = self.codes[tensor]
        if patch is None or name == self.joined:
            found: Key = (None, name)
        elif patch in self.outliers:
            return None
        else:
            found = (self._branch(patch), name)
        return found if found in self.counts else None

    def count(self, samples: Mapping[str, IntArray]) -> None:
        """How often every code of every feature map occurs."""
        from qhw.sim.fast import FastExecutor

        names = {name for _, name in self.counts}
        run = FastExecutor(self.graph, batch=BATCH)
        total = len(next(iter(samples.values())))
        for start in range(0, total if names else 0, BATCH):
            found = run({name: x[start : start + BATCH] for name, x in samples.items()}, keep=names)
            for key, counts in self.counts.items():
                values = found[key[1]] - self.graph.tensors[key[1]].format.mantissa_low
                parts = [_part(values, self.regions[p][key[1]]) for p in self._patches(key)] or [values]
                for part in parts:
                    counts += np.bincount(part.reshape(-1), minlength=len(counts))

    @cached_property
    def weights(self) -> dict[Key, int]:
        """Bit operations per bit of each feature map: what multiplies it, times the other operand's bits."""
        found = dict.fromkeys(self.counts, 0)
        places = [(node, patch) for patch in range(len(self.regions)) for node in self.front]
        for node, patch in [*places, *((node, None) for node in self.rest)]:
            if not isinstance(node, ir.Conv | ir.MatMul):
                continue
            region = None if patch is None else self.regions[patch].get(node.output)
            if patch is not None and region is None:
                continue
            macs = node_macs(self.graph, node, region)
            for operand, other in (node.inputs[:2], node.inputs[1::-1]):
                key = None if operand in self.graph.constants else self.key(operand, patch)
                if key is not None:
                    found[key] += macs * self.graph.tensors[other].format.width
        return found

    @cached_property
    def widths(self) -> dict[Key, dict[int, Width]]:
        """By feature map and bits, the width with the exponent of the least squared error."""
        found = {}
        for key, counts in self.counts.items():
            kind, node = self.graph.tensors[key[1]], self.graph.producer(key[1])
            assert isinstance(node, ir.Requant)
            options = sorted({min(b, kind.format.width) for b in self.settings.bit_widths}, reverse=True)
            found[key] = {b: best_width(node, kind, counts, b) for b in options}
        return found

    @cached_property
    def scored(self) -> dict[Key, dict[int, tuple[float, float, float]]]:
        """By feature map and bits: Ω, Φ and S."""
        wide = {key: self._content(counts, self._codes(key)) for key, counts in self.counts.items()}
        lost = {
            key: {b: self._lost(key, width) for b, width in options.items()}
            for key, options in self.widths.items()
        }
        most = {key: weight * self._given(key) for key, weight in self.weights.items()}
        share = self.settings.omega_weight
        found: dict[Key, dict[int, tuple[float, float, float]]] = {}
        for key, options in self.widths.items():
            found[key] = {}
            for b in options:
                omega = _scaled(lost[key][b], wide, key, self.settings.omega)
                dropped = self.weights[key] * (self._given(key) - b)
                phi = _scaled(dropped, most, key, self.settings.phi)
                found[key][b] = omega, phi, -share * omega + (1 - share) * phi
        return found

    def _given(self, key: Key) -> int:
        return self.graph.tensors[key[1]].format.width

    def _codes(self, key: Key) -> IntArray:
        format = self.graph.tensors[key[1]].format
        return np.arange(format.mantissa_low, format.mantissa_high + 1, dtype=np.int64)

    def _content(self, counts: IntArray, numbers: IntArray) -> float:
        """The entropy of codes that occur so often, or the power of the numbers that they stand for.

        Of the outputs it is 1: their errors are shares already.
        """
        if self.settings.measure == "outputs":
            return 1.0
        if self.settings.measure == "entropy":
            return entropy(counts)
        return float(np.sum(counts * numbers**2))

    def _lost(self, key: Key, width: Width) -> float:
        """What a narrower feature map has less in entropy, or the power of its error, or the outputs'."""
        if self.settings.measure == "outputs":
            if width.bits == self._given(key):
                return 0.0
            return self.observed.share(self._names(key), width, self.plan if self.copies else None)
        kind, node, counts = self.graph.tensors[key[1]], self.graph.producer(key[1]), self.counts[key]
        assert isinstance(node, ir.Requant)
        codes = code_map(node, kind, width)
        shift = width.exponent - kind.exponent.values[0]
        if self.settings.measure == "error":
            return self._content(counts, (codes << shift) - self._codes(key))
        moved = np.zeros(int(codes.max() - codes.min()) + 1, dtype=np.int64)
        np.add.at(moved, codes - codes.min(), counts)
        return self._content(counts, codes) - self._content(moved, codes)

    @property
    def choices(self) -> dict[Key, Choice]:
        """The widths and scores of every feature map."""
        return {
            key: Choice(tuple(scores), tuple(score for _, _, score in scores.values()))
            for key, scores in self.scored.items()
        }

    @cached_property
    def pieces(self) -> list[list[Piece[Key]]]:
        """What is in memory at a time, with the feature map that decides each piece's width."""
        return [
            [
                (
                    self.key(held.tensor, held.patch),
                    held.elements,
                    self.graph.tensors[held.tensor].format.width,
                )
                for held in live
            ]
            for live in live_sets(self.graph, self.plan.cut, self.plan.grid)
        ]

    def bits_of(self, tensor: str, patch: int | None) -> int:
        """The width of a tensor's codes in a patch, or behind the patches."""
        key = self.key(tensor, patch)
        return self.graph.tensors[tensor].format.width if key is None else self.bits[key]

    def guess(self, tensor: str, patch: int | None) -> int:
        """The width that a tensor would have in the patches of another plan."""
        found = [bits for (_, name), bits in self.bits.items() if name == self.codes[tensor]]
        return max(found, default=self.graph.tensors[tensor].format.width)

    @property
    def peak_bytes(self) -> int:
        """The memory that the chosen widths take."""
        return peak_bytes(self.graph, live_sets(self.graph, self.plan.cut, self.plan.grid), self.bits_of)

    @property
    def copies(self) -> bool:
        """Whether patches differ in their widths, so that each needs layers of its own."""
        return bool(self.plan.cut) and (bool(self.outliers) or self.settings.per_patch)

    def result(self, samples: Mapping[str, IntArray], footprint: Footprint | None) -> QuantMcu:
        """The graph with the chosen widths, and the record."""
        widths: dict[str, Width] = {}
        for key, chosen in self.bits.items():
            if chosen != self._given(key):
                widths |= dict.fromkeys(self._names(key), self.widths[key][chosen])
        base = with_patches(self.graph, self.plan) if self.copies else self.graph
        added = self._corrected(samples) if widths and self.settings.correct_bias else {}
        graph = narrowed(with_added(base, added), widths) if widths else base
        choices = tuple(
            FeatureMapChoice(
                key[1],
                self._layer(key[1]),
                self._patches(key),
                chosen,
                self.widths[key][chosen].exponent,
                *self.scored[key][chosen],
            )
            for key, chosen in self.bits.items()
        )
        by_patches = graph if self.copies else with_patches(graph, self.plan)
        record = Record(
            self.settings,
            self.plan,
            self.copies,
            self.shares,
            tuple(sorted(self.outliers)),
            choices,
            bit_operations(by_patches),
            bit_operations(with_patches(self.graph, self.plan)),
            self.peak_bytes if footprint is None else self._taken(footprint, graph),
            self.plan.peak_bytes,
        )
        return QuantMcu(graph, record)

    def _taken(self, footprint: Footprint, graph: ExactGraph) -> int:
        """What the graph that was made takes by a footprint.

        Raises:
            UnsupportedError: it cannot run by the plan.
        """
        taken = footprint(graph, layer_by_layer(graph) if self.copies else self.plan)
        if taken is None:
            raise UnsupportedError(f"{graph.name} cannot run by patches that are cut at '{self.plan.cut}'")
        return taken

    def _corrected(self, samples: Mapping[str, IntArray]) -> dict[str, IntArray]:
        """What the nodes of the graph add, those of patches with outliers left out."""
        widths = {key[1]: self.widths[key][chosen] for key, chosen in self.bits.items()}
        few = {name: array[:CORRECTED_ON] for name, array in samples.items()}
        found = corrections(self.graph, narrowed(self.graph, widths), few)
        in_front = {node.name for node in self.front} if self.copies else set()
        return {
            copy: value
            for name, value in found.items()
            for copy in ([f"{name}.patch{p}" for p in self.plain] if name in in_front else [name])
        }

    def _layer(self, name: str) -> str:
        """The path of the layer whose result a feature map is.

        The quantizer of a sum that another layer reads (a convolution's, behind which is no activation) is a
        module of its own, which :func:`qhw.convert` names after the layer.
        """
        node, layer = self.graph.producer(name), name.removesuffix(RESULT)
        assert node is not None
        return layer if layer in node.inputs else name

    def _names(self, key: Key) -> list[str]:
        """A feature map's tensors in the graph that is made."""
        branch, name = key
        if not self.copies or (branch is None and name != self.joined):
            return [name]
        patches = range(len(self.regions)) if branch is None else self._patches(key)
        return [f"{name}.patch{patch}" for patch in patches]


def _part(values: IntArray, region: Region) -> IntArray:
    return values[(slice(None), slice(None), *(slice(a, b) for a, b in region))]


def _scaled(value: float, of_all: Mapping[Key, float], key: Key, scale: Scale) -> float:
    """A number against its own at 8 bits, the largest of all, or their sum; 0 against 0 is 0."""
    unit = {"own": of_all[key], "largest": max(of_all.values()), "sum": sum(of_all.values())}[scale]
    return value / unit if unit else 0.0
