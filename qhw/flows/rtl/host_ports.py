"""The ports at which a host finds a board: a serial line, or SPI. Both carry the same bytes."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, NoReturn

from qhw.errors import InputError, ToolMissingError

if TYPE_CHECKING:
    import serial
    import spidev

SPI_PREFIX = "spi:"
"""What stands in front of an SPI device: ``spi:/dev/spidev0.0``."""

_AT_ONCE = 2048
"""Bytes of one call of a driver: spidev takes 4,096 as the kernel comes, two for each of ours."""


class HostPort(ABC):
    """A port whose faults are told as errors of the user's; a context manager.

    Args:
        name: the device.
        rate: bits a second.
        seconds: without an answer that are too many.
    """

    bits_of_byte: ClassVar[int]

    def __init__(self, name: str, rate: int, seconds: float) -> None:
        self.name, self.rate, self.seconds = name, rate, seconds

    @abstractmethod
    def __enter__(self) -> HostPort: ...

    @abstractmethod
    def close(self) -> None:
        """Give the device back."""

    @abstractmethod
    def send(self, content: bytes) -> None:
        """Send so many bytes as a driver takes at once."""

    @abstractmethod
    def received(self, size: int) -> bytes:
        """That many bytes, or those that came until the time was over."""

    @abstractmethod
    def clear(self) -> None:
        """Drop what waits: it is for a host before this one."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def write(self, content: bytes) -> None:
        """Send bytes."""
        try:
            for start in range(0, len(content), _AT_ONCE):
                self.send(content[start : start + _AT_ONCE])
        except OSError as error:
            self._lost(error)

    def read(self, size: int) -> bytes:
        """That many bytes, or those that came until the time was over."""
        try:
            return self.received(size)
        except OSError as error:
            self._lost(error)

    def ask(self, question: bytes, size: int) -> bytes:
        """What the board answers to a message, and to nothing before it."""
        try:
            self.clear()
        except OSError as error:
            self._lost(error)
        self.write(question)
        return self.read(size)

    def _lost(self, error: Exception) -> NoReturn:
        raise InputError(
            f"{self.name} is lost: {_reason(error)}",
            hint="plug the board in again; then run the same command",
        ) from None


class SerialPort(HostPort):
    """A serial line, by pyserial."""

    bits_of_byte = 10

    def __enter__(self) -> SerialPort:
        try:
            import serial
        except ImportError:
            raise ToolMissingError(
                "A board's serial port needs pyserial, which is not installed",
                hint="pip install 'qhw[synth]'",
            ) from None
        try:
            self._line: serial.Serial = serial.Serial(
                self.name, self.rate, timeout=self.seconds, write_timeout=self.seconds, exclusive=True
            )
        except (OSError, ValueError, OverflowError) as error:
            raise InputError(
                f"The serial port {self.name} cannot be opened at {self.rate} baud: {_reason(error)}",
                allowed=_serial_ports(),
                hint="plug the board in; on Linux a user of serial ports is in the group dialout",
            ) from None
        return self

    def close(self) -> None:
        self._line.close()

    def send(self, content: bytes) -> None:
        self._line.write(content)

    def received(self, size: int) -> bytes:
        return bytes(self._line.read(size))

    def clear(self) -> None:
        self._line.read(self._line.in_waiting)


class SpiPort(HostPort):
    """An SPI controller, by spidev: mode 0, pairs of a flag and a byte both ways (``spi_peripheral.v``)."""

    bits_of_byte = 16

    def __enter__(self) -> SpiPort:
        try:
            import spidev
        except ImportError:
            raise ToolMissingError(
                "A board at SPI needs spidev, which is not installed", hint="pip install 'qhw[spi]' (Linux)"
            ) from None
        self._waiting = b""
        self._device: spidev.SpiDev = spidev.SpiDev()
        try:
            self._device.open_path(self.name)
            self._device.max_speed_hz = self.rate
            self._device.mode = 0
        except (OSError, ValueError, OverflowError, TypeError) as error:
            self._device.close()
            raise InputError(
                f"The SPI port {self.name} cannot be opened at {self.rate} Hz: {_reason(error)}",
                hint="enable SPI on this computer; on Linux a user of it is in the group spi",
            ) from None
        return self

    def close(self) -> None:
        self._device.close()

    def send(self, content: bytes) -> None:
        self._exchanged([part for byte in content for part in (1, byte)])

    def received(self, size: int) -> bytes:
        until = time.monotonic() + self.seconds
        while len(self._waiting) < size:
            self._exchanged([0, 0] * min(size - len(self._waiting), _AT_ONCE))
            if time.monotonic() > until:
                break
        found, self._waiting = self._waiting[:size], self._waiting[size:]
        return found

    def clear(self) -> None:
        self._exchanged([0, 0] * _CLEARED)
        while self._waiting:
            self._waiting = b""
            self._exchanged([0, 0] * _CLEARED)

    def _exchanged(self, pairs: list[int]) -> None:
        """Exchange pairs; the bytes that count wait to be read."""
        answer = self._device.xfer2(pairs)
        self._waiting += bytes(
            byte for flag, byte in zip(answer[::2], answer[1::2], strict=True) if flag == 1
        )


_CLEARED = 16
"""Bytes of an earlier answer that are looked for at once."""


def _reason(error: Exception) -> Any:
    return getattr(error, "strerror", None) or error


def _serial_ports() -> str:
    """The serial ports of this machine."""
    from serial.tools import list_ports

    return ", ".join(sorted(port.device for port in list_ports.comports())) or "no serial port is here"
