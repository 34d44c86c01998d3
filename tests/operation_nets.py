"""Small networks around one operation each, for all that conversion carries beside chains of layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812
from torch_nets import Net, Shape


def around(operation: Callable[[Tensor], Tensor], channels: int = 4, **layers: nn.Module) -> Net:
    """A convolution, a function of its result, and nothing behind it."""
    return Net(lambda m, x: operation(m.conv(x)), conv=nn.Conv2d(2, channels, 3, padding=1), **layers)


def layer(operation: nn.Module) -> Net:
    return Net(lambda m, x: m.op(m.conv(x)), conv=nn.Conv2d(2, 4, 3, padding=1), op=operation)


def one_axis(operation: nn.Module) -> Net:
    return Net(lambda m, x: m.op(m.conv(x)), conv=nn.Conv1d(2, 4, 3, padding=1), op=operation)


def two(operation: Callable[[Tensor, Tensor], Tensor]) -> Net:
    """A function of two convolutions' results."""
    return Net(
        lambda m, x: operation(m.a(x), m.b(x)),
        a=nn.Conv2d(2, 4, 3, padding=1),
        b=nn.Conv2d(2, 4, 1),
    )


def with_parameter(operation: Callable[[Tensor, Tensor], Tensor], shape: Shape) -> Net:
    """A function of a convolution's result and a trained parameter."""
    net = Net(lambda m, x: operation(m.conv(x), m.constant), conv=nn.Conv2d(2, 4, 3, padding=1))
    net.constant = nn.Parameter(torch.linspace(0.5, 1.5, int(torch.tensor(shape).prod())).reshape(shape))
    return net


class Gated(nn.Module):
    """Squeeze and excite: channels times a gate of their means."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.act = nn.Conv2d(2, 4, 3, padding=1), nn.Hardswish()
        self.down, self.up = nn.Conv2d(4, 2, 1), nn.Conv2d(2, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.act(self.conv(x))
        gate = F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.up(gate)).expand_as(x)


class Shuffled(nn.Module):
    """Half of the channels go on, and both halves are mixed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.branch = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        a, b = torch.relu(self.conv(x)).chunk(2, dim=1)
        x = torch.cat((a, torch.relu(self.branch(b))), 1)
        n, c, h, w = x.shape
        return x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


IMAGE, LINE = (2, 8, 8), (2, 12)

FUNCTION_LAYERS: dict[str, nn.Module] = {
    "sigmoid": nn.Sigmoid(),
    "tanh": nn.Tanh(),
    "silu": nn.SiLU(),
    "gelu": nn.GELU(),
    "gelu tanh": nn.GELU(approximate="tanh"),
    "mish": nn.Mish(),
    "hardswish": nn.Hardswish(),
    "hardsigmoid": nn.Hardsigmoid(),
    "hardtanh": nn.Hardtanh(-0.75, 1.25),
    "elu": nn.ELU(0.7),
    "selu": nn.SELU(),
    "celu": nn.CELU(1.5),
    "softplus": nn.Softplus(),
    "softsign": nn.Softsign(),
    "logsigmoid": nn.LogSigmoid(),
    "tanhshrink": nn.Tanhshrink(),
    "threshold": nn.Threshold(0.3, 0.0),
}

FUNCTIONS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    **{name: (lambda op=op: layer(op), IMAGE) for name, op in FUNCTION_LAYERS.items()},
    "exp": (lambda: around(torch.exp), IMAGE),
    "abs": (lambda: around(lambda x: x.abs()), IMAGE),
    "erf": (lambda: around(torch.erf), IMAGE),
    "square": (lambda: around(lambda x: x**2 + x * x), IMAGE),
    "functional": (lambda: around(lambda x: F.gelu(F.silu(x)) + F.hardswish(x).sigmoid()), IMAGE),
    "clamp": (lambda: around(lambda x: x.clamp(-0.5, 0.5)), IMAGE),
    "clamp below": (lambda: around(lambda x: torch.clamp(x, min=-0.25)), IMAGE),
}
"""Element-wise functions."""

