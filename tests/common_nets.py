"""Common networks with their typical blocks, small enough to be lowered in a second or two."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F  # noqa: N812

Shape = tuple[int, ...]


def conv(
    inputs: int, outputs: int, kernel: int = 3, act: type[nn.Module] = nn.ReLU, **options: int
) -> nn.Module:
    """Convolution, batch norm and activation, padded to keep the size."""
    padding = options.get("dilation", 1) * (kernel // 2)
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, padding=padding, bias=False, **options),
        nn.BatchNorm2d(outputs),
        act(),
    )


def head(channels: int, classes: int = 10) -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes))


def lenet5() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5, padding=2),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Conv2d(6, 16, 5),
        nn.Tanh(),
        nn.AvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 32),
        nn.Tanh(),
        nn.Linear(32, 24),
        nn.Tanh(),
        nn.Linear(24, 10),
    )


class AlexNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 5, stride=2, padding=2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
            nn.Conv2d(8, 12, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Linear(12, 16), nn.ReLU(inplace=True), nn.Linear(16, 10)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


def vgg11() -> nn.Module:
    plan, layers, channels = (4, "M", 8, "M", 12, 12, "M"), [], 3
    for item in plan:
        if isinstance(item, str):
            layers.append(nn.MaxPool2d(2, 2))
        else:
            layers += [nn.Conv2d(channels, item, 3, padding=1), nn.BatchNorm2d(item), nn.ReLU(inplace=True)]
            channels = item
    return nn.Sequential(
        *layers, nn.Flatten(), nn.Linear(48, 16), nn.ReLU(True), nn.Dropout(), nn.Linear(16, 10)
    )


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut (ResNet-18)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1, self.relu = nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample: nn.Module | None = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


def resnet8() -> nn.Module:
    return nn.Sequential(conv(3, 4), BasicBlock(4, 4), BasicBlock(4, 8, 2), BasicBlock(8, 8), head(8))


class Bottleneck(nn.Module):
    """A narrow convolution between two of one pixel (ResNet-50)."""

    def __init__(self, channels: int, narrow: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv(channels, narrow, 1),
            conv(narrow, narrow),
            nn.Conv2d(narrow, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.body(x))


def resnet50() -> nn.Module:
    return nn.Sequential(conv(3, 8), nn.MaxPool2d(3, 2, 1), Bottleneck(8, 4), Bottleneck(8, 4), head(8))


class PreActivation(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(channels), nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        out = self.conv1(F.relu(self.bn1(x)))
        return self.conv2(F.relu(self.bn2(out))) + x


def preact_resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1),
        PreActivation(6),
        PreActivation(6),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.AvgPool2d(4),
        head(6),
    )


def separable(inputs: int, outputs: int, stride: int = 1) -> nn.Module:
    return nn.Sequential(conv(inputs, inputs, stride=stride, groups=inputs), conv(inputs, outputs, 1))


def mobilenet_v1() -> nn.Module:
    return nn.Sequential(conv(3, 6, stride=2), separable(6, 8), separable(8, 12, 2), head(12))


class InvertedResidual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        self.residual = stride == 1 and inputs == outputs
        self.conv = nn.Sequential(
            conv(inputs, hidden, 1, nn.ReLU6),
            conv(hidden, hidden, 3, nn.ReLU6, stride=stride, groups=hidden),
            nn.Conv2d(hidden, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


def mobilenet_v2() -> nn.Module:
    return nn.Sequential(
        conv(3, 4, 3, nn.ReLU6, stride=2),
        InvertedResidual(4, 6, 1, 2),
        InvertedResidual(6, 6, 1, 2),
        InvertedResidual(6, 8, 2, 2),
        conv(8, 12, 1, nn.ReLU6),
        head(12),
    )


class SqueezeExcitation(nn.Module):
    """As torchvision writes it."""

    def __init__(self, channels: int, squeezed: int, act: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1, self.fc2 = nn.Conv2d(channels, squeezed, 1), nn.Conv2d(squeezed, channels, 1)
        self.activation, self.scale_activation = act(), gate()

    def forward(self, x: Tensor) -> Tensor:
        scale = self.fc2(self.activation(self.fc1(self.avgpool(x))))
        return self.scale_activation(scale) * x


class Excited(nn.Module):
    """An inverted residual with a gate: MobileNetV3, EfficientNet."""

    def __init__(self, channels: int, act: type[nn.Module], gate: type[nn.Module]) -> None:
        super().__init__()
        hidden = 2 * channels
        self.block = nn.Sequential(
            conv(channels, hidden, 1, act),
            conv(hidden, hidden, 3, act, groups=hidden),
            SqueezeExcitation(hidden, 4, nn.ReLU if act is nn.Hardswish else act, gate),
            nn.Conv2d(hidden, channels, 1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x) + x


def mobilenet_v3() -> nn.Module:
    return nn.Sequential(
        conv(3, 4, 3, nn.Hardswish, stride=2),
        Excited(4, nn.Hardswish, nn.Hardsigmoid),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(4, 12),
        nn.Hardswish(),
        nn.Dropout(0.2),
        nn.Linear(12, 10),
    )


def efficientnet() -> nn.Module:
    return nn.Sequential(conv(3, 4, 3, nn.SiLU, stride=2), Excited(4, nn.SiLU, nn.Sigmoid), head(4))


class Fire(nn.Module):
    def __init__(self, inputs: int, squeezed: int, expanded: int) -> None:
        super().__init__()
        self.squeeze, self.activation = nn.Conv2d(inputs, squeezed, 1), nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(squeezed, expanded, 1)
        self.expand3x3 = nn.Conv2d(squeezed, expanded, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.activation(self.squeeze(x))
        return torch.cat([self.activation(self.expand1x1(x)), self.activation(self.expand3x3(x))], 1)


def squeezenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        Fire(8, 3, 4),
        Fire(8, 3, 4),
        nn.Dropout(),
        nn.Conv2d(8, 10, 1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


class DenseBlock(nn.Module):
    def __init__(self, inputs: int, growth: int, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(
                nn.BatchNorm2d(inputs + i * growth),
                nn.ReLU(inplace=True),
                nn.Conv2d(inputs + i * growth, growth, 3, padding=1, bias=False),
            )
            for i in range(layers)
        )

    def forward(self, x: Tensor) -> Tensor:
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, 1)))
        return torch.cat(features, 1)


def densenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        DenseBlock(4, 3, 3),
        nn.BatchNorm2d(13),
        nn.ReLU(),
        nn.Conv2d(13, 6, 1, bias=False),
        nn.AvgPool2d(2),
        DenseBlock(6, 3, 2),
        nn.BatchNorm2d(12),
        nn.ReLU(),
        head(12),
    )


class Inception(nn.Module):
    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.branch1 = conv(inputs, 3, 1)
        self.branch2 = nn.Sequential(conv(inputs, 2, 1), conv(2, 4, 3))
        self.branch3 = nn.Sequential(conv(inputs, 2, 1), conv(2, 3, 5))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv(inputs, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


def googlenet() -> nn.Module:
    return nn.Sequential(conv(3, 6), nn.MaxPool2d(2), Inception(6), Inception(12), head(12))


class ShuffleUnit(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.branch = nn.Sequential(
            conv(half, half, 1),
            nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            conv(half, half, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.chunk(2, dim=1)
        x = torch.cat((first, self.branch(second)), dim=1)
        n, channels, height, width = x.size()
        x = x.view(n, 2, channels // 2, height, width)
        x = torch.transpose(x, 1, 2).contiguous()
        return x.view(n, channels, height, width)


def shufflenet() -> nn.Module:
    return nn.Sequential(conv(3, 8, stride=2), ShuffleUnit(8), ShuffleUnit(8), head(8))


class UNet(nn.Module):
    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.down1, self.down2, self.bottom = conv(3, 4), conv(4, 6), conv(6, 8)
        self.pool = nn.MaxPool2d(2)
        up = (
            (nn.ConvTranspose2d(8, 6, 2, stride=2), nn.ConvTranspose2d(6, 4, 2, stride=2))
            if transposed
            else (
                nn.Sequential(nn.Upsample(scale_factor=2), nn.Conv2d(8, 6, 1)),
                nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), nn.Conv2d(6, 4, 1)),
            )
        )
        self.up2, self.up1 = up
        self.mix2, self.mix1 = conv(12, 6), conv(8, 4)
        self.last = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(self.pool(first))
        x = self.bottom(self.pool(second))
        x = self.mix2(torch.cat((self.up2(x), second), dim=1))
        return self.last(self.mix1(torch.cat((self.up1(x), first), dim=1)))


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(1, 4, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(4, 8, 3, stride=2, padding=1),
            nn.ReLU(),
        )
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(8, 4, 3, stride=2, padding=1, output_padding=1),
            nn.ReLU(),
            nn.ConvTranspose2d(4, 1, 3, stride=2, padding=1, output_padding=1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


def dense_autoencoder() -> nn.Module:
    """MLPerf Tiny's anomaly detector, narrower."""
    sizes = (32, 16, 16, 4, 16, 16)
    layers = [layer for a, b in pairwise(sizes) for layer in (nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(16, 32))


def espcn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 5, padding=2),
        nn.Tanh(),
        nn.Conv2d(8, 6, 3, padding=1),
        nn.Tanh(),
        nn.Conv2d(6, 4, 3, padding=1),
        nn.PixelShuffle(2),
    )


