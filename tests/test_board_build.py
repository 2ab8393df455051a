"""What is built for a board: sizes, files for flash tools, records, the verbs build, boards and fit."""

from __future__ import annotations

import itertools
import json
import subprocess
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
from click.testing import CliRunner

from board_networks import medium, require_board, small
from conftest import ROOT, missing
from edge_lstm.cli import main
from edge_lstm.emit.tflite_model import emit_tflite
from edge_lstm.errors import ConfigError, ModelError, RuntimeFailure
from edge_lstm.verbs.build import build_graph
from edge_lstm.verbs.fit import fit_graph, refuse_other_shapes, resized, units_of
from firmware_tools import board_build, pipes, stack_bound
from firmware_tools.board_build import PARTS, Firmware, build_firmware, firmware_content, uf2_blocks
from firmware_tools.boards.records import find_board, known_boards, read_board
from random_models import random_qgraph

BUILDABLE = [name for name, board in known_boards().items() if board.toolchain]
RECORD = (ROOT / "firmware_tools" / "boards" / "mps2-an386.toml").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def an386(tmp_path_factory: pytest.TempPathFactory) -> Firmware:
    """One firmware that several tests look at."""
    require_board(find_board("mps2-an386"))
    return build_firmware(medium(), find_board("mps2-an386"), tmp_path_factory.mktemp("an386"))


# what is built