EXACT: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "transposed": (lambda: layer(nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1)), IMAGE),
    "transposed groups": (lambda: layer(nn.ConvTranspose2d(4, 6, (2, 3), stride=(2, 1), groups=2)), IMAGE),
    "transposed depthwise": (
        lambda: layer(nn.ConvTranspose2d(4, 4, 4, stride=2, padding=1, groups=4, bias=False)),
        IMAGE,
    ),
    "transposed dilated": (lambda: layer(nn.ConvTranspose2d(4, 2, 3, dilation=2)), IMAGE),
    "transposed line": (lambda: one_axis(nn.ConvTranspose1d(4, 2, 4, stride=2, padding=1)), LINE),
    "transposed norm": (
        lambda: layer(nn.Sequential(nn.ConvTranspose2d(4, 3, 2, stride=2), nn.BatchNorm2d(3), nn.ReLU())),
        IMAGE,
    ),
    "nearest": (lambda: layer(nn.Upsample(scale_factor=2)), IMAGE),
    "nearest sides": (lambda: around(lambda x: F.interpolate(x, size=(16, 24))), IMAGE),
    "nearest line": (lambda: one_axis(nn.Upsample(scale_factor=3)), LINE),
    "nearest smaller": (lambda: around(lambda x: F.interpolate(x, scale_factor=0.5)), IMAGE),
    "bilinear": (lambda: layer(nn.Upsample(scale_factor=2, mode="bilinear")), IMAGE),
    "bilinear sides": (
        lambda: around(lambda x: F.interpolate(x, scale_factor=(4, 2), mode="bilinear", align_corners=False)),
        IMAGE,
    ),
    "linear": (lambda: one_axis(nn.Upsample(scale_factor=2, mode="linear")), LINE),
    "area": (lambda: around(lambda x: F.interpolate(x, size=4, mode="area")), IMAGE),
    "pixel shuffle": (lambda: layer(nn.PixelShuffle(2)), IMAGE),
    "pixel unshuffle": (lambda: layer(nn.PixelUnshuffle(2)), IMAGE),
    "channel shuffle": (lambda: layer(nn.ChannelShuffle(2)), IMAGE),
    "prelu": (lambda: layer(nn.PReLU()), IMAGE),
    "prelu channels": (lambda: layer(nn.PReLU(4, init=0.3)), IMAGE),
    "leaky": (lambda: layer(nn.LeakyReLU(0.1)), IMAGE),
    "leaky norm": (lambda: layer(nn.Sequential(nn.BatchNorm2d(4), nn.LeakyReLU(0.2))), IMAGE),
    "split": (
        lambda: around(lambda x: torch.cat((x.split([1, 3], 1)[1], x.chunk(2, 3)[0].repeat(1, 1, 1, 2)), 1)),
        IMAGE,
    ),
    "unbind": (lambda: around(lambda x: torch.stack((x.unbind(1)[2], x.unbind(1)[0]), 1)), IMAGE),
    "cat rows": (lambda: two(lambda a, b: torch.cat((a, b.relu()), dim=2)), IMAGE),
    "cat columns": (lambda: two(lambda a, b: torch.cat((a.relu(), b.relu()), dim=-1)), IMAGE),
    "stack": (lambda: two(lambda a, b: torch.stack((a, b), 2).flatten(1, 2)), IMAGE),
    "slices": (lambda: around(lambda x: x[:, 1:, ::2, -5:] + x[:, :3, 1::2, :5]), IMAGE),
    "one channel": (lambda: around(lambda x: x[:, 2][:, None] + x[..., 1:2, :].sum(1, True)), IMAGE),
    "select": (lambda: around(lambda x: x.select(2, 1).narrow(2, 1, 4)), IMAGE),
    "half": (lambda: around(lambda x: x[:, :, : x.size(2) // 2]), IMAGE),
    "largest pool": (lambda: layer(nn.AdaptiveMaxPool2d(1)), IMAGE),
    "adaptive max pool": (lambda: layer(nn.AdaptiveMaxPool2d((2, 4))), IMAGE),
    "adaptive max line": (lambda: one_axis(nn.AdaptiveMaxPool1d(3)), LINE),
    "ceil mode": (lambda: layer(nn.MaxPool2d(3, 2, ceil_mode=True)), IMAGE),
    "amax": (lambda: around(lambda x: x.amax((2, 3))), IMAGE),
    "channel max": (lambda: around(lambda x: x.max(1, keepdim=True)[0] + x.amax(1, keepdim=True)), IMAGE),
    "max values": (lambda: around(lambda x: x.max(dim=3).values), IMAGE),
    "adaptive mean": (lambda: layer(nn.AdaptiveAvgPool2d((2, 4))), IMAGE),
    "product": (lambda: two(lambda a, b: a * b.relu()), IMAGE),
    "channel gate": (lambda: two(lambda a, b: a * b.mean((2, 3), keepdim=True)), IMAGE),
    "pixel gate": (lambda: two(lambda a, b: torch.mul(b.amax(1, keepdim=True), a)), IMAGE),
    "difference": (lambda: two(lambda a, b: torch.sub(a, b).relu()), IMAGE),
    "broadcast sum": (lambda: two(lambda a, b: a + b.mean((2, 3), keepdim=True)), IMAGE),
    "broadcast difference": (lambda: two(lambda a, b: a.sum((2, 3), keepdim=True) - b), IMAGE),
    "negative": (lambda: around(lambda x: -x), IMAGE),
    "constants": (lambda: around(lambda x: (3 - 2 * x) / 5 + 0.25), IMAGE),
    "in place": (lambda: around(lambda x: x.mul_(1.5).add_(0.5)), IMAGE),
    "input scaled": (lambda: Net(lambda m, x: m.conv((x - 0.5) / 0.25), conv=nn.Conv2d(2, 4, 3)), IMAGE),
    "layer scale": (lambda: with_parameter(lambda x, p: x * p.view(1, -1, 1, 1), (4,)), IMAGE),
    "layer shift": (lambda: with_parameter(lambda x, p: x - p, (4, 1, 1)), IMAGE),
    "position": (lambda: with_parameter(lambda x, p: x + p, (1, 1, 8, 8)), IMAGE),
    "over channels": (lambda: around(lambda x: x.mean(1, keepdim=True)), IMAGE),
    "over rows": (lambda: around(lambda x: x.sum(2)), IMAGE),
    "mean of three": (lambda: around(lambda x: x.mean((1, 2, 3), keepdim=True), channels=3), IMAGE),
    "permuted": (lambda: around(lambda x: x.permute(0, 2, 3, 1).contiguous().flatten(1, 2).mT), IMAGE),
    "transposes": (lambda: around(lambda x: x.transpose(1, 2).movedim(3, 1).swapaxes(2, 3)), IMAGE),
    "views": (lambda: around(lambda x: x.view(x.size(0), 2, -1).squeeze(0).unflatten(2, (8, 16))), IMAGE),
    "padded": (lambda: around(lambda x: F.pad(x, (1, 2, 0, 1))), IMAGE),
    "padded with": (lambda: around(lambda x: F.pad(x, (1, 0), value=0.6)), IMAGE),
    "zero pad": (
        lambda: layer(nn.Sequential(nn.ReLU(), nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(4, 2, 3))),
        IMAGE,
    ),
    "matrix product": (
        lambda: two(lambda a, b: a.flatten(2) @ b.flatten(2).transpose(1, 2)),
        IMAGE,
    ),
    "batched product": (lambda: two(lambda a, b: torch.bmm(a.flatten(2).mT, b.flatten(2)).relu()), IMAGE),
    "linear over rows": (
        lambda: Net(lambda m, x: m.mix(m.conv(x).flatten(2)), conv=nn.Conv2d(2, 4, 1), mix=nn.Linear(64, 5)),
        IMAGE,
    ),
    "functional layers": (
        lambda: Net(
            lambda m, x: F.linear(
                F.conv2d(x, m.conv.weight, m.conv.bias, padding=1).flatten(1), m.head.weight
            ),
            conv=nn.Conv2d(2, 4, 3),
            head=nn.Linear(256, 3),
        ),
        IMAGE,
    ),
    "repeated": (lambda: around(lambda x: x.repeat(1, 2, 1, 3)), IMAGE),
    "interleaved": (lambda: around(lambda x: x.repeat_interleave(2, 3)), IMAGE),
    "shuffled": (Shuffled, IMAGE),
    "default argument": (
        lambda: Net(lambda m, x: m.conv(x.float().clone()), conv=nn.Conv2d(2, 3, 3)),
        IMAGE,
    ),
}
"""Operations whose every number is exact: products, sums and moves."""

EXACT_AND_FUNCTIONS = {**EXACT, **FUNCTIONS, "gated": (Gated, IMAGE)}
