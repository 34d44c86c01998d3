"""The project's own layers, registered with hls4ml's Extension API. Imports hls4ml: import it when needed."""

from __future__ import annotations

from functools import cache
from typing import Any

from hls4ml.backends import get_backend
from hls4ml.backends.template import FunctionCallTemplate, LayerConfigTemplate
from hls4ml.model.layers import Layer, register_layer


class QhwLayer(Layer):  # type: ignore[misc]
    """A call into the header library in ``hls/include/qhw``.

    Its attributes say which function, with which constants, C++ types and stored arrays: see ``plan.Kernel``.
    """

    def initialize(self) -> None:
        self.add_output_variable(list(self.attributes["out_dims"]))
        for array in self.attributes["arrays"]:
            self.add_weights_variable(name=array, var_name=f"{array}{{index}}")


class QhwConfigTemplate(LayerConfigTemplate):  # type: ignore[misc]
    """The C++ structure with a layer's constants and types."""

    def __init__(self) -> None:
        super().__init__(QhwLayer)

    def format(self, node: Any) -> str:
        lines = [f"struct config{node.index} {{"]
        for name, value in node.attributes["constants"].items():
            lines.append(f"    static const {_constant_type(name, value)} {name} = {value};")
        for name, text in node.attributes["cpp_types"].items():
            lines.append(f"    typedef {text} {name};")
        for array in node.attributes["arrays"]:
            lines.append(f"    typedef {node.get_weights(array).type.name} {array}_t;")
        return "\n".join([*lines, "};\n"])


def _constant_type(name: str, value: int | str) -> str:
    if isinstance(value, str):
        return f"qhw::{name}_mode"
    return "long long" if name in SIGNED else "unsigned"


class QhwFunctionTemplate(FunctionCallTemplate):  # type: ignore[misc]
    """The call in the top function."""

    def __init__(self) -> None:
        super().__init__(QhwLayer, include_header=[])

    def transform(self, model: Any, node: Any) -> Any:
        changed = super().transform(model, node)
        node.set_attr("include_header", [node.attributes["header"]])
        return changed

    def format(self, node: Any) -> str:
        read = [node.get_input_variable(name) for name in node.inputs]
        params = self._default_function_params(node)
        types = {f"input{i}_t": variable.type.name for i, variable in enumerate(read)}
        function = node.attributes["function"].format(**params, **types)
        arrays = [node.get_weights(array).name for array in node.attributes["arrays"]]
        return f"{function}({', '.join([*(v.name for v in read), params['output'], *arrays])});"


SIGNED = frozenset(("low", "high", "value", "first", "base", "step", "down"))


@cache
def vitis_backend() -> Any:
    """hls4ml's Vitis backend, with the project's own layer registered once."""
    backend = get_backend("Vitis")
    register_layer("QhwLayer", QhwLayer)
    backend.register_template(QhwConfigTemplate)
    backend.register_template(QhwFunctionTemplate)
    return backend
