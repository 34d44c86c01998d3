"""What FINN generates of a dataflow model without Vivado: Verilog, C++ for Vitis HLS, memory images."""

from __future__ import annotations

import copy
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from qhw.errors import InputError, UnsupportedError
from qhw.flows.finn.tools import finn, library
from qhw.outside import inside
from qhw.outside.text import read_text

if TYPE_CHECKING:
    from qonnx.core.modelwrapper import ModelWrapper

LIBRARY = "finn-rtllib"
"""What the name of a file in FINN's Verilog library begins with."""

LONGEST_FILE = 256 << 20
"""Bytes of a generated file; a memory image has a line a word."""

_MEMORY_STREAM = ("axi/hdl/axilite.sv", "memstream/hdl/memstream_axi.sv", "memstream/hdl/memstream.sv")
"""What plays weights out of a memory, in the order that a compiler needs it in."""

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class LayerSources:
    """The generated files of one layer.

    Args:
        layer: its name in the model, which is also its folder.
        kind: FINN's operator, e.g. ``MVAU_rtl``.
        backend: whether it is Verilog, or C++ for Vitis HLS.
        top: the name of its top module or function.
        files: relative to the folder of all layers, or, beginning with ``finn-rtllib/``, to FINN's library;
            first the Verilog files in the order that a compiler needs them in.
    """

    layer: str
    kind: str
    backend: Literal["rtl", "hls"]
    top: str
    files: tuple[str, ...]

    @property
    def verilog(self) -> tuple[str, ...]:
        """The files that a Verilog compiler takes."""
        return tuple(name for name in self.files if name.endswith((".v", ".sv")))


@finn()
def generate_sources(
    model: ModelWrapper, folder: Path, *, part: str, clock_ns: float
) -> dict[str, LayerSources]:
    """FINN's PrepareIP for every layer of a specialised, folded dataflow model; Vivado is not needed.

    A file refers to others of its layer relative to the layer's folder (``./memblock.dat``), and to what FINN
    brings along by FINN's environment variables. So the same model gives the same bytes in any folder.

    Args:
        model: is left as it is.
        folder: gets a folder for each layer, by its name.
        part: the FPGA, as Vivado writes it.
        clock_ns: the clock's period.

    Returns:
        The sources by the layer's name, in the model's order.

    Raises:
        ToolMissingError: FINN is not installed.
        InputError: a layer has no implementation yet, or a name that is no identifier.
        UnsupportedError: FINN refuses to generate a layer.
    """
    model = copy.deepcopy(model)  # the generators write paths, and types, into the nodes
    for node in model.graph.node:
        _backend(node)  # before anything is written
    for node in model.graph.node:
        with tempfile.TemporaryDirectory(prefix="finn-") as scratch:
            _generate(model, node, Path(scratch), part, clock_ns)
            target = folder / node.name
            target.mkdir(parents=True, exist_ok=True)
            for path in sorted(Path(scratch).iterdir()):
                if path.suffix != ".npy":  # for FINN's own simulation; the memory images say the same
                    text = read_text(path, "generated file", LONGEST_FILE)
                    (target / path.name).write_text(_placed(text, scratch))
    return layer_sources(model, folder)


def _generate(model: ModelWrapper, node: Any, scratch: Path, part: str, clock_ns: float) -> None:
    operator = operator_of(node)
    operator.set_nodeattr("code_gen_dir_ipgen", str(scratch))
    try:
        operator.code_generation_ipgen(model, part, clock_ns)
    except Exception as error:  # FINN raises whatever comes, assertions among it
        raise UnsupportedError(
            f"FINN cannot generate the sources of layer '{node.name}' ({node.op_type}): "
            f"{str(error) or type(error).__name__}",
            hint="use --flow hls4ml: this is FINN's own failure",
        ) from error


def _placed(text: str, scratch: str) -> str:
    """A generated text without the paths of this machine."""
    from finn.util.settings import get_settings

    settings = get_settings()
    places = {
        scratch: ".",
        str(settings.finn_deps): "$::env(FINN_DEPS)",
        str(settings.finn_rtllib): "$::env(FINN_RTLLIB)",
        str(settings.finn_custom_hls): "$::env(FINN_CUSTOM_HLS)",
    }
    for place, name in places.items():
        text = text.replace(place, name)
    return text


@finn()
def layer_sources(model: ModelWrapper, folder: Path) -> dict[str, LayerSources]:
    """What :func:`generate_sources` wrote into a folder for this model; arguments and errors as there.

    Raises InputError also where a layer's folder is not there.
    """
    model = copy.deepcopy(model)
    return {node.name: _sources(node, folder) for node in model.graph.node}


def _sources(node: Any, folder: Path) -> LayerSources:
    backend, operator = _backend(node), operator_of(node)
    place = inside(folder, node.name)
    if not place.is_dir():
        raise InputError(f"{folder} has no sources of layer '{node.name}'", hint="generate them again")
    top = operator.get_verilog_top_module_name()
    generated = sorted(path.name for path in place.iterdir())
    files: dict[str, None] = {}
    if backend == "rtl":
        operator.set_nodeattr("code_gen_dir_ipgen", str(place))
        operator.set_nodeattr("gen_top_module", top)
        files |= dict.fromkeys(_named(path, place) for path in operator.get_rtl_file_list(abspath=True))
    if any(name.endswith("_memstream_wrapper.v") for name in generated):
        files |= dict.fromkeys(f"{LIBRARY}/{name}" for name in _MEMORY_STREAM)
    files |= dict.fromkeys(f"{node.name}/{name}" for name in generated)
    return LayerSources(node.name, node.op_type, backend, top, tuple(files))


def _named(path: str | Path, place: Path) -> str:
    """A file of FINN's list as ``LayerSources`` names it."""
    normal, own = os.path.normpath(path), str(_verilog_library())
    if normal.startswith(own + os.sep):
        return f"{LIBRARY}/{Path(normal).relative_to(own).as_posix()}"
    return f"{place.name}/{Path(normal).relative_to(os.path.normpath(place)).as_posix()}"


def source_file(folder: Path, name: str) -> Path:
    """The place of a file that ``LayerSources`` names.

    Raises InputError for a name that leads out of the folder, or through a link.
    """
    if name.startswith(f"{LIBRARY}/"):
        return _verilog_library() / name.removeprefix(f"{LIBRARY}/")
    return inside(folder, name)


def _verilog_library() -> Path:
    """The folder of FINN's Verilog, in its package."""
    return Path(os.path.normpath(library("finn").__file__)).parent / LIBRARY


def _backend(node: Any) -> Literal["rtl", "hls"]:
    if not _IDENTIFIER.fullmatch(node.name):
        raise InputError(
            f"a layer of the dataflow model is named {node.name!r}",
            allowed="letters, digits and _",
            hint="apply qonnx's GiveUniqueNodeNames first",
        )
    if node.op_type.endswith("_rtl"):
        return "rtl"
    if node.op_type.endswith("_hls"):
        return "hls"
    raise InputError(
        f"layer '{node.name}' ({node.op_type}) has no implementation yet",
        allowed="layers that end in _rtl or _hls",
        hint="apply FINN's SpecializeLayers first",
    )


def operators(model: ModelWrapper) -> Iterator[tuple[Any, Any]]:
    """Every node with FINN's object for it."""
    for node in model.graph.node:
        yield node, operator_of(node)


def operator_of(node: Any) -> Any:
    """FINN's object for a node."""
    from qonnx.custom_op.registry import getCustomOp

    return getCustomOp(node)