class KeywordSpotting(nn.Module):
    """A one-dimensional CNN over raw samples (M5)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv1d(1, 4, 9, stride=4), nn.BatchNorm1d(4)
        self.conv2, self.bn2 = nn.Conv1d(4, 8, 3), nn.BatchNorm1d(8)
        self.pool, self.fc = nn.MaxPool1d(2), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.bn1(self.conv1(x))))
        x = self.pool(F.relu(self.bn2(self.conv2(x))))
        x = F.avg_pool1d(x, x.shape[-1])
        return self.fc(x.permute(0, 2, 1)).flatten(1)


def ds_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, (10, 4), stride=(2, 2), padding=(5, 1), bias=False),
        nn.BatchNorm2d(6),
        nn.ReLU(),
        nn.Dropout(0.2),
        separable(6, 6),
        separable(6, 6),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(6, 12),
    )


def mlp() -> nn.Module:
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(64, 24),
        nn.BatchNorm1d(24),
        nn.ReLU(),
        nn.Linear(24, 16),
        nn.ReLU(),
        nn.Linear(16, 10),
    )


class MixerBlock(nn.Module):
    """Positions mixed, then channels; batch norm where the paper has layer norm."""

    def __init__(self, positions: int, channels: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.BatchNorm1d(positions), nn.BatchNorm1d(positions)
        self.positions = nn.Sequential(nn.Linear(positions, 8), nn.GELU(), nn.Linear(8, positions))
        self.channels = nn.Sequential(nn.Linear(channels, 12), nn.GELU(), nn.Linear(12, channels))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.positions(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        return x + self.channels(self.norm2(x))


class Mixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 4, stride=4)
        self.blocks = nn.Sequential(MixerBlock(16, 6), MixerBlock(16, 6))
        self.head = nn.Linear(6, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(self.stem(x).flatten(2).transpose(1, 2))
        return self.head(x.mean(dim=1))


class Chomp(nn.Module):
    """Cuts what causal padding is too much."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, : -self.size].contiguous()


class TemporalBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int, dilation: int) -> None:
        super().__init__()
        padding = 2 * dilation
        self.net = nn.Sequential(
            nn.utils.parametrizations.weight_norm(
                nn.Conv1d(inputs, outputs, 3, padding=padding, dilation=dilation)
            ),
            Chomp(padding),
            nn.ReLU(),
            nn.Dropout(0.1),
            nn.Conv1d(outputs, outputs, 3, padding=padding, dilation=dilation),
            Chomp(padding),
            nn.ReLU(),
        )
        self.downsample = nn.Conv1d(inputs, outputs, 1) if inputs != outputs else None
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        skip = x if self.downsample is None else self.downsample(x)
        return self.relu(self.net(x) + skip)


class TCN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.network = nn.Sequential(TemporalBlock(2, 4, 1), TemporalBlock(4, 4, 2))
        self.linear = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.network(x)[:, :, -1])


def gelu_cnn() -> nn.Module:
    return nn.Sequential(conv(3, 6, 3, nn.GELU, stride=2), conv(6, 8, 3, nn.GELU), nn.MaxPool2d(2), head(8))


class ConvMixer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 4, 4), nn.GELU(), nn.BatchNorm2d(6))
        self.spatial = nn.Sequential(
            nn.Conv2d(6, 6, 3, groups=6, padding="same"), nn.GELU(), nn.BatchNorm2d(6)
        )
        self.channel = nn.Sequential(nn.Conv2d(6, 6, 1), nn.GELU(), nn.BatchNorm2d(6))
        self.head = head(6)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.head(self.channel(self.spatial(x) + x))


