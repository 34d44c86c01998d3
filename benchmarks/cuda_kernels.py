"""The Triton quantizer kernels on a GPU: their bits against eager's on the CPU, their time against Brevitas's.

First bits, with ==: every rounding, overflow, activation, kind of format and memory order, on random numbers
and on ties, zeros, denormals, the largest numbers, infinities and NaN. Then, on 64 M elements, forward and
backward of an 8-bit quantizer with a trained scale, ours and Brevitas's in turns, and the share of a copy's
bandwidth that ours reaches (it moves five tensors: forward reads one and writes one, backward reads two and
writes one). Medians of rounds in turns, timed by the GPU.

Targets: at least 8 times as fast as Brevitas, and 80 % of the copy's bandwidth.

This and the training benchmark, on a bare machine with a GPU, in under 8 minutes:

    bash -c 'python -m pip install -qc constraints.txt -e ".[train]" && python benchmarks/cuda_kernels.py --json && python benchmarks/cuda_training.py --json'
"""  # noqa: E501

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from collections.abc import Callable

import torch
from brevitas import nn as qnn
from brevitas.quant import Int8ActPerTensorFixedPoint, Uint8ActPerTensorFixedPoint
from quantizer_kernels import pair, step
from torch import Tensor

from qhw.formats import parse_format
from qhw.formats.modes import Overflow, Rounding
from qhw.quantizers import IDENTITY, RELU, RELU6, Rule, kernels, leaky_relu
from qhw.quantizers.kernels import eager
from qhw.quantizers.kernels.problem import Operands, same_order, units_of

TABLE_FORMATS = ("e4m3", "e5m2", "e2m1", "e3m0", "khot<8,2>", "khot<6,2,csd>", "pow2<4>", "binary", "ternary")
SHAPES: tuple[tuple[tuple[int, ...], int | None], ...] = (
    ((100_003,), None),
    ((64, 333), 1),
    ((48, 16, 3, 3), 0),
    ((8, 24, 33, 31), 1),
    ((3, 5, 7, 4099), 2),
)
"""Shapes with the axis of their channels."""


def require_gpu() -> str:
    """The GPU's name; ends the script with one message where there is none."""
    if not torch.cuda.is_available():
        sys.exit(f"no CUDA device: PyTorch {torch.__version__} sees none, and this script measures one")
    return torch.cuda.get_device_name()


def rules() -> list[Rule]:
    """Every mode with every activation, every kind of format, and free scales."""
    activations = (IDENTITY, RELU, RELU6, leaky_relu(0.125))
    modes = itertools.product(Rounding, Overflow, activations, (False, True))
    fixed = [Rule(7, True, r, o, activation, passes) for r, o, activation, passes in modes]
    listed = [Rule.of(parse_format(text), a) for text in TABLE_FORMATS for a in (IDENTITY, RELU)]
    free = [Rule(width, signed, free=True) for width in (1, 8, 24) for signed in (False, True)]
    return [*fixed, *listed, *free, Rule.of(parse_format("e4m3"), free=True)]


def numbers(shape: tuple[int, ...], dtype: torch.dtype, seed: int) -> Tensor:
    """Random numbers, half of them quarters (ties and whole numbers), with edge cases strewn in."""
    generator = torch.Generator().manual_seed(seed)
    fine = torch.randn(shape, generator=generator, dtype=dtype) * 6
    quarters = torch.randint(-300, 300, shape, generator=generator).to(dtype) / 4
    x = torch.where(torch.rand(shape, generator=generator) < 0.5, fine, quarters)
    limits = torch.finfo(dtype)
    edges = [0.0, limits.tiny, limits.tiny / 2, limits.smallest_normal * 2.0**-20, limits.max, limits.max / 4]
    edges += [float("inf"), float("nan"), 2.0**23, 2.0**23 - 1, 2.0**22 - 0.5, 2.0**52, 2.0**31, 1e10]
    edges += [0.5 - limits.eps / 4, 0.5 + limits.eps / 2, 1 - limits.eps / 2]
    both = torch.tensor([*edges, *(-edge for edge in edges)], dtype=dtype)
    places = torch.randperm(x.numel(), generator=generator)[: len(both)]
    x.view(-1)[places] = both[: len(places)]
    return x


def same_bits(found: Tensor, expected: Tensor) -> bool:
    """Equal bits; of a NaN, that it is one."""
    found = found.cpu()
    integer = torch.int32 if expected.dtype == torch.float32 else torch.int64
    a, b = (torch.where(x.isnan(), 0.0, x).contiguous().view(integer) for x in (found, expected))
    return torch.equal(found.isnan(), expected.isnan()) and torch.equal(a, b)


def to_gpu(operands: Operands) -> Operands:
    parts = (operands.x, operands.other, operands.gain, operands.offset)
    return Operands(*(None if part is None else part.cuda() for part in parts), axis=operands.axis)


def problems(dtype: torch.dtype) -> list[tuple[Operands, Tensor]]:
    """Operands of every kind and memory order, each with a gradient."""
    found = []
    for seed, ((shape, axis), last) in enumerate(itertools.product(SHAPES, (False, True))):
        if last and not (len(shape) == 4 and axis == 1):
            continue
        x = numbers(shape, dtype, seed)
        x = x.contiguous(memory_format=torch.channels_last) if last else x
        grad = same_order(torch.randn(shape, dtype=dtype), x)
        found += [(Operands(x, axis=axis), grad), (Operands(x, same_order(x.flip(0), x), axis=axis), grad)]
        if axis is not None:
            gain = torch.randn(shape[axis], dtype=torch.float64).float().double()
            found.append((Operands(x, gain=gain, offset=gain.flip(0), axis=axis), grad))
    return found


