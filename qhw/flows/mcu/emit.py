"""The C text of a program: constants, the arena, and one call per step; the same program, the same text."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from qhw.flows.mcu.containers import Container, Map
from qhw.flows.mcu.kernels import conv_kernel
from qhw.flows.mcu.layout import ARENA_SCRATCH, INPUTS, Call, Layout, placed
from qhw.flows.mcu.program import (
    Box,
    ConvLayer,
    CopyLayer,
    ElementwiseLayer,
    Finish,
    MatMulLayer,
    PoolLayer,
    ReshapeLayer,
    Step,
    TransposeLayer,
    UpsampleLayer,
)
from qhw.formats.modes import IntArray

_WIDTH = 116
_C_WORDS = frozenset(
    [
        "auto",
        "break",
        "case",
        "char",
        "const",
        "continue",
        "default",
        "do",
        "double",
        "else",
        "enum",
        "extern",
        "float",
        "for",
        "goto",
        "if",
        "inline",
        "int",
        "long",
        "register",
        "restrict",
        "return",
        "short",
        "signed",
        "sizeof",
        "static",
        "struct",
        "switch",
        "typedef",
        "union",
        "unsigned",
        "void",
        "volatile",
        "while",
        "arena",
        "in",
        "out",
        "patch",
        "main",
        "bool",
        "true",
        "false",
        "errno",
    ]
)


@dataclass(frozen=True)
class Sources:
    """The two files that are written for a network.

    Args:
        constant_bytes: by step: bytes of its weights and other numbers in flash.
    """

    header: str
    model: str
    constant_bytes: dict[str, int]


def emit(layout: Layout, title: str) -> Sources:
    """The C files of a layout; ``title`` is the first line's."""
    writer = _Writer(layout)
    body = writer.run()
    return Sources(_header(layout, title), f"// {title}\n{body}", writer.constant_bytes)


def arrays_of(layout: Layout) -> dict[str, int]:
    """The arrays of numbers that a network has in flash, each once: bytes by a digest of the numbers."""
    counter = _Counter(layout)
    counter.constants()
    return counter.found


def identifiers(names: Iterable[str]) -> dict[str, str]:
    """A C identifier for every name, no two the same."""
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        base = re.sub(r"\W+", "_", name, flags=re.ASCII).strip("_") or "step"
        if base[0].isdigit() or base in _C_WORDS or base.lower().startswith("qhw"):
            base = f"n_{base}"
        made, count = base, 2
        while made in taken:
            made, count = f"{base}_{count}", count + 1
        taken.add(made)
        found[name] = made
    return found


def _header(layout: Layout, title: str) -> str:
    program = layout.program
    in_bytes, out_bytes = layout.io_bytes
    lines = [f"// {title}", "#ifndef QHW_MODEL_H", "#define QHW_MODEL_H", "", "#include <stdint.h>", ""]
    lines += ["#ifdef __cplusplus", 'extern "C" {', "#endif", ""]
    for what, names in (("INPUT", program.inputs), ("OUTPUT", program.outputs)):
        offsets, _ = placed(program, names)
        for name in names:
            lines.append(
                f"// {what.lower()} '{_comment(name)}': {_described(program.maps[name])}, "
                f"from byte {offsets[name]}"
            )
    lines += [f"#define QHW_INPUT_BYTES {in_bytes}", f"#define QHW_OUTPUT_BYTES {out_bytes}"]
    lines += [f"#define QHW_ARENA_BYTES {layout.arena.bytes} // static RAM", ""]
    lines += [
        "// Memory for the input, inside of the arena: given to qhw_run, it spares the caller a buffer."
    ]
    lines += ["int8_t *qhw_input(void);", ""]
    lines += [
        "// One inference: no heap, no state between calls. in and out are aligned to 8 bytes, and apart."
    ]
    lines += ["void qhw_run(const int8_t *in, int8_t *out);", ""]
    lines += ["#ifdef QHW_OBSERVE // a test firmware looks at every map"]
    lines += [f"#define QHW_STEPS {len(program.steps)}", "void qhw_begin(unsigned step);"]
    lines += [
        "void qhw_end(unsigned step, const uint8_t *map, uint32_t rows, uint32_t row_bytes, uint32_t stride);"
    ]
    lines += ["#endif", "", "#ifdef __cplusplus", "}", "#endif", "#endif", ""]
    return "\n".join(lines)


