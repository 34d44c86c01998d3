"""Forward and backward of an E4M3 quantizer on 4 M elements: ours against Brevitas's float quantizer.

Both quantize the same numbers at the same scale, a power of two or any number; that both give the same
values, bit for bit, is asserted. Input gradients differ on purpose: Brevitas's go through floor(log2 |x|)
too, ours straight through. Rounds are interleaved; medians are reported, and the least and the largest ratio
of a single round.

    python benchmarks/minifloat_kernels.py [--rounds 9] [--elements 4194304]
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from brevitas import nn as qnn
from brevitas.core.function_wrapper import CeilSte
from brevitas.quant.float_quant_ocp import Fp8e4m3OCPActPerTensorFloat
from quantizer_kernels import eagerly, step
from torch import nn

from qhw.formats import TableFormat, parse_format
from qhw.quantizers import RELU, TableQuantizer

RESULT = Path(__file__).parent / "results" / "minifloat_kernels.md"


class PowerOfTwoFp8(Fp8e4m3OCPActPerTensorFloat):
    """Brevitas's OCP E4M3, its scale a power of two."""

    restrict_scaling_type = "power_of_two"
    restrict_value_float_to_int_impl = CeilSte


class Ours(nn.Module):
    """A quantizer of ours at a given scale, as a layer."""

    def __init__(self, text: str, relu: bool, scale: float) -> None:
        super().__init__()
        spec = parse_format(text)
        assert isinstance(spec, TableFormat)
        settings = {"activation": RELU} if relu else {}
        self.quantizer = TableQuantizer(spec, free=not math.log2(scale).is_integer(), **settings)
        # In float64, which tells any two float32 scales apart.
        theta = torch.tensor(-math.log2(scale) - spec.exponent, dtype=torch.float64)
        self.quantizer.theta = nn.Parameter(theta)
        self.quantizer.started.fill_(True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.quantizer.quantize(x)


def benchmark(rounds: int, elements: int) -> list[str]:
    """The table's lines."""
    torch.manual_seed(0)
    x, grad = torch.randn(elements), torch.randn(elements)
    lines = [
        "| quantizer | scale | Brevitas | compiled | eager | Brevitas / compiled | in single rounds |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    powers, free = ("power of two", PowerOfTwoFp8), ("any number", Fp8e4m3OCPActPerTensorFloat)
    for (kind, fp8), relu in itertools.product((powers, free), (False, True)):
        theirs = (qnn.QuantReLU if relu else qnn.QuantIdentity)(act_quant=fp8)
        theirs(x)  # past its collection of statistics, which would cost more
        scale = float(theirs.eval().act_quant.scale())
        ours = Ours("e4m3fn", relu, scale)
        assert ours.quantizer.is_free == (kind == "any number")
        assert torch.equal(step(ours, x, grad)[0], step(theirs, x, grad)[0])
        rounds_of = measure_rounds(
            {
                "Brevitas": lambda layer=theirs: step(layer, x, grad),
                "compiled": lambda layer=ours: step(layer, x, grad),
                "eager": eagerly(lambda layer=ours: step(layer, x, grad)),
            },
            rounds,
        )
        times = {name: statistics.median(values) for name, values in rounds_of.items()}
        single = [a / b for a, b in zip(rounds_of["Brevitas"], rounds_of["compiled"], strict=True)]
        shown = " | ".join(f"{value:.1f} ms" for value in times.values())
        title = f"{'ReLU + ' if relu else ''}e4m3fn | {kind}"
        ratio = times["Brevitas"] / times["compiled"]
        lines.append(f"| {title} | {shown} | {ratio:.1f}x | {min(single):.1f}x to {max(single):.1f}x |")
    khot = Ours("khot<8,2>", relu=False, scale=2.0**-5)
    (values,) = measure_rounds({"compiled": lambda: step(khot, x, grad)}, rounds).values()
    lines.append(f"| khot<8,2> | power of two | (has none) | {statistics.median(values):.1f} ms | | | |")
    return lines


def measure_rounds(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each in every round, measured in turns after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(1e3 * (time.perf_counter() - start))
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--elements", type=int, default=1 << 22)
    options = parser.parse_args()
    table = benchmark(options.rounds, options.elements)
    lines = [
        "# Minifloat quantizer, forward and backward",
        "",
        f"{options.elements:,} float32 elements, {torch.get_num_threads()} threads, median of "
        f"{options.rounds} interleaved rounds; same values, bit for bit. The machine's load average was "
        f"{os.getloadavg()[0]:.1f}.",
        "",
        *table,
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
