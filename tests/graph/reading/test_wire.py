"""Parts of a protobuf message, counted before it is parsed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto
from qonnx_factory import Net

from qhw.errors import InputError
from qhw.graph.reading import wire
from qhw.graph.reading.load import load_qonnx
from qhw.graph.reading.wire import check_parts


def sized(number: int, content: bytes) -> bytes:
    """A field of a message that holds bytes."""
    size, head = len(content), bytes([number << 3 | 2])
    while size > 0x7F:
        head += bytes([size & 0x7F | 0x80])
        size >>= 7
    return head + bytes([size]) + content


GRAPH, NODE, INPUT, ATTRIBUTE = 7, 1, 1, 5
UNKNOWN_GROUP = b"\x9b\x06\x9c\x06"


def parts(content: bytes) -> int:
    """How many a message has, found by the limit at which it is refused."""
    low, high = 0, 1 << 12
    with pytest.MonkeyPatch.context() as patch:
        while low < high:
            middle = (low + high) // 2
            patch.setattr(wire, "PART_LIMIT", middle)
            try:
                check_parts(content)
                high = middle
            except InputError:
                low = middle + 1
    return low


@pytest.mark.parametrize(
    ("content", "count"),
    [
        (b"", 0),
        (sized(GRAPH, sized(NODE, b"") * 9), 10),
        (sized(GRAPH, sized(NODE, sized(INPUT, b"") * 7)), 9),
        (sized(GRAPH, sized(NODE, sized(ATTRIBUTE, b"")) * 5), 11),
        (sized(GRAPH, UNKNOWN_GROUP + sized(NODE, b"")), 4),
        (sized(2, b"text" * 90), 1),
        (b"\x08\x80\x80\x01" + b"\x09" + bytes(8) + b"\x0d" + bytes(4), 3),
    ],
)
def test_every_part_counts(content: bytes, count: int) -> None:
    assert parts(content) == count


def test_a_model_has_as_many_as_it_says() -> None:
    net = Net((3, 4))
    model = net.model(net.node("Relu", net.quant(net.x, 6, 0.125)))

    def counted(message: object) -> int:
        total = 0
        for field, value in message.ListFields():  # type: ignore[attr-defined]
            values = value if field.label == field.LABEL_REPEATED else [value]
            is_message = field.message_type is not None
            total += sum(1 + (counted(part) if is_message else 0) for part in values)
        return total

    assert parts(model.SerializeToString()) == counted(model)


@given(st.binary(max_size=60))
def test_damaged_bytes_are_left_to_the_parser(content: bytes) -> None:
    check_parts(content)
    check_parts(sized(GRAPH, sized(NODE, content)) + content)


def test_a_file_of_empty_nodes_is_refused_before_it_is_parsed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.onnx"
    path.write_bytes(sized(GRAPH, sized(NODE, b"") * (wire.PART_LIMIT + 1)))
    monkeypatch.setattr(ModelProto, "FromString", None)
    with pytest.raises(InputError, match="has more than 4,194,304 parts"):
        load_qonnx(path)