def _described(m: Map) -> str:
    rows, columns = m.plane
    pixels = f"{rows} x {columns} pixels of " if m.pixels > 1 else ""
    return f"{pixels}{m.channels} channel{'s' if m.channels > 1 else ''}, {m.container}"


def _comment(text: str) -> str:
    """A text that ends no comment and no line, whatever a file calls its layers."""
    return "".join(c if c.isprintable() and c.isascii() and c not in "\\?" else "_" for c in text)


@dataclass
class _Writer:
    layout: Layout
    lines: list[str] = field(default_factory=list)
    constant_bytes: dict[str, int] = field(default_factory=dict)
    known: dict[tuple[str, tuple[int, ...]], str] = field(default_factory=dict)
    maps: dict[str, str] = field(default_factory=dict)
    _step: str = ""

    def run(self) -> str:
        self.constants()
        body = self.function()
        head = ['#include "model.h"', "", '#include "qhw_kernels_dsp.h"', ""]
        head += [
            "#if defined(__GNUC__)",
            "#define ALIGNED __attribute__((aligned(8)))",
            "#else",
            "#define ALIGNED",
            "#endif",
        ]
        head += ["#ifndef QHW_OBSERVE", "#define qhw_begin(step)"]
        head += ["#define qhw_end(step, map, rows, row_bytes, stride)", "#endif", ""]
        if self.layout.front:
            head += [
                "// What a step works on in one patch: rows and columns, and where they begin in its maps."
            ]
            head += [
                "typedef struct {",
                "    qhw_region region;",
                "    uint32_t in, other, other_row_bytes, out;",
            ]
            head += ["} patch_region;", ""]
        arena = [f"static uint8_t arena[{max(self.layout.arena.bytes, 1)}] ALIGNED;", ""]
        return "\n".join([*head, *self.lines, *arena, *body])

    # --- constants ------------------------------------------------------------------------------

    def constants(self) -> None:
        """All arrays and the geometry of all steps."""
        program = self.layout.program
        names = identifiers([*(step.name for step in program.steps), *program.constants])
        self.names = names
        for name, (kind, value) in program.constants.items():
            self._step = name
            self.maps[name] = self.bytes_of(f"{names[name]}_map", kind.pack(np.asarray(value)[np.newaxis])[0])
        for step in program.steps:
            self._step = step.name
            self.constant_bytes.setdefault(step.name, 0)
            self.layer(step)

    def bytes_of(self, name: str, values: Any) -> str:
        return self.numbers(name, values, "uint8_t")

    def numbers(self, name: str, values: Sequence[int] | IntArray, c_type: str) -> str:
        """An array of numbers in flash; its name, or that of one with the same numbers."""
        numbers = tuple(np.asarray(values).reshape(-1).tolist())
        if (c_type, numbers) in self.known:
            return self.known[c_type, numbers]
        self.known[c_type, numbers] = name
        texts = [_literal(value, c_type) for value in numbers]
        self.constant_bytes[self._step] = self.constant_bytes.get(self._step, 0) + _size(c_type) * len(texts)
        self.lines += [f"static const {c_type} {name}[{len(texts)}] ALIGNED = {{", *_wrapped(texts), "};"]
        return name

    def finish(self, name: str, finish: Finish) -> dict[str, Any]:
        """The fields of a layer's qhw_output."""
        wide = "int64_t" if finish.wide else "int32_t"
        fields: dict[str, Any] = {"type": _type(finish.out), "kind": f"QHW_{finish.kind}"}
        if finish.wide:
            fields["wide"] = 1
        if finish.kind == "ROUND":
            fields |= {"rounding": f"QHW_{finish.rounding}", "overflow": f"QHW_{finish.overflow}"}
            if finish.overflow.startswith("WRAP"):
                fields["width"] = finish.width
            fields |= {"low": _literal(finish.low, "int64_t"), "high": _literal(finish.high, "int64_t")}
        for what, values, c_type in (
            ("multiplier", finish.multiplier, "int32_t"),
            ("addend", finish.addend, wide),
            ("shift", finish.shift if finish.kind == "ROUND" else None, "int8_t"),
        ):
            if values is not None:
                fields[what] = self.numbers(f"{name}_{what}", values, c_type)
                fields[f"{what}_step"] = int(len(values) > 1)
        if finish.thresholds is not None:
            fields["thresholds"] = self.numbers(f"{name}_thresholds", finish.thresholds, wide)
            fields["threshold_step"] = finish.thresholds.shape[1] if len(finish.thresholds) > 1 else 0
            fields["count"] = finish.thresholds.shape[1]
        if finish.levels is not None:
            flat = finish.levels.reshape(1, -1, 1)
            row = Map((flat.shape[1], 1), finish.out)
            memory = row.pack(flat)[0]
            fields["levels"] = self.bytes_of(f"{name}_levels", memory)
            fields["level_step"] = finish.levels.shape[1] if len(finish.levels) > 1 else 0
            if finish.kind == "LOOK_UP":
                fields |= {"count": finish.levels.shape[1], "first": _literal(finish.first, "int64_t")}
        return {f"output.{field}": value for field, value in fields.items()}

    def struct(self, c_type: str, name: str, fields: dict[str, Any]) -> None:
        self.lines += [f"static const {c_type} {name} = {{", *_wrapped(_shown(fields)), "};"]

    # --- layers ---------------------------------------------------------------------------------

    def layer(self, step: Step) -> None:
        """A step's constants and geometry."""
        name, layer = self.names[step.name], step.layer
        fields: dict[str, Any]
        self.lines += ["", f"// {self.title(step)}"]
        if isinstance(layer, ConvLayer):
            self.conv(name, layer)
        elif isinstance(layer, ElementwiseLayer):
            fields = {"in": _type(layer.x)}
            if layer.other is not None:
                fields["other"] = _type(layer.other)
            fields |= {
                "channels": layer.channels,
                "in_shift": layer.shifts[0],
                "other_shift": layer.shifts[1],
            }
            self.struct("qhw_elementwise_layer", name, fields | self.finish(name, layer.finish))
        elif isinstance(layer, PoolLayer):
            fields = {
                "in": _type(layer.x),
                "channels": layer.channels,
                **_window(layer),
                "across": int(layer.across),
            }
            self.struct("qhw_pool_layer", name, fields | self.finish(name, layer.finish))
        elif isinstance(layer, MatMulLayer):
            self.matmul(name, layer)
        elif isinstance(layer, CopyLayer):
            for index, box in enumerate(layer.boxes):
                self.struct("qhw_copy_layer", f"{name}_{index}", _box(box))
        elif isinstance(layer, UpsampleLayer):
            rows, columns = layer.x.plane
            fields = {"type": _type(layer.x.container), "channels": layer.x.channels, "height": rows}
            fields |= {"width": columns, "row_factor": layer.factors[0], "column_factor": layer.factors[1]}
            self.struct("qhw_upsample_layer", name, fields)
        elif isinstance(layer, ReshapeLayer):
            fields = {
                "type": _type(layer.x.container),
                "in_channels": layer.x.channels,
                "in_pixels": layer.x.pixels,
            }
            fields |= {"out_channels": layer.out.channels, "out_pixels": layer.out.pixels}
            self.struct("qhw_reshape_layer", name, fields)
        else:
            self.transpose(name, layer)
        if isinstance(layer, ConvLayer | ElementwiseLayer | PoolLayer):
            self.regions(step, name)

    def conv(self, name: str, layer: ConvLayer) -> None:
        kernel = conv_kernel(layer)
        memory = kernel.pack(layer)
        if layer.weight.bits == 8 and layer.weight.is_signed:
            weights = self.numbers(f"{name}_weights", memory.view(np.int8), "int8_t")
        else:
            weights = self.bytes_of(f"{name}_weights", memory)
        fields = {
            "in": _type(layer.x),
            "weight": _type(layer.weight),
            "in_channels": layer.in_channels,
            "out_channels": layer.out_channels,
            "groups": layer.groups,
            **_window(layer),
            "wide_sum": int(layer.wide_sum),
            "weights": weights,
        }
        self.struct("qhw_conv_layer", name, fields | self.finish(name, kernel.finish(layer)))

    def matmul(self, name: str, layer: MatMulLayer) -> None:
        fields = {
            "a": _type(layer.a.container),
            "b": _type(layer.b.container),
            "batches": layer.batches,
            "rows": layer.rows,
            "depth": layer.depth,
            "columns": layer.columns,
            "a_channels": layer.a.channels,
            "b_channels": layer.b.channels,
            "out_channels": layer.out.channels,
            "a_pixels": layer.a.pixels,
            "b_pixels": layer.b.pixels,
            "out_pixels": layer.out.pixels,
            "a_batch": layer.a_batch,
            "b_batch": layer.b_batch,
        }
        if layer.bias is not None:
            c_type = "int64_t" if layer.finish.wide else "int32_t"
            fields["bias"] = self.numbers(f"{name}_bias", layer.bias, c_type)
        self.struct("qhw_matmul_layer", name, fields | self.finish(name, layer.finish))

    def transpose(self, name: str, layer: TransposeLayer) -> None:
        shape = [*layer.out.shape, 1, 1, 1, 1][:4]
        strides = [*layer.strides, 0, 0, 0, 0][:4]
        fields = {
            "type": _type(layer.x.container),
            "shape": _braced(shape),
            "stride": _braced(strides),
            "in_channels": layer.x.channels,
            "in_pixels": layer.x.pixels,
        }
        self.struct("qhw_transpose_layer", name, fields)

    def regions(self, step: Step, name: str) -> None:
        """The region of a step, or one per patch."""
        calls = self.layout.calls(step)
        if not calls[0].region:
            self.struct("qhw_region", f"{name}_region", _region(calls[0]))
            return
        rows = ["    " + _braced([_struct(_region(call)), *map(str, _places(call))]) + "," for call in calls]
        self.lines += [f"static const patch_region {name}_patches[{len(rows)}] = {{", *rows, "};"]

    # --- calls ----------------------------------------------------------------------------------

    def title(self, step: Step) -> str:
        by_name = {node.name: node for node in self.layout.graph.nodes}
        ops = ", ".join(by_name[name].op for name in step.nodes) or "the output"
        return f"{_comment(step.name)}: {ops} -> {_described(self.layout.program.maps[step.writes])}"

    def function(self) -> list[str]:
        program, front = self.layout.program, self.layout.front
        at = self.layout.arena.offsets[INPUTS]
        lines = ["int8_t *qhw_input(void) {", f"    return (int8_t *)(arena + {at});", "}", ""]
        lines += ["void qhw_run(const int8_t *in_bytes, int8_t *out_bytes) {"]
        lines += [
            "    const uint8_t *in = (const uint8_t *)in_bytes;",
            "    uint8_t *out = (uint8_t *)out_bytes;",
        ]
        if front:
            plan = self.layout.plan
            assert plan is not None
            grid = " x ".join(map(str, plan.grid))
            lines += [f"    // up to '{_comment(plan.cut)}', patch by patch: {grid}"]
            lines += [f"    for (unsigned patch = 0; patch < {plan.patches}; patch++) {{"]
            for index, step in enumerate(program.steps[:front]):
                lines += ["    " + line for line in self.patched(index, step)]
            lines += ["    }"]
        for index, step in enumerate(program.steps[front:], front):
            lines += self.whole(index, step)
        return [*lines, "    (void)in;", "    (void)out;", "}", ""]

    def place(self, tensor: str) -> str:
        """The C expression of a map's address."""
        program = self.layout.program
        if tensor in program.constants:
            return self.maps[tensor]
        root = program.root(tensor)
        for pointer, names in (("in", program.inputs), ("out", program.outputs)):
            if root in names:
                return _plus(pointer, placed(program, names)[0][root])
        return _plus("arena", self.layout.offset(root))

    def scratch(self, step: Step) -> str:
        if not step.scratch:
            return "0"
        return _plus("arena", self.layout.arena.offsets[step.name + ARENA_SCRATCH])

    def whole(self, index: int, step: Step) -> list[str]:
        name, (call,) = self.names[step.name], self.layout.calls(step)
        reads, out = [self.place(tensor) for tensor in step.reads], self.place(step.writes)
        lines = [f"    qhw_begin({index});"]
        if isinstance(step.layer, ConvLayer):
            lines.append(
                f"    {step.kernel}(&{name}, &{name}_region, {reads[0]}, {out}, {self.scratch(step)});"
            )
        elif isinstance(step.layer, ElementwiseLayer) and step.layer.other is not None:
            lines.append(
                f"    {step.kernel}(&{name}, &{name}_region, {reads[0]}, {reads[1]}, {call.rows[1]}, {out});"
            )
        elif isinstance(step.layer, ElementwiseLayer | PoolLayer):
            lines.append(f"    {step.kernel}(&{name}, &{name}_region, {reads[0]}, {out});")
        elif isinstance(step.layer, CopyLayer):
            m = step.layer.out
            if step.layer.fill is not None:
                value = _literal(step.layer.fill, "int64_t")
                kind = f"(qhw_type){_type(m.container)}"
                lines.append(f"    qhw_fill({kind}, {m.channels}, {m.pixels}, {value}, {out});")
            lines += [f"    qhw_copy(&{name}_{i}, {read}, {out});" for i, read in enumerate(reads)]
        else:
            lines.append(f"    {step.kernel}(&{name}, {', '.join([*reads, out])});")
        m = self.layout.program.maps[step.writes]
        return [*lines, f"    qhw_end({index}, {out}, 1, {m.bytes}, 0);"]

    def patched(self, index: int, step: Step) -> list[str]:
        name = self.names[step.name]
        at = f"{name}_patches[patch]"
        reads = [
            f"{self.place(tensor)} + {at}.{which}"
            for tensor, which in zip(step.reads, ("in", "other"), strict=False)
        ]
        out = f"{self.place(step.writes)} + {at}.out"
        lines = [f"    qhw_begin({index});"]
        if isinstance(step.layer, ConvLayer):
            lines.append(
                f"    {step.kernel}(&{name}, &{at}.region, {reads[0]}, {out}, {self.scratch(step)});"
            )
        elif len(reads) == 2:
            lines.append(
                f"    {step.kernel}(&{name}, &{at}.region, {reads[0]}, {reads[1]}, "
                f"{at}.other_row_bytes, {out});"
            )
        else:
            lines.append(f"    {step.kernel}(&{name}, &{at}.region, {reads[0]}, {out});")
        pixel = self.layout.program.maps[step.writes].pixel_bytes
        region = f"{at}.region"
        return [
            *lines,
            f"    qhw_end({index}, {out}, {region}.out_height, {region}.out_width * {pixel}u, "
            f"{region}.out_row_bytes);",
        ]


