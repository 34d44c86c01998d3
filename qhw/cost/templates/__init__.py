"""Architecture templates: which units a flow makes of a node, one file for each flow."""

from __future__ import annotations

from collections.abc import Mapping

from qhw.cost.templates import finn, hls4ml
from qhw.cost.templates.base import Fold, LayerUsage, Site, Template
from qhw.errors import InputError, closest

TEMPLATES: Mapping[str, Template] = {
    "hls4ml": hls4ml.TEMPLATE,
    "finn": finn.TEMPLATE,
}
"""By the name of the flow."""

__all__ = ["TEMPLATES", "Fold", "LayerUsage", "Site", "Template", "template_of"]


def template_of(flow: str) -> Template:
    """The template of a flow; raises InputError for one that has none."""
    if flow not in TEMPLATES:
        raise InputError(f"No flow {flow!r} can be priced", hint=closest(flow, TEMPLATES))
    return TEMPLATES[flow]
