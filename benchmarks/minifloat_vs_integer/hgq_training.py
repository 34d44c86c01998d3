"""HGQ by pquant-ml, in a process of its own: bit widths trained against EBOPs.

    KERAS_BACKEND=torch PYTHONPATH=FOLDER python hgq_training.py IN.npz OUT.json

FOLDER holds pquant-ml and what it imports; `hgq.py` makes it, and both files. Written is a record per epoch:
the bit widths, pquant-ml's own EBOPs, and the network's answers.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pquant import PQConfig, get_ebops, get_model_losses, pdp_config
from pquant.core.torch.layers import PQBatchNorm1d, PQDense, post_epoch_functions, post_pretrain_functions
from torch import Tensor, nn

BITS = {
    "weights": (1.0, 1.0, 6.0),
    "signed": (1.0, 3.0, 4.0),
    "positive": (0.0, 3.0, 5.0),
    "sums": (1.0, 5.0, 6.0),
}
"""Where widths start: sign, integer and fraction bits."""


class Network(nn.Module):
    """The MLP of the study with pquant-ml's layers: what each one reads is quantised, and its weights."""

    def __init__(self, config: PQConfig, features: int, classes: int) -> None:
        super().__init__()

        def dense(inputs: int, outputs: int, bits: str, bias: bool = False) -> PQDense:
            return PQDense(
                config,
                inputs,
                outputs,
                bias=bias,
                in_quant_bits=BITS[bits],
                weight_quant_bits=BITS["weights"],
                bias_quant_bits=BITS["sums"],
            )

        def norm(channels: int) -> PQBatchNorm1d:
            bits = {"in_quant_bits": BITS["sums"], "weight_quant_bits": (1.0, 2.0, 6.0)}
            return PQBatchNorm1d(config, channels, bias_quant_bits=BITS["sums"], **bits)

        self.hidden1, self.norm1 = dense(features, 64, "signed"), norm(64)
        self.hidden2, self.norm2 = dense(64, 32, "positive"), norm(32)
        self.classify = dense(32, classes, "positive", bias=True)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm1(self.hidden1(x)))
        x = self.relu(self.norm2(self.hidden2(x)))
        result: Tensor = self.classify(x)
        return result

    def take(self, weights: dict[str, Tensor]) -> None:
        """Start from the float network's weights."""
        own = self.state_dict()
        for name, value in weights.items():
            layer, _, kind = name.rpartition(".")
            own[f"{layer}._{kind}" if f"{layer}._{kind}" in own else name].copy_(value)

    def widths(self) -> dict[str, float]:
        """Bits of what each layer reads, and of its weights."""
        found = {}
        for name in ("hidden1", "hidden2", "classify"):
            layer = getattr(self, name)
            for kind in ("input", "weight"):
                k, i, f = getattr(layer, f"get_{kind}_quantization_bits")()
                found[f"{name}.{kind}"] = (k + torch.relu(i + f)).max().item()
        return found


def config() -> PQConfig:
    """pquant-ml's settings: HGQ with a width per tensor, no pruning, everything else as it comes."""
    found = pdp_config()
    found.pruning_parameters.enable_pruning = False
    quantization = found.quantization_parameters
    quantization.use_high_granularity_quantization = True
    quantization.granularity = "per_tensor"
    quantization.overflow_mode_data = quantization.overflow_mode_parameters = "SAT"
    return found


def train(given: dict[str, Any]) -> list[dict[str, Any]]:
    """One run, in which the weight of EBOPs rises epoch by epoch."""
    torch.manual_seed(int(given["seed"]))
    torch.set_num_threads(1)
    x, y = torch.from_numpy(given["train_x"]), torch.from_numpy(given["train_y"])
    settings = config()
    model = Network(settings, x.shape[1], int(given["classes"]))
    model(x[:2])
    model.take({n[2:]: torch.from_numpy(v) for n, v in given.items() if n.startswith("w.")})
    post_pretrain_functions(model, settings)
    optimizer = torch.optim.AdamW(model.parameters(), lr=float(given["rate"]), weight_decay=1e-4)
    epochs, size = int(given["epochs"]), int(given["batch"])
    betas = np.geomspace(*given["beta"], epochs)
    records = []
    for epoch, beta in enumerate(betas):
        for layer in model.modules():
            if hasattr(layer, "hgq_beta"):
                layer.hgq_beta = float(beta)
        model.train()
        order = torch.randperm(len(x))
        for start in range(0, len(x) - size + 1, size):
            rows = order[start : start + size]
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
            loss = get_model_losses(model, loss)
            loss.backward()
            optimizer.step()
        post_epoch_functions(model, epoch, epochs)
        model.eval()
        with torch.no_grad():
            answers = {
                split: model(torch.from_numpy(given[f"{split}_x"])).argmax(1).tolist()
                for split in ("held", "test")
            }
            ebops = float(get_ebops(model))
        records.append({"beta": float(beta), "widths": model.widths(), "ebops": ebops, **answers})
    return records


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    with np.load(source) as arrays:
        target.write_text(json.dumps(train(dict(arrays))))