def _region(call: Call) -> dict[str, Any]:
    fields = dict(
        zip(
            ("in_height", "in_width", "out_height", "out_width"),
            (*call.in_plane, *call.out_plane),
            strict=True,
        )
    )
    fields |= dict(zip(("pad_top", "pad_left"), call.pads, strict=True))
    return fields | {"in_row_bytes": call.rows[0], "out_row_bytes": call.rows[-1]}


def _places(call: Call) -> tuple[int, int, int, int]:
    """The offsets of a patch: in, other, the other's rows, out."""
    if len(call.rows) == 3:
        return call.offsets[0], call.offsets[1], call.rows[1], call.offsets[2]
    return call.offsets[0], 0, 0, call.offsets[1]


def _window(layer: ConvLayer | PoolLayer) -> dict[str, int]:
    pairs = {"kernel": layer.kernel, "stride": layer.strides, "dilation": layer.dilations}
    return {
        f"{what}_{side}": pair[axis]
        for what, pair in pairs.items()
        for axis, side in enumerate(("height", "width"))
    }


def _box(box: Box) -> dict[str, Any]:
    fields: dict[str, Any] = {"in": _type(box.x.container), "out": _type(box.out.container)}
    fields |= {"in_channels": box.x.channels, "out_channels": box.out.channels}
    for prefix, values in (("", box.size), ("in_", box.start), ("out_", box.to)):
        names = ("height", "width", "channels") if not prefix else ("row", "column", "channel")
        fields |= {prefix + name: value for name, value in zip(names, values, strict=True)}
    steps = zip(("row", "column", "channel"), box.step, strict=True)
    fields |= {f"in_{name}_step": value for name, value in steps}
    fields |= {f"out_{name}_step": value for name, value in zip(("row", "column"), box.to_step, strict=True)}
    return fields | {"in_row_bytes": box.x.row_bytes, "out_row_bytes": box.out.row_bytes}


