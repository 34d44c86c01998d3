"""What may be given as a model, and what its digest depends on."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from brevitas import nn as qnn
from torch import nn

from qhw.errors import InputError
from qhw.layers import Normalize
from qhw.pipeline.options import BuildOptions
from qhw.pipeline.run import make_plan
from qhw.pipeline.source import find_source, load_module


def net() -> nn.Sequential:
    torch.manual_seed(1)
    return nn.Sequential(Normalize(exponent=-4), nn.Flatten(), nn.Linear(4, 2))


def test_a_plain_module_is_trained_and_a_quantised_one_is_not() -> None:
    assert find_source(net()).is_trained_here
    assert not find_source(nn.Sequential(qnn.QuantLinear(4, 2, bias=False))).is_trained_here


def test_the_digest_of_a_module_follows_weights_and_structure() -> None:
    same, other = net(), net()
    assert find_source(same).digest == find_source(other).digest
    with torch.no_grad():
        other[2].bias[0] += 1
    assert find_source(same).digest != find_source(other).digest
    assert find_source(nn.Sequential(same, nn.ReLU())).digest != find_source(nn.Sequential(same)).digest


@pytest.mark.parametrize("given", [3, None, [1]])
def test_other_things_are_refused(given: object) -> None:
    with pytest.raises(InputError, match=r"nn\.Module"):
        find_source(given)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def net():\n    raise RuntimeError('no weights')\n", "RuntimeError: no weights"),
        ("def net(:\n", "SyntaxError"),
        ("import nowhere_to_be_found\ndef net(): ...\n", "ModuleNotFoundError"),
        ("net = 3\n", "no function 'net'"),
        ("import sys\ndef net():\n    sys.exit(3)\n", "SystemExit: 3"),
        ("from math import *\n", "no function 'net'"),
    ],
)
def test_a_users_file_that_fails(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.py").write_text(text)
    source = find_source(f"{tmp_path}/mine.py:net")
    with pytest.raises(InputError, match=message):
        load_module(source, None, 0)  # type: ignore[arg-type]


def test_a_typo_is_told_before_data_are_asked_for_and_nothing_runs(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("raise SystemExit\ndef neat():\n    pass\n")
    with pytest.raises(InputError, match=r"no function 'net'[\s\S]*did you mean neat"):
        make_plan(BuildOptions(model=f"{tmp_path}/mine.py:net", board="ultra96"))


def test_a_users_file_may_import_its_neighbours_and_gets_the_seed(tmp_path: Path) -> None:
    (tmp_path / "mine_width.py").write_text("WIDTH = 5\n")
    (tmp_path / "mine.py").write_text(
        "from torch import nn\nfrom mine_width import WIDTH\ndef net():\n    return nn.Linear(WIDTH, 2)\n"
    )
    source = find_source(f"{tmp_path}/mine.py:net")
    first, again, other = (load_module(source, None, seed) for seed in (0, 0, 1))  # type: ignore[arg-type]
    assert first.weight.shape == (2, 5)
    assert torch.equal(first.weight, again.weight)
    assert not torch.equal(first.weight, other.weight)
