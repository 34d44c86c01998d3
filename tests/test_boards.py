"""Board files: the ones that come with the package, a user's own, and what is wrong in them."""

from __future__ import annotations

from pathlib import Path

import pytest

from qhw.boards import Board, list_boards, load_board
from qhw.errors import InputError
from qhw.resources import resource_dir


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(text)
    return path


def test_the_boards_of_the_package() -> None:
    names = {"ultra96", "ultra96-v2", "aup-zu3", "pynq-z1", "pynq-z2", "zcu104", "zcu102", "kv260", "u250"}
    microcontrollers = {"stm32h743", "stm32f746", "stm32f412", "nano-33-ble-sense", "rp2350"}
    open_tools = {
        "ulx3s",
        "orangecrab-25f",
        "orangecrab-85f",
        "colorlight-i9",
        "tang-nano-9k",
        "tang-nano-20k",
    }
    assert set(list_boards()) == names | open_tools | {"icebreaker"} | microcontrollers
    assert [load_board(name).name for name in list_boards()] == list(list_boards())


@pytest.mark.parametrize("name", list_boards())
def test_every_number_has_its_source(name: str) -> None:
    board = load_board(name)
    known = {"vivado_board"} if board.vivado_board else set()
    assert set(board.sources) == {*board.capacity, "part", "clock_mhz", "dram_mib"} | known
    assert all(len(text) > 15 for text in board.sources.values())
    prefixes = {
        "7series": ("xc7z",),
        "ultrascale-plus": ("xc",),
        "ecp5": ("LFE5U",),
        "gowin": ("GW1NR", "GW2AR"),
        "ice40": ("iCE40UP5K",),
        "cortex-m7": ("STM32H7", "STM32F7"),
        "cortex-m4": ("STM32F4", "nRF52"),
        "cortex-m33": ("RP2350",),
    }
    assert board.part.startswith(prefixes[board.family])
    assert (board.family == "7series") == board.part.startswith("xc7z")
    assert (board.kind == "microcontroller") == board.family.startswith("cortex")


@pytest.mark.parametrize(
    ("name", "finn"),
    [
        ("pynq-z1", "Pynq-Z1"),
        ("zcu104", "ZCU104"),
        ("zcu102", "ZCU102"),
        ("ultra96", "Ultra96"),
    ],
)
def test_resources_agree_with_finns_rounded_table(name: str, finn: str) -> None:
    platforms = pytest.importorskip("finn.util.platforms").platforms
    rows = platforms[finn]().compute_resources
    total = [sum(column) for column in zip(*rows, strict=True)]
    board = load_board(name)
    amounts = board.amounts(("lut", "ff", "bram18", "uram", "dsp"))
    for ours, theirs in zip(amounts.values(), total, strict=True):
        assert ours == pytest.approx(theirs, rel=0.06, abs=0)


@pytest.mark.parametrize("name", ["ultra96", "ultra96-v2", "aup-zu3"])
def test_zu3eg(name: str) -> None:
    assert load_board(name).capacity == {
        "lut": 70560,
        "ff": 141120,
        "dsp": 360,
        "bram18": 432,
        "uram": 0,
    }


def test_a_users_own_board_from_a_known_one(tmp_path: Path) -> None:
    board = load_board(write(tmp_path, 'based_on = "ultra96"\ndsp = 10\nclock_mhz = 150'))
    assert "dsp" not in board.sources
    assert "ZU3EG" in board.sources["lut"]
    assert (board.name, board.capacity["dsp"], board.capacity["lut"], board.clock_mhz) == (
        "mine",
        10,
        70560,
        150.0,
    )
    assert board.clock_period_ns == pytest.approx(6.667, abs=1e-3)


def test_a_device_of_ones_own_is_none_of_vivados_boards(tmp_path: Path) -> None:
    assert load_board(write(tmp_path, 'based_on = "ultra96"\ndsp = 10')).vivado_board == "ultra96v1"
    assert load_board(write(tmp_path, 'based_on = "ultra96"\npart = "xczu2eg"')).vivado_board == ""
    assert load_board(write(tmp_path, 'based_on = "u250"\nvivado_board = "mine"')).vivado_board == "mine"


