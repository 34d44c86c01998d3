"""Every network of `brevitas_examples`, with random weights, as Brevitas exports it."""

from __future__ import annotations

import functools
import importlib
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from zoo.entries import AbsentError, Entry, Kind
from zoo.package_data import annotate

Build = Callable[[], nn.Module]

OTHERS = {
    "llm": "quantises transformers of Hugging Face: attention, not a CNN or MLP, and weights to download",
    "stable_diffusion": "quantises a diffusion U-Net with attention of Hugging Face: to download",
    "imagenet_classification/ptq": "quantises torchvision's networks, which are not installed here",
    "papers": "configurations for language models",
}


@dataclass(frozen=True)
class Net:
    """A network of the examples, and how it is exported.

    Args:
        shape: of one input.
        batch: how many inputs a training pass takes.
        inputs: numbers from 0 to 1, normal numbers, or the integers that the file says come in: a first layer
            that reads its input without a quantiser needs them.
        qcdq: exported as QuantizeLinear, Clip and DequantizeLinear.
    """

    build: Build
    shape: tuple[int, ...]
    batch: int = 16
    passes: int = 3
    inputs: Literal["unit", "normal", "UINT8", "INT8"] = "unit"
    qcdq: bool = False


def write(net: Net, folder: Path) -> Path:
    """The network's file: random weights, statistics and scales of a few passes in training mode.

    By the exporter that torch uses unless told otherwise; by its older one, where that one fails.
    """
    from brevitas.export import export_onnx_qcdq, export_qonnx

    path = folder / "model.onnx"
    export: Callable[..., Any] = export_onnx_qcdq if net.qcdq else export_qonnx
    failures = []
    for settings in ({}, {"dynamo": False}):
        torch.manual_seed(0)
        try:
            model = _warmed(net)
            with torch.no_grad():
                export(model, args=samples(net, 1), export_path=str(path), **settings)
        except Exception as error:  # whatever torch and Brevitas raise
            failures.append(f"{type(error).__name__}: {str(error).splitlines()[0]}")
            continue
        if net.inputs.endswith("INT8"):
            annotate(path, net.inputs, path)
        return path
    raise AbsentError(f"Brevitas {version('brevitas')} fails on it: {failures[-1]}")


def _warmed(net: Net) -> nn.Module:
    model = net.build().train()
    with torch.no_grad():
        for _ in range(net.passes):
            model(samples(net, net.batch))
    return model.eval()


def samples(net: Net, count: int) -> Tensor:
    """Random inputs, (count, *shape)."""
    shape = (count, *net.shape)
    if net.inputs == "unit":
        return torch.rand(shape)
    if net.inputs == "normal":
        return torch.randn(shape)
    low = -128 if net.inputs == "INT8" else 0
    return torch.randint(low, low + 256, shape).float()


