"""Forward and backward of an E4M3 quantizer on 4 M elements: ours against Brevitas's float quantizer.

Both quantize the same numbers at the same power-of-two scale; that both give the same values, bit for bit, is
asserted. Input gradients differ on purpose: Brevitas's go through floor(log2 |x|) too, ours straight through.
Rounds are interleaved; medians are reported.

    python benchmarks/minifloat_kernels.py [--rounds 9] [--elements 4194304]
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
from brevitas import nn as qnn
from brevitas.core.function_wrapper import CeilSte
from brevitas.quant.float_quant_ocp import Fp8e4m3OCPActPerTensorFloat
from quantizer_kernels import eagerly, measure, step
from torch import nn

from qhw.formats import TableFormat, parse_format
from qhw.quantizers import RELU, TableQuantizer

RESULT = Path(__file__).parent / "results" / "minifloat_kernels.md"


class Fp8(Fp8e4m3OCPActPerTensorFloat):
    """Brevitas's OCP E4M3, its scale a power of two."""

    restrict_scaling_type = "power_of_two"
    restrict_value_float_to_int_impl = CeilSte


class Ours(nn.Module):
    """A quantizer of ours at a given scale, as a layer."""

    def __init__(self, text: str, relu: bool, scale_exponent: int) -> None:
        super().__init__()
        spec = parse_format(text)
        assert isinstance(spec, TableFormat)
        self.quantizer = TableQuantizer(spec, **({"activation": RELU} if relu else {}))
        with torch.no_grad():
            self.quantizer.theta.fill_(-scale_exponent - spec.exponent)
            self.quantizer.started.fill_(True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.quantizer.quantize(x)


def benchmark(rounds: int, elements: int) -> list[str]:
    """The table's lines."""
    torch.manual_seed(0)
    x, grad = torch.randn(elements), torch.randn(elements)
    lines = [
        "| quantizer | Brevitas | compiled | eager | Brevitas / compiled |",
        "|---|---:|---:|---:|---:|",
    ]
    for title, relu in (("e4m3fn", False), ("ReLU + e4m3fn", True)):
        theirs = (qnn.QuantReLU if relu else qnn.QuantIdentity)(act_quant=Fp8)
        theirs(x)  # past its collection of statistics, which would cost more
        scale = float(theirs.eval().act_quant.scale())
        ours = Ours("e4m3fn", relu, round(math.log2(scale)))
        assert torch.equal(step(ours, x, grad)[0], step(theirs, x, grad)[0])
        times = measure(
            {
                "Brevitas": lambda layer=theirs: step(layer, x, grad),
                "compiled": lambda layer=ours: step(layer, x, grad),
                "eager": eagerly(lambda layer=ours: step(layer, x, grad)),
            },
            rounds,
        )
        shown = " | ".join(f"{value:.1f} ms" for value in times.values())
        lines.append(f"| {title} | {shown} | {times['Brevitas'] / times['compiled']:.1f}x |")
    khot = Ours("khot<8,2>", relu=False, scale_exponent=-5)
    time = measure({"compiled": lambda: step(khot, x, grad)}, rounds)["compiled"]
    lines.append(f"| khot<8,2> | (has none) | {time:.1f} ms | | |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--elements", type=int, default=1 << 22)
    options = parser.parse_args()
    lines = [
        "# Minifloat quantizer, forward and backward",
        "",
        f"{options.elements:,} float32 elements, {torch.get_num_threads()} threads, median of "
        f"{options.rounds} interleaved rounds; same values, bit for bit.",
        "",
        *benchmark(options.rounds, options.elements),
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
