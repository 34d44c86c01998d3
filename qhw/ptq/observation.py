"""What a converted network's quantizers are given, and the same network with nothing rounded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn

from qhw.quantizers import Quantizer

KEPT = 1 << 15
"""Numbers of a tensor that are kept to choose its scale by."""

BATCH = 128
"""Samples that go through a network at once."""


def batches(samples: Tensor) -> list[Tensor]:
    """Samples (N, ...) in batches."""
    return [samples[start : start + BATCH] for start in range(0, len(samples), BATCH)]


def results(module: nn.Module) -> dict[str, Quantizer]:
    """The quantizer of each layer's result, by the layer's path; a shared one stands there several times."""
    found = {path: getattr(layer, "result", None) for path, layer in module.named_modules()}
    return {path: quantizer for path, quantizer in found.items() if isinstance(quantizer, Quantizer)}


@contextmanager
def watched(watchers: Mapping[Quantizer, Callable[[Tensor], Tensor]]) -> Iterator[None]:
    """Quantizers round nothing meanwhile: the watcher of each is given its tensors, and answers instead."""
    try:
        for quantizer, watcher in watchers.items():
            quantizer.observer = watcher
        yield
    finally:
        for quantizer in watchers:
            quantizer.observer = None


def unquantised(module: nn.Module, *, parameters: bool = True) -> Any:
    """A context in which a converted network computes what the float network does.

    Only the constants of pools stay rounded; they are part of the layer.

    Args:
        parameters: weights and biases of Brevitas's layers too.
    """
    within = {id(q) for path, q in _proxied(module)} if not parameters else set()
    quantizers = [part for part in module.modules() if isinstance(part, Quantizer) and id(part) not in within]
    return watched(dict.fromkeys(quantizers, lambda x: x))


def _proxied(module: nn.Module) -> Iterator[tuple[str, Quantizer]]:
    """The quantizers that lie in Brevitas's proxies."""
    for path, part in module.named_modules():
        if isinstance(part, Quantizer) and path.endswith(".tensor_quant"):
            yield path, part


def observe(module: nn.Module, samples: Tensor, paths: Iterable[str], seed: int) -> dict[str, Tensor]:
    """What the result quantizers of these layers are given by the float network, behind their activation.

    Returns:
        By path, float32 (n,): a random part of the numbers, and the smallest and the largest of all.
    """
    quantizers = results(module)
    wanted = {quantizers[path]: path for path in paths}
    parts: dict[Quantizer, list[Tensor]] = {quantizer: [] for quantizer in wanted}
    generator = torch.Generator().manual_seed(seed)
    share = max(1, KEPT // len(batches(samples)))

    def keep(quantizer: Quantizer) -> Callable[[Tensor], Tensor]:
        def watcher(x: Tensor) -> Tensor:
            flat = x.reshape(-1)
            if flat.numel() > share:
                chosen = torch.randint(flat.numel(), (share,), generator=generator)
                parts[quantizer] += [torch.stack(flat.aminmax()), flat[chosen]]
            else:
                parts[quantizer].append(flat.clone())
            return x

        return watcher

    with torch.no_grad(), unquantised(module), watched({q: keep(q) for q in wanted}):
        for batch in batches(samples):
            module(batch)
    return {path: torch.cat(parts[quantizer]).float() for quantizer, path in wanted.items()}


def lockstep(
    float_side: fx.GraphModule,
    quantised: fx.GraphModule,
    samples: Tensor,
    *,
    before: Callable[[fx.Node, nn.Module, Tensor, Tensor], None] | None = None,
    behind: Callable[[fx.Node, Tensor, Tensor], None] | None = None,
) -> None:
    """Run a converted network with nothing rounded and its quantised twin, layer by layer, side by side.

    Args:
        float_side, quantised: of the same layers.
        samples: (N, ...), all of which go through at once.
        before: called with a layer of the quantised twin, the float input and the quantised one, before the
            layer runs: what it changes in the layer, all later layers see.
        behind: called with both results of a node.
    """
    twins = list(zip(float_side.graph.nodes, quantised.graph.nodes, strict=True))
    left = {node: len(node.users) for node, _ in twins}
    values: dict[fx.Node, tuple[Tensor, Tensor]] = {}
    with torch.no_grad(), unquantised(float_side):
        for node, twin in twins:
            if node.op == "placeholder":
                values[node] = samples, samples
            elif node.op == "call_module":
                exact = fx.map_arg(node.args, lambda source: values[source][0])
                rounded = fx.map_arg(node.args, lambda source: values[source][1])
                layer = quantised.get_submodule(str(twin.target))
                if before is not None:
                    before(twin, layer, exact[0], rounded[0])
                values[node] = float_side.get_submodule(str(node.target))(*exact), layer(*rounded)
            if behind is not None and node in values:
                behind(twin, *values[node])
            for source in node.all_input_nodes:
                left[source] -= 1
                if not left[source]:
                    del values[source]