def test_a_whole_board_of_ones_own(tmp_path: Path) -> None:
    text = 'part = "xc7a35t"\nfamily = "7series"\nlut = 20800\nff = 41600\ndsp = 90\nbram18 = 100\n'
    board = load_board(str(write(tmp_path, text)))
    assert board == Board(
        "mine", "mine", "xc7a35t", "7series", {"lut": 20800, "ff": 41600, "dsp": 90, "bram18": 100, "uram": 0}
    )


def test_unknown_board_offers_the_closest() -> None:
    with pytest.raises(InputError, match="did you mean zcu104") as caught:
        load_board("zcu106")
    assert "path of a TOML file" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('based_on = "ultra96"\ndps = 10', "unknown field 'dps'"),
        ('based_on = "ultra97"', "no board 'ultra97'"),
        ("based_on = 3", "based_on must be"),
        ('part = "x"', "missing field family, lut, ff, dsp, bram18"),
        ('based_on = "ultra96"\ndsp = -1', "dsp must be a whole number from 0"),
        ('based_on = "ultra96"\ndsp = 1.5', "dsp must be a whole number"),
        ('based_on = "ultra96"\ndsp = true', "dsp must be a whole number"),
        ('based_on = "ultra96"\nclock_mhz = nan', "'clock_mhz' is nan"),
        ('based_on = "ultra96"\nclock_mhz = 0', "clock_mhz must be a number from 1"),
        ('based_on = "ultra96"\nfamily = "stratix"', "unknown family 'stratix'"),
        ('based_on = "ultra96"\npart = ""', "part must be a text"),
        ('based_on = "ultra96"\npart = "x\\"; exec touch y"', "letters, digits"),
        ('based_on = "ultra96"\nname = "u/../../v"', "letters, digits"),
        ('based_on = "ultra96"\nvivado_board = "*:x [exec y]"', "letters, digits"),
        ('based_on = "ultra96"\ntitle = "\\u001b[31mred"', "printable"),
        ('based_on = "ultra96"\nkind = "fpgas"', "did you mean fpga"),
        ('based_on = "ultra96"\nkind = "microcontroller"', "not a family of kind 'microcontroller'"),
        ('based_on = "ultra96"\nflash = 3', "unknown field 'flash' of a board with AMD UltraScale+"),
        ('based_on = "stm32h743"\nlut = 3', "unknown field 'lut' of a board with Arm Cortex-M7"),
        ('kind = "microcontroller"\npart = "x"\nfamily = "cortex-m7"\nsram = 3', "contiguous_sram, flash"),
        ("lut = " + "[" * 2000 + "]" * 2000, "is nested too deeply"),
        ("lut = " + "9" * 5000, "is not a TOML file"),
        ("lut = 0x" + "f" * 20, "'lut' is an integer of 80 bits"),
        ("a" + ".a" * 9000 + " = 1", "a key of too many parts"),
        ('based_on = "ultra96"\nsources = 3', "sources is 3"),
        ('based_on = "ultra96"\nsources = {lut = 3}', "sources, 'lut' is 3"),
        ('based_on = "ultra96"\nsources = {lut = "\\u001b]0;x"}', "sources, 'lut' is '\\x1b]0;x'"),
        ('based_on = "ultra96"\ntitle = "\\u202egnp"', "printable"),
        ("dsp = = 3", "is not a TOML file"),
        ("x = 1" + " " * 70000, "at most 65,536 bytes"),
    ],
)
def test_what_is_wrong_in_a_board_file(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError) as caught:
        load_board(write(tmp_path, text))
    assert said in str(caught.value)


def test_a_missing_file_and_a_binary_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        load_board(tmp_path / "none.toml")
    with pytest.raises(InputError, match="it is a folder"):
        load_board(tmp_path)
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="is no text: byte 0 is 0xff"):
        load_board(tmp_path / "binary.toml")


def test_resource_folders() -> None:
    assert (resource_dir("boards") / "ultra96.toml").is_file()
    assert resource_dir("hls").is_dir()