@pytest.mark.parametrize("name", BUILDABLE)
def test_the_size_table_adds_up_to_the_sections_of_the_elf(name: str, tmp_path: Path) -> None:
    board = find_board(name)
    require_board(board)
    firmware = build_firmware(small(), board, tmp_path)
    assert firmware.problems == []
    assert tuple(firmware.parts) == PARTS
    assert all(part.flash > 0 for part in firmware.parts.values())
    low = board.ram.origin
    done = subprocess.run(
        [board_build.GCC[board.toolchain][0].replace("gcc", "objdump"), "-h", str(firmware.elf)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    lines = done.stdout.splitlines()
    flash = ram = 0
    for head, flags in itertools.pairwise(lines):
        if "ALLOC" in flags:
            _, _, size, address, *_ = head.split()
            in_ram = low <= int(address, 16) < low + (1 << 24)
            ram += int(size, 16) if in_ram else 0
            flash += int(size, 16) if "LOAD" in flags else 0
    gaps = 64  # bytes that only align
    assert flash - gaps <= firmware.total.flash <= flash
    assert ram - gaps <= firmware.total.ram <= ram


@pytest.mark.parametrize("name", BUILDABLE)
def test_the_c_of_a_board_is_free_of_warnings(name: str, tmp_path: Path) -> None:
    board = find_board(name)
    require_board(board)
    strict = ("-Os", "-Wall", "-Wextra", "-Wconversion", "-pedantic", "-Werror")
    flags = [flag for flag in board_build.board_flags(board) if flag != "-fstack-usage"]  # not for naked ones
    command = [board_build.GCC[board.toolchain][0], *board.flags, *flags, *strict, "-c"]
    for source in board.source_paths():
        done = subprocess.run(
            [*command, str(source), "-o", str(tmp_path / "x.o")], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_the_firmware_beside_the_model_is_small_on_a_cortex_m4(an386: Firmware) -> None:
    assert an386.parts["firmware"].flash < 4096
    assert an386.parts["firmware"].ram < 300
    weights = sum(layer.kernel.size for layer in medium().layers)
    assert an386.parts["model"].flash > weights


def test_equal_networks_give_equal_firmware(an386: Firmware, tmp_path: Path) -> None:
    again = build_firmware(medium(), an386.board, tmp_path)
    assert firmware_content(an386, ".bin") == firmware_content(again, ".bin")


def test_a_firmware_that_does_not_fit_is_refused_with_its_figures(tmp_path: Path) -> None:
    require_board(find_board("arduino-uno"))
    with pytest.raises(ModelError) as caught:
        build_graph(medium(), tmp_path / "fw.hex", find_board("arduino-uno"))
    text = str(caught.value)
    assert "board 'arduino-uno': the firmware does not fit: RAM with its stack: " in text
    assert "2,048 there" in text
    assert "edge-lstm fit MODEL --board arduino-uno" in text
    assert list(tmp_path.iterdir()) == []


def test_a_limit_is_met_to_the_byte(an386: Firmware) -> None:
    def limited(flash: int, ram: int) -> list[str]:
        board = replace(
            an386.board, flash=replace(an386.board.flash, size=flash), ram=replace(an386.board.ram, size=ram)
        )
        return replace(an386, board=board).problems

    flash, ram = an386.total.flash, an386.total.ram + an386.stack
    assert limited(flash, ram) == []
    assert limited(flash - 1, ram) == [f"flash: {flash:,} bytes needed, {flash - 1:,} there, 1 too many"]
    assert len(limited(flash - 1, ram - 1)) == 2


def test_constants_that_an_avr_cannot_hold_are_a_refusal(tmp_path: Path) -> None:
    require_board(find_board("arduino-mega"))
    with pytest.raises(ModelError, match=r"board 'arduino-mega': the firmware does not fit: .*32,767"):
        build_firmware(resized(small(), 160), find_board("arduino-mega"), tmp_path)


def test_the_stack_has_no_bound_where_a_function_calls_itself() -> None:
    with pytest.raises(RuntimeFailure, match="has no bound: (a|b) calls itself"):
        stack_bound.deepest("a", {"a": {"b"}, "b": {"a"}}, {"a": 8, "b": 8}, {})
    assert stack_bound.deepest("a", {"a": {"b", "c"}, "b": {"c"}}, {"a": 8, "b": 16, "c": 4}, {}) == 28


# files for flash tools


def test_the_image_of_the_pico_begins_with_a_boot_block_that_its_rom_accepts(tmp_path: Path) -> None:
    board = find_board("raspberry-pi-pico")
    require_board(board)
    content = firmware_content(build_firmware(small(), board, tmp_path), ".bin")
    crc = 0xFFFFFFFF  # CRC-32/MPEG-2, as the data sheet describes it in chapter 2.8.1
    for byte in content[:252]:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ (0x04C11DB7 if crc >> 31 else 0)) & 0xFFFFFFFF
    assert int.from_bytes(content[252:256], "little") == crc
    stack, start = (int.from_bytes(content[at : at + 4], "little") for at in (256, 260))
    assert stack == board.ram.origin + board.ram.size
    assert board.flash.origin < start < board.flash.origin + len(content) and start % 2 == 1


def test_the_boot_block_of_the_pico_sets_up_flash_and_starts_the_image(tmp_path: Path) -> None:
    if find_spec("unicorn") is None:
        missing("unicorn")
    import unicorn
    from unicorn import arm_const

    board = find_board("raspberry-pi-pico")
    require_board(board)
    content = firmware_content(build_firmware(small(), board, tmp_path), ".bin")
    machine = unicorn.Uc(unicorn.UC_ARCH_ARM, unicorn.UC_MODE_THUMB | unicorn.UC_MODE_MCLASS)
    for address, size in (
        (0x10000000, 0x10000),
        (0x18000000, 0x1000),
        (0xE000E000, 0x1000),
        (0x20000000, 0x1000),
    ):
        machine.mem_map(address, size)
    machine.mem_write(0x20000000, content[:256])  # the ROM runs it from RAM
    machine.mem_write(0x10000000, content)
    written: list[tuple[int, int]] = []
    machine.hook_add(
        unicorn.UC_HOOK_MEM_WRITE,
        lambda _uc, _kind, address, _size, value, _data: written.append((address, value)),
    )
    start = int.from_bytes(content[260:264], "little")
    machine.emu_start(0x20000001, start & ~1)
    assert machine.reg_read(arm_const.UC_ARM_REG_PC) == start & ~1
    assert machine.reg_read(arm_const.UC_ARM_REG_SP) == board.ram.origin + board.ram.size
    assert written == [
        (0x18000008, 0), (0x18000014, 4), (0x18000000, 0x001F0300), (0x18000004, 0), (0x180000F4, 0x03000218),
        (0x18000008, 1), (0xE000ED08, 0x10000100),
    ]  # fmt: skip


def test_uf2_holds_the_image_in_numbered_blocks() -> None:
    content = bytes(range(256)) + b"tail"
    blocks = uf2_blocks(content, find_board("raspberry-pi-pico"))
    assert len(blocks) == 1024
    assert blocks[:4] == b"UF2\n" and blocks[508:512] == (0x0AB16F30).to_bytes(4, "little")
    assert blocks[32:288] == content[:256] and blocks[512 + 32 : 512 + 36] == b"tail"
    assert int.from_bytes(blocks[512 + 12 : 512 + 16], "little") == 0x10000100
    assert int.from_bytes(blocks[512 + 20 : 512 + 24], "little") == 1
    with pytest.raises(ConfigError, match="board 'nrf52840-dk' takes no .uf2"):
        uf2_blocks(content, find_board("nrf52840-dk"))


# records


def record(tmp_path: Path, old: str, new: str) -> Path:
    assert old in RECORD
    path = tmp_path / "own.toml"
    path.write_text(RECORD.replace(old, new), encoding="utf-8")
    return path


def test_a_record_lists_everything_that_is_wrong_with_it(tmp_path: Path) -> None:
    path = record(tmp_path, 'proven = "emulated"\n', 'proven = "hoped"\nbuad = 9600\n')
    path.write_text(path.read_text().replace("clock_hz", "clock"), encoding="utf-8")
    with pytest.raises(ConfigError) as caught:
        read_board(path)
    text = str(caught.value)
    for part in ("4 problems", "'buad' is unknown; the keys are title, ", "'clock' is unknown",
                 "'clock_hz' is missing", "'proven' is 'hoped', expected one of emulated"):  # fmt: skip
        assert part in text


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "size = 0x40_0000 }\nram",
            "length = 1 }\nram",
            r"'flash' is .*, expected \{ origin = ADDRESS, size = BYTES",
        ),
        ("UART_IRQ = 0", 'UART_IRQ = "0"', "expected a table NAME = INTEGER"),
        (
            '["cortex_m.c", "cmsdk_uart.c"]',
            '"cortex_m.c"',
            "'sources' is 'cortex_m.c', expected a list of strings",
        ),
        ("clock_hz = 25_000_000", 'clock_hz = "25 MHz"', "'clock_hz' is '25 MHz', expected an integer"),
        ("title =", "title", "cannot be read"),
    ],
)
def test_a_wrong_value_of_a_record_is_refused(tmp_path: Path, old: str, new: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        read_board(record(tmp_path, old, new))


def test_a_source_that_lies_nowhere_is_named(tmp_path: Path) -> None:
    board = read_board(record(tmp_path, "cmsdk_uart.c", "uart_of_mine.c"))
    with pytest.raises(ConfigError, match=r"board 'own': uart_of_mine.c is neither in"):
        board.source_paths()


def test_an_unknown_board_and_an_exported_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="board 'z80' is unknown; choose one of .*microbit.*NAME.toml"):
        find_board("z80")
    with pytest.raises(ConfigError, match="board 'esp32-s3' is not built here: .*export --format esp-idf"):
        build_firmware(small(), find_board("esp32-s3"), tmp_path)
    with pytest.raises(ConfigError, match="board 'nrf52840-dk' has no emulator; connect it"):
        pipes.start_board(find_board("nrf52840-dk"), tmp_path / "fw.elf")


