"""The dataflow architecture out of qhw's own measured circuits: priced; nothing writes its projects yet."""

from __future__ import annotations

from qhw.cost.pricing.architecture import Architecture
from qhw.devices import Family
from qhw.flows.base import Flow
from qhw.flows.rtl.template import ARCHITECTURE
from qhw.graph.ir import ExactGraph


class RtlFlow(Flow):
    """Verilog out of the measured circuits, on every family that they were measured on."""

    name = "rtl"

    def takes(self, family: Family) -> bool:
        return family.kind == "fpga"

    def architecture(self, graph: ExactGraph) -> Architecture:
        return ARCHITECTURE


flow = RtlFlow
