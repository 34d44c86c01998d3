"""Small plain networks that between them hold every layer that can be converted."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Shape = tuple[int, ...]


class Net(nn.Module):
    """Layers by name, and the forward pass as a function of the module and its input."""

    def __init__(self, forward: Callable[[nn.Module, Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = forward
        for name, layer in layers.items():
            self.add_module(name, layer)

    def forward(self, x: Tensor) -> Tensor:
        return self.run(self, x)


def _conv_kinds() -> Net:
    return Net(
        lambda m, x: m.last(m.act(m.depthwise(m.dilated(m.strided(x))))),
        strided=nn.Conv2d(2, 6, 3, stride=(2, 1), padding=(1, 2)),
        dilated=nn.Conv2d(6, 6, 3, dilation=(1, 2), padding="same", groups=3, bias=False),
        depthwise=nn.Conv2d(6, 12, (1, 3), groups=6),
        act=nn.ReLU(),
        last=nn.Conv2d(12, 3, 1, padding="valid"),
    )


def _one_dimension() -> Net:
    return Net(
        lambda m, x: m.head(m.pool2(m.pool(m.act(m.norm(m.conv(x))))).flatten(1)),
        conv=nn.Conv1d(3, 8, 3, stride=2, padding=1),
        norm=nn.BatchNorm1d(8),
        act=nn.ReLU6(),
        pool=nn.MaxPool1d(3, 2, 1),
        pool2=nn.AvgPool1d(2),
        head=nn.Linear(16, 4),
    )


def _residual() -> Net:
    return Net(
        lambda m, x: m.body2(m.relu(m.norm(m.body1(m.relu(m.stem(x)))) + m.side(x)) + m.skip(m.stem(x))),
        stem=nn.Conv2d(2, 4, 3, padding=1),
        body1=nn.Conv2d(4, 4, 3, padding=1, bias=False),
        norm=nn.BatchNorm2d(4),
        side=nn.Conv2d(2, 4, 1),
        skip=nn.Identity(),
        relu=nn.ReLU(),
        body2=nn.Conv2d(4, 3, 3),
    )


def _pools() -> Net:
    return Net(
        lambda m, x: m.all(m.max(m.overlap(m.relu(m.conv(x)))) + m.down(m.conv(x))),
        conv=nn.Conv2d(2, 4, 3, padding=1),
        relu=nn.ReLU(),
        overlap=nn.AvgPool2d(3, 2, 1),
        max=nn.MaxPool2d(3, 1, 1, dilation=1),
        down=nn.AdaptiveAvgPool2d(4),
        all=nn.AdaptiveAvgPool2d((1, None)),
    )


class Branches(nn.Module):
    """Concatenations of like branches, of those results again, and of unlike ones."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 5, 1), nn.Conv2d(8, 4, 1)
        self.norm = nn.BatchNorm2d(5)
        self.pool = nn.MaxPool2d(2)
        self.head = nn.Linear(14 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([F.relu(self.a(x)), F.relu(self.norm(self.b(x)))], dim=1)
        z = torch.cat((y, F.relu(self.c(y))), 1)
        z = torch.cat((self.pool(z), self.pool(x)), dim=-3)
        return self.head(z.reshape(z.shape[0], -1))


class Functions(nn.Module):
    """The same layers as functions and methods."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.again = nn.Conv2d(4, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.leaky_relu(self.conv(input=x), 0.125)
        x = torch.add(self.again(x), x).relu()
        x = F.dropout(F.max_pool2d(x, 2, stride=2), 0.25, self.training)
        x = F.relu6(self.again(x)) + F.relu(self.again(x), inplace=True)
        x = F.avg_pool2d(x, 2)
        return self.head(x.mean(dim=(-2, -1)))


def _mlp() -> Net:
    return Net(
        lambda m, x: m.out(m.act(m.norm(m.hidden(m.flat(x))))),
        flat=nn.Flatten(),
        hidden=nn.Linear(2 * 8 * 8, 10, bias=False),
        norm=nn.BatchNorm1d(10),
        act=nn.LeakyReLU(0.25),
        out=nn.Linear(10, 3, bias=False),
    )


def _norm_first() -> Net:
    return Net(
        lambda m, x: m.end(m.norm(x)).view(x.size(0), 2, 2, -1),
        norm=nn.BatchNorm2d(2),
        end=nn.Conv2d(2, 4, 1),
    )


NETS: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "conv kinds": (_conv_kinds, (2, 8, 8)),
    "one dimension": (_one_dimension, (3, 16)),
    "residual": (_residual, (2, 8, 8)),
    "pools": (_pools, (2, 8, 8)),
    "branches": (Branches, (2, 8, 8)),
    "functions": (Functions, (2, 8, 8)),
    "mlp": (_mlp, (2, 8, 8)),
    "norm first": (_norm_first, (2, 8, 8)),
    "sequential": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(144, 3))
        ),
        (2, 8, 8),
    ),
}


def build(name: str, seed: int = 0) -> tuple[nn.Module, Shape]:
    """A network with weights, and batch norm statistics and constants, drawn from the seed."""
    make, shape = NETS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.weight, -1.5, 1.5)
                nn.init.uniform_(module.bias, -1, 1)
                module.running_mean.uniform_(-1, 1)
                module.running_var.uniform_(0.3, 2)
    return model.eval(), shape


def inputs(shape: Shape, count: int, seed: int = 1) -> Tensor:
    """Normal numbers, in multiples of 1/64."""
    noise = torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
    return (noise * 64).round() / 64