# the verbs


def test_the_largest_network_fits_and_one_more_unit_does_not(tmp_path: Path) -> None:
    require_board(find_board("arduino-uno"))
    network = random_qgraph(9, layers=1, units=6, features=3)
    result = fit_graph(network, "arduino-uno")
    assert result.largest is not None and result.boards[0].fits
    (units,) = result.largest.units
    assert units >= 6 and not result.largest.limited
    board = find_board("arduino-uno")
    assert build_firmware(resized(network, units), board, tmp_path).problems == []
    assert build_firmware(resized(network, units + 1), board, tmp_path).problems != []


def test_limits_replace_those_of_a_cortex_m4() -> None:
    require_board(find_board("mps2-an386"))
    network = random_qgraph(9, layers=1, units=6, features=3)
    most = fit_graph(network, flash=16 << 10, ram=2 << 10).largest
    assert most is not None and (most.flash_size, most.ram_size) == (16384, 2048)
    assert 16384 - 1000 < most.flash <= 16384
    assert fit_graph(network, flash=2000).largest == replace(
        most, flash_size=2000, ram_size=4 << 20, units=(), flash=0, ram=0
    )
    with pytest.raises(ConfigError, match="--ram is 0, expected 1 byte or more"):
        fit_graph(network, ram=0)


def test_networks_are_resized_in_proportion() -> None:
    network = medium()
    grown = resized(network, 26)
    assert units_of(network) == (13, 13) and units_of(grown) == (26, 26)
    assert (grown.features, grown.outputs) == (network.features, network.outputs)
    with pytest.raises(ConfigError, match="chain of plain LSTM and dense layers only"):
        refuse_other_shapes(replace(network, layers=network.layers[-1:], sources=(), input=None,
                                    stream=network.stream.unnamed(13)))  # fmt: skip


def test_every_board_says_whether_it_takes_a_model() -> None:
    for name in ("arduino-uno", "riscv32", "mps2-an386"):
        require_board(find_board(name))
    rows = {row.board: row for row in fit_graph(medium()).boards}
    assert list(rows) == list(known_boards())
    assert rows["mps2-an386"].fits and rows["arduino-uno"].fits is False
    assert rows["arduino-uno"].why.startswith("RAM with its stack: ")
    assert rows["esp32-s3"].fits is None and "not built here" in rows["esp32-s3"].why


def run(*arguments: object) -> str:
    done = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    return done.output


def test_the_verbs_print_their_tables(tmp_path: Path) -> None:
    require_board(find_board("mps2-an386"))
    model = tmp_path / "net.tflite"
    model.write_bytes(emit_tflite(random_qgraph(9, layers=1, units=6, features=3)))
    table = run("build", model, "--board", "mps2-an386", "-o", tmp_path / "fw.bin")
    for word in ("Arm MPS2, AN386 (QEMU)", "model", "runtime", "firmware", "stack", "total", "4,194,304"):
        assert word in table
    assert (tmp_path / "fw.bin").stat().st_size > 4000
    listed = json.loads(run("boards", "--json"))
    assert {row["name"] for row in listed["boards"]} == set(known_boards())
    assert {row["proven"] for row in listed["boards"]} == set(listed["proofs"])
    assert "largest that fits 12,288 bytes of flash and 1,024 of RAM (mps2-an386): LSTM(" in run(
        "fit", model, "--flash", "12k", "--ram", "1k"
    )
    done = CliRunner().invoke(
        main, ["build", str(model), "--board", "microbit", "-o", str(tmp_path / "fw.img")]
    )
    assert done.exit_code == 1 and "expected a name that ends in .elf, .hex, .bin, .uf2" in done.output