def _type(container: Container) -> str:
    return f"{{{container.bits}, {int(container.is_signed)}}}"


def _plus(pointer: str, offset: int) -> str:
    return f"{pointer} + {offset}" if offset else pointer


def _braced(values: Sequence[Any]) -> str:
    return "{" + ", ".join(map(str, values)) + "}"


def _struct(fields: dict[str, Any]) -> str:
    """A designated initialiser."""
    return "{" + ", ".join(_shown(fields)) + "}"


def _shown(fields: dict[str, Any]) -> list[str]:
    """The fields of an initialiser; what is 0 is left out, since C makes it 0."""
    return [f".{name} = {value}" for name, value in fields.items() if value not in (0, "0")] or ["0"]


@dataclass
class _Counter(_Writer):
    """Writes nothing: it remembers which arrays there would be."""

    found: dict[str, int] = field(default_factory=dict)

    def numbers(self, name: str, values: Sequence[int] | IntArray, c_type: str) -> str:
        array = np.asarray(values).reshape(-1)
        try:
            memory = array.astype(np.int64).tobytes()
        except OverflowError:  # unsigned, of 64 bits
            memory = repr(array.tolist()).encode()
        self.found[f"{c_type} {hashlib.sha256(memory).hexdigest()}"] = _size(c_type) * array.size
        return name

    def struct(self, c_type: str, name: str, fields: dict[str, Any]) -> None:
        pass

    def regions(self, step: Step, name: str) -> None:
        pass


def _size(c_type: str) -> int:
    """Bytes of a number of a C type."""
    return int(re.search(r"\d+", c_type).group()) // 8  # type: ignore[union-attr]


def _literal(value: int, c_type: str) -> str:
    """A number as C writes it; the lowest one of a type has no literal of its own."""
    if c_type in ("int64_t", "uint64_t"):
        if value == -(1 << 63):
            return f"(-INT64_C({(1 << 63) - 1}) - 1)"
        return f"{'U' if c_type[0] == 'u' else ''}INT64_C({value})" if abs(value) >= 1 << 31 else str(value)
    if c_type == "int32_t" and value == -(1 << 31):
        return f"(-{(1 << 31) - 1} - 1)"
    return str(value)


def _wrapped(texts: Sequence[str]) -> list[str]:
    lines, line = [], "   "
    for text in texts:
        if len(line) + len(text) + 2 > _WIDTH:
            lines.append(line)
            line = "   "
        line += f" {text},"
    return [*lines, line] if line.strip() else lines