def check(operands: Operands, grad: Tensor, rule: Rule) -> list[str]:
    """What differs between the GPU and eager on the CPU."""
    ours, there, there_grad = kernels.backend(torch.device("cuda")), to_gpu(operands), grad.cuda()
    channels = 1 if operands.axis is None else operands.x.shape[operands.axis]
    theta = torch.linspace(-2.0, 6.0, channels)
    unit = units_of(theta, rule)
    unit_there = kernels.unit_of(theta.cuda(), rule)
    differs = [] if same_bits(unit_there, torch.from_numpy(unit)) else ["unit"]
    unit_there = torch.from_numpy(unit).cuda()
    if not same_bits(ours.forward(there, unit_there, rule), eager.forward(operands, unit, rule)):
        differs.append("values")
    passed, sums = ours.backward(there, there_grad, unit_there, rule)
    expected, expected_sums = eager.backward(operands, grad, unit, rule)
    if not same_bits(passed, expected):
        differs.append("input gradient")
    if not torch.equal(sums, ours.backward(there, there_grad, unit_there, rule)[1]):
        differs.append("sums from run to run")
    finite = expected_sums.isfinite()
    if not torch.allclose(sums.cpu()[finite], expected_sums[finite], rtol=1e-6, atol=1e-3):
        differs.append("sums")
    if operands.gain is not None:
        constants = (operands.gain, operands.gain * 2)
        found = ours.affine_backward(there, there_grad, unit_there, rule, *(c.cuda() for c in constants))
        if not same_bits(found, eager.affine_backward(operands, grad, unit, rule, *constants)):
            differs.append("input gradient of the affine form")
    return differs


def check_all() -> dict[str, object]:
    """Every rule on a few problems of both types; what differs, by name."""
    failures, count = [], 0
    for dtype in (torch.float32, torch.float64):
        every = problems(dtype)
        for i, rule in enumerate(rules()):
            for operands, grad in (every[i % len(every)], every[(7 * i + 3) % len(every)]):
                count += 1
                if differs := check(operands, grad, rule):
                    failures.append(f"{rule} {dtype} {tuple(operands.x.shape)}: {', '.join(differs)}")
    return {"compared": count, "different": failures}


def measure(contestants: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median milliseconds of each by the GPU's clock, in turns after three warm-ups."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 3):
        for name, run in contestants.items():
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            run()
            end.record()
            end.synchronize()
            if turn >= 3:
                times[name].append(start.elapsed_time(end))
    return {name: statistics.median(found) for name, found in times.items()}


def time_all(elements: int, rounds: int) -> list[dict[str, object]]:
    """Ours, Brevitas's and a copy, per quantizer."""
    torch.manual_seed(0)
    x, grad = torch.randn(2, elements, device="cuda").unbind()
    copy = torch.empty_like(x)
    results: list[dict[str, object]] = []
    for title, layer, theirs, signed in (
        ("int8", qnn.QuantIdentity, Int8ActPerTensorFixedPoint, True),
        ("ReLU + uint8", qnn.QuantReLU, Uint8ActPerTensorFixedPoint, False),
    ):
        brevitas_layer, ours = (part.cuda() for part in pair(layer, theirs, signed, x[: 1 << 20].cpu()))
        runs = [step(part, x, grad) for part in (ours, brevitas_layer)]
        equal = all(torch.equal(a.view(torch.int32), b.view(torch.int32)) for a, b in zip(*runs, strict=True))
        del runs
        times = measure(
            {
                "ours": lambda layer=ours: step(layer, x, grad),
                "brevitas": lambda layer=brevitas_layer: step(layer, x, grad),
                "copy": lambda: copy.copy_(x),
            },
            rounds,
        )
        share = (2.5 * times["copy"]) / times["ours"]  # a copy moves two tensors, a quantizer five
        results.append(
            {
                "quantizer": title,
                "bits_as_brevitas": equal,
                "milliseconds": times,
                "brevitas_over_ours": times["brevitas"] / times["ours"],
                "share_of_copy_bandwidth": share,
                "met": times["brevitas"] / times["ours"] >= 8.0 and share >= 0.8,
            }
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--elements", type=int, default=1 << 26)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    gpu = require_gpu()
    backend = type(kernels.backend(torch.device("cuda"))).__name__
    bits = check_all()
    timed = time_all(options.elements, options.rounds)
    if options.json:
        print(
            json.dumps(
                {"gpu": gpu, "torch": torch.__version__, "backend": backend, "bits": bits, "times": timed}
            )
        )
    else:
        print(f"{gpu}, PyTorch {torch.__version__}, backend {backend}")
        different = bits["different"]
        print(f"{bits['compared']} problems compared with eager on the CPU: {different or 'all bits equal'}")
        for row in timed:
            print(", ".join(f"{name} {value}" for name, value in row.items()))
    if bits["different"]:
        sys.exit(1)


if __name__ == "__main__":
    main()