class Normalised(nn.Module):
    """A network behind the usual preprocessing of 8-bit images: /255, less the mean, over the deviation."""

    def __init__(self, net: nn.Module, mean: Any, deviation: Any) -> None:
        super().__init__()
        self.net = net
        self.register_buffer("mean", torch.tensor(mean).reshape(1, -1, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).reshape(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.net((x / 255.0 - self.mean) / self.deviation)


def _bnn_pynq(name: str) -> nn.Module:
    from brevitas_examples.bnn_pynq import models

    return models.model_with_cfg(name, False)[0]


def _imagenet(name: str) -> nn.Module:
    from brevitas_examples.imagenet_classification.models import model_with_cfg

    return model_with_cfg(name, bit_width=8 if name == "quant_mobilenet_v1" else None)[0]


def _preprocessed(name: str) -> nn.Module:
    half = [128 / 255] * 3
    return Normalised(_imagenet(name), half, half)


def _normalised_resnet() -> nn.Module:
    return Normalised(_bnn_pynq("resnet18_4w4a"), [0.491, 0.482, 0.447], [0.247, 0.243, 0.262])


def _vgg(name: str) -> nn.Module:
    from brevitas_examples.imagenet_classification.models import vgg

    return getattr(vgg, name)()


def _a2q_resnet(accumulator: int, plus: bool) -> nn.Module:
    from brevitas_examples.imagenet_classification.a2q import quant, resnet

    stem = "CommonIntAccumulatorAware"
    weight = getattr(quant, f"{stem}ZeroCenterWeightQuant" if plus else f"{stem}WeightQuant")
    return resnet.quant_resnet18(
        act_bit_width=4, acc_bit_width=accumulator, weight_bit_width=4, weight_quant=weight
    )


def _espcn(name: str) -> nn.Module:
    from brevitas_examples.super_resolution.models import get_model_by_name

    return get_model_by_name(name)


class _Absent(types.ModuleType):
    """Stands for a package that only the examples' data loading uses."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **kwargs: None


def _quartznet(name: str) -> nn.Module:
    import yaml

    reader = types.ModuleType("ruamel.yaml")
    reader.YAML = lambda typ: types.SimpleNamespace(load=yaml.safe_load)  # type: ignore[attr-defined]
    sys.modules.setdefault("ruamel.yaml", reader)
    for package in ("ruamel", "inflect", "librosa", "librosa.util", "soundfile", "torch_stft", "unidecode"):
        sys.modules.setdefault(package, _Absent(package))
    examples = importlib.import_module("brevitas_examples.speech_to_text.quartznet")
    return getattr(examples, name)(pretrained=False, export_mode=True)


def _melgan() -> nn.Module:
    from brevitas_examples.text_to_speech.melgan import model_with_cfg

    model = model_with_cfg("quant_melgan_8b", False)[0]
    model.remove_weight_norm()  # as for inference: the exporters take no parametrised weights
    model.eval = types.MethodType(nn.Module.eval, model)  # its own returns nothing, which Brevitas expects
    return model


SPECTROGRAM = "64 frames; input annotated INT8"
MNIST, CIFAR, IMAGENET = (1, 28, 28), (3, 32, 32), (3, 224, 224)


def nets() -> Iterator[tuple[str, Kind, Net, str]]:
    """Name, kind, network and remark of each."""
    for size in ("tfc", "sfc", "lfc"):
        for bits in ("1w1a", "1w2a", "2w2a"):
            if (size, bits) != ("lfc", "2w2a"):
                name = f"{size}_{bits}"
                yield f"bnn_pynq {name}", "MLP", Net(functools.partial(_bnn_pynq, name), MNIST, 64), ""
    for bits in ("1w1a", "1w2a", "2w2a"):
        yield f"bnn_pynq cnv_{bits}", "CNN", Net(functools.partial(_bnn_pynq, f"cnv_{bits}"), CIFAR), ""
    resnet = functools.partial(_bnn_pynq, "resnet18_4w4a")
    yield "bnn_pynq resnet18_4w4a", "CNN", Net(resnet, CIFAR, 8, inputs="UINT8"), "input annotated UINT8"
    behind = "behind /255, mean and deviation; input annotated UINT8"
    yield "bnn_pynq resnet18_4w4a, images", "CNN", Net(_normalised_resnet, CIFAR, 8, inputs="UINT8"), behind
    for plus in (False, True):
        for bits in (12, 13, 14, 15, 16):
            build = functools.partial(_a2q_resnet, bits, plus)
            name = f"imagenet_classification a2q resnet18_w4a4_a2q{'_plus' if plus else ''}_{bits}b"
            yield name, "CNN", Net(build, CIFAR, 8, inputs="UINT8"), "input annotated UINT8"
    for size in ("w8a8_base", "w8a8_a2q_32b", "w8a8_a2q_16b", "w4a4_base", "w4a4_a2q_32b", "w4a4_a2q_13b"):
        build = functools.partial(_espcn, f"quant_espcn_x2_{size}")
        yield f"super_resolution espcn_x2_{size}", "CNN", Net(build, (3, 24, 24), 8), ""
    for size in ("w4a4_a2q_plus_13b", "w8a8_a2q_plus_16b"):
        build = functools.partial(_espcn, f"quant_espcn_x2_{size}")
        yield f"super_resolution espcn_x2_{size}", "CNN", Net(build, (3, 24, 24), 8), ""
    yield (
        "text_to_speech melgan_8b",
        "CNN",
        Net(_melgan, (80, 8), 4, inputs="INT8"),
        "8 frames; input annotated INT8",
    )
    for name in ("perchannelscaling_4b", "perchannelscaling_8b", "pertensorscaling_8b"):
        build = functools.partial(_quartznet, f"quant_quartznet_{name}")
        yield f"speech_to_text quartznet_{name}", "CNN", Net(build, (64, 64), 4, inputs="INT8"), SPECTROGRAM
    for name in ("mobilenet_v1_4b", "mobilenet_v1_4b_round_avgpool", "mobilenet_v1"):
        plain = Net(functools.partial(_imagenet, f"quant_{name}"), IMAGENET, 4, 2, inputs="UINT8")
        yield f"imagenet_classification {name}", "CNN", plain, "input annotated UINT8"
    images = Net(functools.partial(_preprocessed, "quant_mobilenet_v1_4b"), IMAGENET, 4, 2, inputs="UINT8")
    yield "imagenet_classification mobilenet_v1_4b, images", "CNN", images, behind
    for name in ("4b", "4b5b", "4b_round_avgpool", "hadamard_4b"):
        build = functools.partial(_imagenet, f"quant_proxylessnas_mobile14_{name}")
        net = Net(build, IMAGENET, 4, 2, inputs="UINT8")
        yield f"imagenet_classification proxylessnas_mobile14_{name}", "CNN", net, "input annotated UINT8"
    for depth in (11, 13, 16, 19):
        for norm in ("", "_bn"):
            net = Net(functools.partial(_vgg, f"quant_vgg{depth}{norm}"), (3, 416, 416), 1, 1, inputs="UINT8")
            note = "input annotated UINT8; 416x416, the least that its pool and classifier take"
            yield f"imagenet_classification vgg{depth}{norm}", "CNN", net, note


QCDQ = (
    "bnn_pynq tfc_2w2a",
    "bnn_pynq cnv_2w2a",
    "bnn_pynq resnet18_4w4a",
    "super_resolution espcn_x2_w8a8_base",
    "super_resolution espcn_x2_w4a4_base",
    "imagenet_classification mobilenet_v1_4b_round_avgpool",
)
"""What is exported a second time, as QCDQ."""


def entries(cache: Path) -> Iterator[Entry]:
    """Every network, what has none, and some networks a second time as QCDQ."""
    again = []
    for name, kind, net, note in nets():
        settings: dict[str, Any] = {"image": len(net.shape) == 3, "note": note}
        settings["samples"] = 1 if net.shape[-1] > 100 or "resnet18" in name else 4
        yield Entry(f"brevitas_examples/{name}", kind, functools.partial(write, net), **settings)
        if name in QCDQ:
            make = functools.partial(write, replace(net, qcdq=True))
            again.append(Entry(f"brevitas_examples as QCDQ/{name}", kind, make, **settings))
    for name, why in OTHERS.items():
        yield Entry(f"brevitas_examples/{name}", "other", None, note=why)
    yield from again