class YoloHead(nn.Module):
    """Darknet blocks with leaky ReLUs of 0.1, a pass-through by rows, and a map of predictions."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 6, 3, padding=1)
        self.act, self.norm = nn.LeakyReLU(0.1), nn.BatchNorm2d(4)
        self.through, self.out = nn.PixelUnshuffle(2), nn.Conv2d(22, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.act(self.norm(self.a(x)))
        second = self.act(self.b(F.max_pool2d(first, 2)))
        return self.out(torch.cat((second, self.through(first)), 1))


IMAGE, GREY = (3, 16, 16), (1, 16, 16)

COMMON: dict[str, tuple[Callable[[], nn.Module], Shape]] = {
    "LeNet-5": (lenet5, GREY),
    "AlexNet": (AlexNet, (3, 32, 32)),
    "VGG-11": (vgg11, IMAGE),
    "ResNet-8": (resnet8, IMAGE),
    "ResNet-50": (resnet50, IMAGE),
    "pre-activation ResNet": (preact_resnet, IMAGE),
    "MobileNetV1": (mobilenet_v1, IMAGE),
    "MobileNetV2": (mobilenet_v2, IMAGE),
    "MobileNetV3": (mobilenet_v3, IMAGE),
    "EfficientNet": (efficientnet, IMAGE),
    "SqueezeNet": (squeezenet, IMAGE),
    "DenseNet": (densenet, (3, 8, 8)),
    "GoogLeNet": (googlenet, (3, 8, 8)),
    "ShuffleNetV2": (shufflenet, IMAGE),
    "UNet, transposed": (lambda: UNet(transposed=True), (3, 8, 8)),
    "UNet, upsampled": (lambda: UNet(transposed=False), (3, 8, 8)),
    "convolutional autoencoder": (Autoencoder, GREY),
    "dense autoencoder": (dense_autoencoder, (32,)),
    "ESPCN": (espcn, (1, 8, 8)),
    "1D CNN (M5)": (KeywordSpotting, (1, 64)),
    "DS-CNN": (ds_cnn, (1, 25, 10)),
    "MLP": (mlp, (1, 8, 8)),
    "MLP-Mixer": (Mixer, IMAGE),
    "TCN": (TCN, (2, 16)),
    "GELU CNN": (gelu_cnn, IMAGE),
    "ConvMixer": (ConvMixer, IMAGE),
    "YOLO head": (YoloHead, (3, 8, 8)),
}


def build(name: str, seed: int = 0) -> tuple[nn.Module, Shape]:
    """A network with weights, and batch norm statistics and constants, drawn from the seed."""
    make, shape = COMMON[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = make()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.uniform_(module.bias, -0.5, 0.5)
                module.running_mean.uniform_(-0.5, 0.5)
                module.running_var.uniform_(0.3, 2)
    return model.eval(), shape
