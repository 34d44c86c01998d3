"""Runs an exact graph at matrix-library speed, with the interpreter's codes.

Convolutions and matrix products run in a matrix library where a bound on the sum of magnitudes proves them
exact (``qhw.sim.backends``); what follows them element by element runs fused, in one pass over memory
(``qhw.sim.chain``). Whatever neither can prove goes to the interpreter, node by node.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from qhw.errors import InputError
from qhw.formats.modes import IntArray
from qhw.graph.interpreter import Execution, Keep
from qhw.graph.ir import ExactGraph
from qhw.sim.backends import select_backend
from qhw.sim.chain import Array
from qhw.sim.plan import ExecutionPlanner, FusedStep, integers, thread_count


class FastExecutor:
    """An exact graph planned once, then run on any number of batches.

    Args:
        graph: is not copied and must not change afterwards.
        backend: "auto" (PyTorch where it imports, else NumPy), "torch" or "numpy".
        batch: samples per run; longer inputs are cut, so memory stays bounded.
        threads: threads of the element-wise kernel; every processor of this process by default.
        device: where PyTorch multiplies: cpu, cuda, cuda:N, or auto (a GPU where there is one).

    An executor owns its buffers: use one per thread.

    Example:
        >>> from qhw.formats.integer import Integer
        >>> from qhw.graph.builder import GraphBuilder
        >>> builder = GraphBuilder("halved")
        >>> x = builder.input("x", (3,), Integer(8))
        >>> graph = builder.finish([builder.requant("y", x, Integer(8), exponent=1)])
        >>> FastExecutor(graph)({"x": np.array([[1, 2, 3]])})["y"]
        array([[0, 1, 2]])
    """

    def __init__(
        self,
        graph: ExactGraph,
        backend: str = "auto",
        *,
        batch: int = 256,
        threads: int | None = None,
        device: str = "cpu",
    ):
        if batch < 1:
            raise InputError(f"batch is {batch}", allowed="1 or more")
        self.graph = graph
        self.batch = batch
        self._backend = select_backend(backend, device)
        self._threads = threads or thread_count()
        self._planners: dict[frozenset[str], tuple[ExecutionPlanner, list[FusedStep]]] = {}

    @property
    def backend(self) -> str:
        """The name of the matrix library in use."""
        return self._backend.name

    def __call__(self, inputs: Mapping[str, IntArray], keep: Keep = "outputs") -> Execution:
        """Run a batch.

        Args:
            inputs: mantissas (N, *shape) of every graph input, within the range of their encoding.
            keep: the tensors to return: the outputs, all activations, or the named ones.

        Returns:
            mantissas (N, *shape) by tensor name: int64, or Python integers beyond 63 bits.
        """
        wanted = self._wanted(keep)
        planner, steps = self._planned(wanted)
        arrays = {name: self._checked(name, inputs, planner) for name in self.graph.inputs}
        count = len(next(iter(arrays.values())))
        results: Execution = {}
        with self._backend.exact_arithmetic():
            for start in range(0, max(count, 1), self.batch):
                part = slice(start, min(start + self.batch, count))
                tensors = self._run(steps, {name: x[part] for name, x in arrays.items()}, planner, wanted)
                for name in wanted:
                    _write(results, name, integers(tensors[name]), part, count)
        return results

    def _wanted(self, keep: Keep) -> frozenset[str]:
        if keep == "outputs":
            return frozenset(self.graph.outputs)
        known = {*self.graph.inputs, *(node.output for node in self.graph.nodes)}
        if keep == "all":
            return frozenset(known)
        if unknown := {*keep} - known:
            raise InputError(f"the graph has no tensor {', '.join(sorted(unknown))} to keep")
        return frozenset(keep)

    def _planned(self, wanted: frozenset[str]) -> tuple[ExecutionPlanner, list[FusedStep]]:
        if wanted not in self._planners:
            planner = ExecutionPlanner(self.graph, self._backend, wanted, self._threads)
            self._planners[wanted] = (planner, planner.plan())
        return self._planners[wanted]

    def _checked(self, name: str, inputs: Mapping[str, IntArray], planner: ExecutionPlanner) -> Array:
        """An input batch; its shape and range are what the proofs stand on."""
        if name not in inputs:
            raise InputError(f"no array is given for input '{name}'")
        array, kind = np.asarray(inputs[name]), self.graph.tensors[name]
        if array.dtype.kind not in "iuO":
            raise InputError(f"input '{name}' has type {array.dtype}", allowed="mantissas, as integers")
        if array.ndim == 0 or array.shape[1:] != kind.shape:
            raise InputError(f"input '{name}' has shape {array.shape}", allowed=f"(N, *{kind.shape})")
        low, high = planner.intervals[name]
        if array.size and (array.min() < low or array.max() > high):
            raise InputError(
                f"input '{name}' holds mantissas from {array.min()} to {array.max()}",
                allowed=f"{low} to {high}",
                hint="encode the values with qhw.graph.encode.encode_input",
            )
        return array

    def _run(
        self,
        steps: list[FusedStep],
        inputs: Mapping[str, Array],
        planner: ExecutionPlanner,
        wanted: frozenset[str],
    ) -> dict[str, Array]:
        tensors = {name: x.astype(planner.type_of(name)) for name, x in inputs.items()}
        last_use = {name: i for i, step in enumerate(steps) for name in step.inputs}
        count = len(next(iter(tensors.values())))
        for i, step in enumerate(steps):
            result = step.run(tensors)
            if len(result) != count:
                # A result of constants alone has one row, not one per sample.
                result = np.repeat(result, count, axis=0)
            tensors[step.output] = result
            for name in step.inputs:
                if last_use[name] == i and name not in wanted:
                    del tensors[name]
        return tensors


def _write(results: Execution, name: str, values: IntArray, part: slice, count: int) -> None:
    """Put a part of a tensor into its place in the whole batch."""
    if name not in results:
        results[name] = np.empty((count, *values.shape[1:]), dtype=values.dtype)
    results[name][part] = values
