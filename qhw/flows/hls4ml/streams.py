"""How deep the streams between layers are."""

from __future__ import annotations

from typing import Any

CHAIN_DEPTH = 2
"""Words of a stream between two layers that follow each other."""


def set_stream_depths(model: Any) -> None:
    """Give every stream of an hls4ml model the depth that it needs; hls4ml declares a whole image for each.

    In a chain any depth lets the layers run; two words let them overlap. Where branches meet, the shorter
    one has to wait for the longer, by at most one image: the streams into a layer with several inputs keep
    that depth.
    """
    layers = list(model.get_layers())
    meeting = {name for layer in layers if len(layer.inputs) > 1 for name in layer.inputs}
    ports = {variable.name for variable in (*model.get_input_variables(), *model.get_output_variables())}
    for layer in layers:
        for name, variable in layer.variables.items():
            pragma: Any = getattr(variable, "pragma", None)
            streamed = isinstance(pragma, tuple) and pragma[0] == "stream"
            if streamed and name not in meeting and variable.name not in ports:
                variable.pragma = ("stream", min(CHAIN_DEPTH, pragma[1]))
