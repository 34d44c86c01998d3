"""Twenty common plain torch networks, small, through `qhw.convert` and `qhw.export`."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

from zoo.entries import Entry, Kind

Build = Callable[[], nn.Module]
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


def conv(i: int, o: int, k: int = 3, act: type[nn.Module] | None = nn.ReLU, **kw: int) -> nn.Sequential:
    """A convolution, its batch norm and activation."""
    layers = [nn.Conv2d(i, o, k, padding=k // 2, bias=False, **kw), nn.BatchNorm2d(o)]
    return nn.Sequential(*layers, *([act()] if act else []))


def classifier(channels: int, classes: int = 10) -> nn.Sequential:
    """The usual head: global average pool, flatten, linear."""
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


class Residual(nn.Module):
    """A branch beside a shortcut, added up, an activation behind."""

    def __init__(
        self, body: nn.Module, shortcut: nn.Module | None = None, act: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut or nn.Identity()
        self.act = act or nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.body(x) + self.shortcut(x))


def basic(i: int, o: int, stride: int = 1) -> Residual:
    """ResNet's block of two convolutions."""
    shortcut = None if i == o and stride == 1 else conv(i, o, 1, None, stride=stride)
    return Residual(nn.Sequential(conv(i, o, stride=stride), conv(o, o, act=None)), shortcut, nn.ReLU())


