"""Which layers conversion knows, and what to say of others."""

from __future__ import annotations

from torch import fx, nn

from qhw.calls.call import place
from qhw.errors import UnsupportedError
from qhw.layers.arithmetic import Add, Affine, Interpolate, MatMul, Multiply, Subtract, Total
from qhw.layers.elementwise import Normalize
from qhw.layers.functions import Function
from qhw.layers.moves import Concat, Largest, Pad, Permute, Repeat, Reshape, Slice

LAYERS: tuple[type[nn.Module], ...] = (
    nn.Linear,
    nn.Conv1d,
    nn.Conv2d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.ReLU,
    nn.ReLU6,
    nn.LeakyReLU,
    nn.PReLU,
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
    nn.PixelShuffle,
    nn.PixelUnshuffle,
    nn.Flatten,
    nn.Dropout,
    nn.Dropout1d,
    nn.Dropout2d,
    nn.Identity,
    Normalize,
)
"""Layers that stay what they are until conversion puts their quantised form in their place."""

OWN_LAYERS: tuple[type[nn.Module], ...] = (
    Add,
    Affine,
    Concat,
    Function,
    Interpolate,
    Largest,
    MatMul,
    Multiply,
    Pad,
    Permute,
    Repeat,
    Reshape,
    Slice,
    Subtract,
    Total,
)
"""What other calls become."""

HINTS = {
    **dict.fromkeys(
        ("Softmax", "LogSoftmax", "softmax", "log_softmax", "Softmin", "Softmax2d"),
        "leave it out of the model: the largest logit stays the largest",
    ),
    **dict.fromkeys(
        ("LSTM", "GRU", "RNN", "LSTMCell", "GRUCell", "RNNCell"),
        "a state that is carried on has no place in the exact graph: use nn.Conv1d with dilation",
    ),
    **dict.fromkeys(
        ("MultiheadAttention", "TransformerEncoderLayer", "TransformerEncoder", "Transformer"),
        "its softmax and layer norm divide by computed numbers: mix positions by nn.Conv1d, or by nn.Linear "
        "over a transposed tensor",
    ),
    "scaled_dot_product_attention": "its softmax divides by computed numbers: mix positions by nn.Conv1d",
    **dict.fromkeys(
        ("Embedding", "EmbeddingBag", "embedding"),
        "it looks whole numbers up: give the model one-hot vectors, and use nn.Linear(…, bias=False)",
    ),
    **dict.fromkeys(
        (
            *("LayerNorm", "GroupNorm", "InstanceNorm1d", "InstanceNorm2d", "RMSNorm", "LocalResponseNorm"),
            *("layer_norm", "group_norm", "instance_norm"),
        ),
        "it divides by statistics of its own input: use nn.BatchNorm1d or nn.BatchNorm2d, whose numbers are "
        "known after training",
    ),
    **dict.fromkeys(
        ("Conv3d", "ConvTranspose3d", "MaxPool3d", "AvgPool3d", "BatchNorm3d", "AdaptiveAvgPool3d"),
        "use the two-dimensional kind, with depth among the channels",
    ),
    **dict.fromkeys(
        ("ReflectionPad2d", "ReplicationPad2d", "ReflectionPad1d", "ReplicationPad1d", "CircularPad2d"),
        "pad with zeros (nn.ZeroPad2d)",
    ),
    "item": "the conversion needs a graph that is the same for every input",
    "einsum": "use torch.matmul",
    **dict.fromkeys(("sqrt", "log", "rsqrt", "reciprocal"), "it is unbounded near 0: use a bounded function"),
}
"""What to do about some of the kinds that cannot be converted."""

SUPPORTED = (
    f"{', '.join(dict.fromkeys(kind.__name__.removesuffix('1d').removesuffix('2d') for kind in LAYERS))} and "
    "element-wise functions, 1D and 2D; sums, products, concatenation, slices, permutations, reshapes, "
    "padding, upsampling, reductions over axes; and the functions and methods that say the same"
)
"""What a model may be made of, for messages."""


def unsupported(node: fx.Node, kind: str) -> UnsupportedError:
    """The error for a kind that cannot be converted."""
    return UnsupportedError(
        f"{place(node)}: {kind} cannot be converted", allowed=SUPPORTED, hint=HINTS.get(kind)
    )
