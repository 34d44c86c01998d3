"""Forward and backward of an 8-bit fixed-point quantizer on 4 M elements: ours against Brevitas's.

Both run inside the same Brevitas layer, with a trained scale, on the same numbers; that both give the same
values and input gradients, bit for bit, is asserted. Rounds are interleaved; medians are reported.

    python benchmarks/quantizer_kernels.py [--rounds 15] [--elements 4194304]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from brevitas import nn as qnn
from brevitas.quant import Int8ActPerTensorFixedPoint, Uint8ActPerTensorFixedPoint
from torch import Tensor, nn

from qhw.formats.fixed import Fixed
from qhw.quantizers import activation_quantizer, kernels

RESULT = Path(__file__).parent / "results" / "quantizer_kernels.md"


def pair(layer: type[nn.Module], theirs: type, signed: bool, x: Tensor) -> tuple[nn.Module, nn.Module]:
    """Brevitas's layer, past its collection of statistics (it would cost more), and ours at its scale."""
    brevitas_layer = layer(act_quant=theirs)
    brevitas_layer(x)
    scale = brevitas_layer.eval().act_quant.scale().detach()
    ours = layer(act_quant=activation_quantizer(Fixed(8, signed=signed)))
    ours(x)
    ours.act_quant.quantizer.theta.data.fill_(-math.log2(float(scale)))
    return brevitas_layer, ours


def step(layer: nn.Module, x: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
    """One forward and backward pass; values and input gradient."""
    x = x.detach().requires_grad_()
    y = layer(x)
    y.backward(grad)
    assert x.grad is not None
    return y.detach(), x.grad


def measure(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each, measured in turns after one warm-up."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    return {name: 1e3 * statistics.median(times) for name, times in seconds.items()}


def eagerly(run: Callable[[], object]) -> Callable[[], object]:
    def run_eagerly() -> object:
        with kernels.use_eager():
            return run()

    return run_eagerly


def benchmark(rounds: int, elements: int) -> list[str]:
    """The table's lines."""
    torch.manual_seed(0)
    x, grad = torch.randn(elements), torch.randn(elements)
    lines = [
        "| quantizer | Brevitas | compiled | eager | Brevitas / compiled |",
        "|---|---:|---:|---:|---:|",
    ]
    for title, layer, theirs, signed in (
        ("int8 (QuantIdentity)", qnn.QuantIdentity, Int8ActPerTensorFixedPoint, True),
        ("ReLU + uint8 (QuantReLU)", qnn.QuantReLU, Uint8ActPerTensorFixedPoint, False),
    ):
        brevitas_layer, ours = pair(layer, theirs, signed, x)
        for found, expected in zip(step(ours, x, grad), step(brevitas_layer, x, grad), strict=True):
            assert torch.equal(found.view(torch.int32), expected.view(torch.int32))
        run = lambda layer=ours: step(layer, x, grad)  # noqa: E731
        times = measure(
            {
                "Brevitas": lambda layer=brevitas_layer: step(layer, x, grad),
                "compiled": run,
                "eager": eagerly(run),
            },
            rounds,
        )
        shown = " | ".join(f"{value:.1f} ms" for value in times.values())
        lines.append(f"| {title} | {shown} | {times['Brevitas'] / times['compiled']:.1f}x |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--elements", type=int, default=1 << 22)
    options = parser.parse_args()
    lines = [
        "# Fixed-point quantizer, forward and backward",
        "",
        f"{options.elements:,} float32 elements, {torch.get_num_threads()} threads, median of "
        f"{options.rounds} interleaved rounds; same values and input gradients, bit for bit.",
        "",
        *benchmark(options.rounds, options.elements),
        "",
        f"Compiling the kernels took {kernels.status().compile_seconds:.1f} s (once per machine).",
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