def bottleneck(i: int, o: int, groups: int = 1) -> Residual:
    """ResNet50's block of three convolutions, ResNeXt's with groups."""
    body = nn.Sequential(conv(i, o // 4, 1), conv(o // 4, o // 4, groups=groups), conv(o // 4, o, 1, None))
    return Residual(body, None if i == o else conv(i, o, 1, None), nn.ReLU())


def inverted(i: int, o: int, stride: int, act: type[nn.Module], squeeze: bool = False) -> nn.Module:
    """MobileNetV2's block; with squeeze and excitation that of MobileNetV3 and EfficientNet."""
    middle = i * 4
    layers: list[nn.Module] = [
        conv(i, middle, 1, act),
        conv(middle, middle, 3, act, stride=stride, groups=middle),
    ]
    layers += [SqueezeExcite(middle)] if squeeze else []
    body = nn.Sequential(*layers, conv(middle, o, 1, None))
    return Residual(body) if i == o and stride == 1 else body


class SqueezeExcite(nn.Module):
    """Channels scaled by a small network of their means."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.reduce, self.expand = (
            nn.Conv2d(channels, channels // 4, 1),
            nn.Conv2d(channels // 4, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        scale = F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)))
        return x * torch.sigmoid(self.expand(scale))


class Shuffle(nn.Module):
    """ShuffleNetV2's unit: half of the channels through a branch, then shuffled."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(half, half, 1), conv(half, half, 3, None, groups=half), conv(half, half, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        left, right = x.chunk(2, dim=1)
        y = torch.cat([left, self.branch(right)], dim=1)
        n, c, h, w = y.shape
        return y.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)


class Dense(nn.Module):
    """DenseNet's layer: what it computes is appended."""

    def __init__(self, i: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(i), nn.ReLU(), nn.Conv2d(i, growth, 3, padding=1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], 1)


class Branches(nn.Module):
    """Several modules beside one another, concatenated: Inception's and SqueezeNet's."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


class UNet(nn.Module):
    """Two levels, upsampled or by transposed convolution, skips concatenated."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.down1, self.down2, self.middle = conv(3, 8), conv(8, 16), conv(16, 16)
        up = nn.ConvTranspose2d(16, 16, 2, stride=2) if transposed else nn.Upsample(scale_factor=2)
        self.up, self.pool = up, nn.MaxPool2d(2)
        self.merge, self.last = conv(32, 8), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        skip = self.down2(self.down1(x))
        y = self.up(self.middle(self.pool(skip)))
        return self.last(self.merge(torch.cat([y, skip], 1)))


class ConvNeXtBlock(nn.Module):
    """Depthwise 7x7, LayerNorm over channels, two linear layers with GELU."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels)
        self.grow, self.act, self.shrink = (
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            nn.Linear(4 * channels, channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + self.shrink(self.act(self.grow(y))).permute(0, 3, 1, 2)


def _mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)
    )


def _mlp_norm() -> nn.Module:
    layers = [
        nn.Linear(16, 64),
        nn.BatchNorm1d(64),
        nn.ReLU(),
        nn.Dropout(0.1),
        nn.Linear(64, 5),
        nn.Softmax(-1),
    ]
    return nn.Sequential(*layers)


def _autoencoder() -> nn.Module:
    sizes = (64, 32, 8, 32, 64)
    layers: list[nn.Module] = []
    for i, o in itertools.pairwise(sizes):
        layers += [nn.Linear(i, o), nn.BatchNorm1d(o), nn.ReLU()]
    return nn.Sequential(*layers[:-2])


def _lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.Tanh(),
        nn.Linear(120, 84),
        nn.Tanh(),
        nn.Linear(84, 10),
    )


def _vgg() -> nn.Module:
    pool = nn.MaxPool2d(2)
    return nn.Sequential(
        conv(3, 16), conv(16, 16), pool, conv(16, 32), pool, nn.Flatten(), nn.Linear(2048, 10)
    )


def _alexnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 16, 5, stride=2, padding=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(),
        nn.Linear(32, 10),
    )


def _resnet8() -> nn.Module:
    return nn.Sequential(conv(3, 16), basic(16, 16), basic(16, 32, 2), basic(32, 64, 2), classifier(64))


def _resnet50() -> nn.Module:
    return nn.Sequential(conv(3, 16), bottleneck(16, 32), bottleneck(32, 32), classifier(32))


def _resnext() -> nn.Module:
    return nn.Sequential(conv(3, 16), bottleneck(16, 64, 4), bottleneck(64, 64, 4), classifier(64))


def _mobilenet1() -> nn.Module:
    blocks = [
        nn.Sequential(conv(i, i, groups=i, stride=s), conv(i, o, 1)) for i, o, s in ((8, 16, 1), (16, 32, 2))
    ]
    return nn.Sequential(conv(3, 8, stride=2), *blocks, classifier(32))


def _mobilenet2() -> nn.Module:
    blocks = inverted(8, 8, 1, nn.ReLU6), inverted(8, 16, 2, nn.ReLU6)
    return nn.Sequential(
        conv(3, 8, act=nn.ReLU6, stride=2), *blocks, conv(16, 32, 1, nn.ReLU6), classifier(32)
    )


def _mobilenet3() -> nn.Module:
    blocks = inverted(8, 8, 1, nn.ReLU, True), inverted(8, 16, 2, nn.Hardswish, True)
    return nn.Sequential(conv(3, 8, act=nn.Hardswish, stride=2), *blocks, classifier(16))


def _efficientnet() -> nn.Module:
    blocks = inverted(8, 8, 1, nn.SiLU, True), inverted(8, 16, 2, nn.SiLU, True)
    return nn.Sequential(conv(3, 8, act=nn.SiLU, stride=2), *blocks, classifier(16))


def _squeezenet() -> nn.Module:
    fire = nn.Sequential(conv(16, 8, 1), Branches(conv(8, 16, 1), conv(8, 16, 3)))
    return nn.Sequential(
        conv(3, 16, stride=2), fire, nn.Conv2d(32, 10, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


def _googlenet() -> nn.Module:
    pool = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(16, 8, 1))
    block = Branches(
        conv(16, 8, 1),
        nn.Sequential(conv(16, 8, 1), conv(8, 8)),
        nn.Sequential(conv(16, 4, 1), conv(4, 8, 5)),
        pool,
    )
    return nn.Sequential(conv(3, 16, stride=2), block, classifier(32))


def _densenet() -> nn.Module:
    transition = nn.Sequential(
        nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 16, 1, bias=False), nn.AvgPool2d(2)
    )
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), Dense(16, 8), Dense(24, 8), transition, Dense(16, 8), classifier(24)
    )


def _shufflenet() -> nn.Module:
    return nn.Sequential(conv(3, 16, stride=2), Shuffle(16), Shuffle(16), classifier(16))


def _convnext() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 4, stride=4), ConvNeXtBlock(16), classifier(16))


def _ds_cnn() -> nn.Module:
    blocks = [nn.Sequential(conv(16, 16, groups=16), conv(16, 16, 1)) for _ in range(2)]
    return nn.Sequential(
        nn.Conv2d(1, 16, (10, 4), stride=2, padding=(5, 1)), nn.ReLU(), *blocks, classifier(16, 12)
    )


def _tcn() -> nn.Module:
    layers: list[nn.Module] = []
    for i, o, d in ((4, 8, 1), (8, 8, 2), (8, 8, 4)):
        layers += [
            nn.ConstantPad1d((2 * d, 0), 0.0),
            nn.Conv1d(i, o, 3, dilation=d),
            nn.BatchNorm1d(o),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(8, 3))


def _espcn() -> nn.Module:
    return nn.Sequential(conv(1, 8, 5), conv(8, 8), nn.Conv2d(8, 4, 3, padding=1), nn.PixelShuffle(2))


def _darknet() -> nn.Module:
    leaky = functools.partial(nn.LeakyReLU, 0.1)
    return nn.Sequential(
        conv(3, 8, act=leaky), nn.MaxPool2d(2), conv(8, 16, act=leaky), nn.MaxPool2d(2), nn.Conv2d(16, 15, 1)
    )  # type: ignore[arg-type]


CIFAR: Shape = (3, 32, 32)
NETS: dict[str, tuple[Kind, Build, Shape]] = {
    "MLP": ("MLP", _mlp, (1, 28, 28)),
    "MLP with batch norm and softmax": ("MLP", _mlp_norm, (16,)),
    "autoencoder": ("MLP", _autoencoder, (64,)),
    "LeNet-5": ("CNN", _lenet, (1, 28, 28)),
    "AlexNet": ("CNN", _alexnet, CIFAR),
    "VGG": ("CNN", _vgg, CIFAR),
    "ResNet-8": ("CNN", _resnet8, CIFAR),
    "ResNet with bottlenecks": ("CNN", _resnet50, CIFAR),
    "ResNeXt": ("CNN", _resnext, CIFAR),
    "MobileNetV1": ("CNN", _mobilenet1, CIFAR),
    "MobileNetV2": ("CNN", _mobilenet2, CIFAR),
    "MobileNetV3": ("CNN", _mobilenet3, CIFAR),
    "EfficientNet": ("CNN", _efficientnet, CIFAR),
    "SqueezeNet": ("CNN", _squeezenet, CIFAR),
    "GoogLeNet": ("CNN", _googlenet, CIFAR),
    "DenseNet": ("CNN", _densenet, CIFAR),
    "ShuffleNetV2": ("CNN", _shufflenet, CIFAR),
    "ConvNeXt": ("CNN", _convnext, CIFAR),
    "DS-CNN": ("CNN", _ds_cnn, (1, 49, 10)),
    "temporal convolutions": ("CNN", _tcn, (4, 32)),
    "ESPCN": ("CNN", _espcn, (1, 16, 16)),
    "Darknet": ("CNN", _darknet, CIFAR),
    "U-Net, upsampled": ("CNN", functools.partial(UNet, False), CIFAR),
    "U-Net, transposed": ("CNN", functools.partial(UNet, True), CIFAR),
}
"""Kind, network and shape of one input."""


def build(name: str) -> tuple[nn.Module, Tensor]:
    """A network in eval mode, its batch norm statistics from a random batch, and that batch."""
    torch.manual_seed(0)
    _, make, shape = NETS[name]
    model, x = make().train(), torch.randn(16, *shape)
    with torch.no_grad():
        model(x)
    return model.eval(), x


def write(name: str, scaling: str, folder: Path) -> Path:
    """Converted, its scales and statistics from a batch of random inputs, exported."""
    from qhw.convert import convert
    from qhw.export import export_qonnx
    from qhw.quant_config import QuantConfig

    plain, x = build(name)
    model = convert(plain, QuantConfig(scaling=scaling), x).train()
    with torch.no_grad():
        model(x)
    return Path(export_qonnx(model.eval(), folder / "model.onnx"))


def entries(cache: Path) -> Iterator[Entry]:
    """Every network with power-of-two scales; each again with free ones."""
    for scaling, group in (("power_of_two", "torch"), ("free", "torch, free scales")):
        for name, (kind, _, _) in NETS.items():
            yield Entry(f"{group}/{name}", kind, functools.partial(write, name, scaling))
