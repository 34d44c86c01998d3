"""The base of every method, and what it works on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from brevitas.nn.quant_layer import QuantWeightBiasInputOutputLayer
from torch import Tensor, fx

from qhw.layers import QuantBatchNorm
from qhw.ptq.observation import lockstep


@dataclass(frozen=True)
class Subject:
    """A network that is being quantised.

    Args:
        quantised: what :func:`qhw.convert.convert_traced` made, its scales set; a method changes its
            parameters.
        float_side: the same as it was before any method; with nothing rounded it is the float network.
        samples: (N, ...), as the network takes them.
        seed: for methods that draw numbers.
    """

    quantised: fx.GraphModule
    float_side: fx.GraphModule
    samples: Tensor
    seed: int


class Method(ABC):
    """A change to a network that makes its quantised form better.

    Attributes:
        title: one line, with the paper.
        order: methods are applied by it, from the lowest.
    """

    title: ClassVar[str]
    order: ClassVar[int]

    def restructure(self, network: fx.GraphModule) -> int:
        """Change the layers of a traced float network, whose function stays; returns in how many places."""
        return 0

    def prepare(self, network: fx.GraphModule, samples: Tensor) -> int:
        """Change the weights of a traced float network, whose function stays; returns in how many places."""
        return 0

    def adjust(self, subject: Subject) -> int:
        """Change the parameters of the quantised network; returns how many layers were looked at."""
        return 0


class LayerMethod(Method):
    """A method that changes one layer with weights after another, each by what goes into it."""

    @abstractmethod
    def adjust_layer(self, layer: Any, exact: Tensor, rounded: Tensor, seed: int) -> None:
        """Change the parameters of a converted layer.

        Args:
            exact: its input in the float network, (N, ...).
            rounded: the same as the quantised layers in front of it, which are adjusted already, give it.
            seed: for methods that draw numbers.
        """

    def adjust(self, subject: Subject) -> int:
        done: set[int] = set()

        def adjust_once(node: fx.Node, layer: Any, exact: Tensor, rounded: Tensor) -> None:
            if takes_part(layer) and id(layer) not in done:
                done.add(id(layer))
                self.adjust_layer(layer, exact, rounded, subject.seed)

        lockstep(subject.float_side, subject.quantised, subject.samples, before=adjust_once)
        return len(done)


def takes_part(layer: Any) -> bool:
    """Whether a layer has weights that methods adjust."""
    return isinstance(layer, QuantWeightBiasInputOutputLayer)


def layer_at(network: fx.GraphModule, node: fx.Node) -> Any:
    """The layer that a node calls; None for inputs and outputs."""
    return network.get_submodule(str(node.target)) if node.op == "call_module" else None


def sum_layers(network: fx.GraphModule) -> Iterator[tuple[fx.Node, Any]]:
    """The convolutions and linear layers of a converted network, each once, in order."""
    seen = set()
    for node in network.graph.nodes:
        layer = layer_at(network, node)
        if takes_part(layer) and id(layer) not in seen:
            seen.add(id(layer))
            yield node, layer


def norm_behind(network: fx.GraphModule, node: fx.Node) -> QuantBatchNorm | None:
    """The batch norm that alone reads a node."""
    readers = [layer_at(network, user) for user in node.users]
    is_alone = len(readers) == 1 and isinstance(readers[0], QuantBatchNorm)
    return readers[0] if is_alone else None


def restart_constants(norm: QuantBatchNorm) -> None:
    """Find the scales of a batch norm's constants anew, from its statistics as they are now."""
    exact = norm.weight.detach().double() / (norm.running_var.double() + norm.eps).sqrt()
    norm.scale_quantizer.start(exact)
    scale = norm.scale_quantizer.quantize(exact).detach()
    norm.bias_quantizer.start(norm.bias.detach().double() - norm.running_mean.double() * scale)
