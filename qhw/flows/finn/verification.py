"""A project against the exact graph, after every step, by FINN's Python execution."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from qhw.flows.finn.design_simulation import DesignCheck
from qhw.flows.finn.execution import Execution, batch_size
from qhw.flows.finn.passes import Step
from qhw.flows.finn.project import Description
from qhw.flows.finn.simulation import LayerCheck
from qhw.formats.modes import IntArray
from qhw.graph.ir import ExactGraph
from qhw.sim.compare import compare
from qhw.sim.fast import FastExecutor
from qhw.sim.rows import Row, row_of

if TYPE_CHECKING:
    from qonnx.core.modelwrapper import ModelWrapper

REFERENCE = "exact graph"
PYTHON = "finn Python execution"
DESIGN = "FINN's whole design"
Tell = Callable[[float | None, str], None]


@dataclass
class StepCheck:
    """What was seen after a step: how many layers the model then has, and codes that were compared."""

    step: str
    nodes: int
    codes: int = 0
    tensors: int = 0
    mismatches: int = 0

    def to_json(self) -> dict[str, Any]:
        """The values for ``verification.json``."""
        return dict(vars(self))


@dataclass
class StepByStep:
    """Models after every step, and what is known of the graph that they all carry out.

    Args:
        steps: the models' names, in order.
        models: the models.
        description: of the project.
        graph: the exact graph.
    """

    steps: Sequence[str]
    models: Sequence[ModelWrapper]
    description: Description
    graph: ExactGraph
    checks: list[StepCheck] = field(default_factory=list)

    def run(self, inputs: Mapping[str, IntArray], tell: Tell) -> Row:
        """The row of all steps; of the first one that changes a value, where one does."""
        given = np.asarray(inputs[self.description.input])
        self.checks = [
            StepCheck(name, len(model.graph.node))
            for name, model in zip(self.steps, self.models, strict=True)
        ]
        executor, batch = FastExecutor(self.graph), batch_size(self.models[0])
        distinct: set[int] = set()
        for start in range(0, len(given), batch):
            tell(start / len(given), f"FINN's execution, sample {start:,} of {len(given):,}")
            part = {self.description.input: given[start : start + batch]}
            expected = executor(part, keep=self._kept())
            distinct.update(np.unique(expected[self.description.output]).tolist())
            differing = self._batch(part, expected)
            if differing is not None:
                return differing
        return {
            "backend": f"FINN, after each of {len(self.steps)} steps",
            "reference": REFERENCE,
            "vectors": len(given),
            "codes_compared": sum(check.codes for check in self.checks),
            "mismatches": 0,
            "layers": self.checks[-1].tensors,
            "distinct_codes": len(distinct),
        }

    def _kept(self) -> set[str]:
        known = {*self.graph.inputs, *(node.output for node in self.graph.nodes)}
        return known & set(self.description.carried)

    def _batch(self, inputs: Mapping[str, IntArray], expected: Mapping[str, IntArray]) -> Row | None:
        """Compare every step on a batch; the row of the first that differs."""
        carried = {c.name: c for c in self.description.carried.values() if c.tensor in expected}
        wanted = {name: c.integers(expected[c.tensor]) for name, c in carried.items()}
        execution = Execution(
            self.description.carried[self.description.input].integers(
                np.asarray(inputs[self.description.input])
            )
        )
        seen: dict[str, NDArray[np.float32]] = {}
        for check, model in zip(self.checks, self.models, strict=True):
            check.tensors = 0
            for _, results, _ in execution.run(model):
                for name, value in results.items():
                    if name not in wanted:
                        continue
                    check.tensors += 1
                    check.codes += value.size
                    if seen.get(name) is value:
                        continue
                    if not np.array_equal(value.reshape(wanted[name].shape), wanted[name]):
                        return self._differing(
                            check, carried[name].mantissas(value), carried[name].tensor, expected
                        )
                    seen[name] = value
        return None

    def _differing(
        self, check: StepCheck, found: IntArray, tensor: str, expected: Mapping[str, IntArray]
    ) -> Row:
        names = (REFERENCE, f"FINN after the step '{check.step}'")
        comparison = compare(self.graph, {tensor: expected[tensor]}, {tensor: found}, names=names)
        check.mismatches = comparison.mismatches
        return row_of(comparison, len(found))


def models_after(
    model: ModelWrapper, steps: Sequence[Step], tell: Tell
) -> Iterator[tuple[str, ModelWrapper]]:
    """The model, and what each step makes of it."""
    yield "streamlined graph", model
    for index, step in enumerate(steps):
        tell(index / len(steps), f"FINN: {step.name}")
        model = step.apply(copy.deepcopy(model))  # a step may change what it is given
        yield step.name, model


def layers_row(checks: Sequence[LayerCheck], vectors: int) -> Row:
    """The row of the simulations of single layers: generated sources against FINN's Python execution."""
    done = [check for check in checks if check.backend != "none"]
    left = [check for check in checks if check.backend == "none"]
    row: Row = {
        "backend": "FINN's sources, layer by layer",
        "reference": PYTHON,
        "vectors": vectors if done else 0,
        "codes_compared": sum(check.codes for check in done),
        "mismatches": sum(check.mismatches for check in done) if done else None,
        "layers": len(done),
    }
    first = next((check for check in done if check.mismatches), None)
    if first is not None:
        row["first_difference"] = f"layer '{first.layer}' ({first.backend}): {first.first_difference}"
    if left:
        reasons = dict.fromkeys(str(check.reason) for check in left)
        names = ", ".join(check.layer for check in left)
        row["not_compared"] = f"{names}: {'; '.join(reasons)}"
    return row


def design_row(check: DesignCheck) -> Row:
    """The row of the simulation of a whole design."""
    row: Row = {
        "backend": DESIGN,
        "reference": PYTHON,
        "vectors": check.vectors,
        "codes_compared": check.codes,
        "mismatches": check.mismatches,
        "layers": len(check.depths),
    }
    if check.first_difference is not None:
        row["first_difference"] = check.first_difference
    return row
