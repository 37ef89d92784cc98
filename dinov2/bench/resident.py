"""How much memory this process holds and has held. Imports nothing heavy: it is used where that would be counted.

In: nothing. Out: bytes.
"""

from pathlib import Path


def resident_peak() -> int:
    """The high-water mark of this program; `getrusage` would count that of the process it was forked from too.

    Raises RuntimeError where the system does not tell.
    """
    return _bytes_of("VmHWM")


def resident_now() -> int:
    """What this process holds at the moment.  Raises RuntimeError where the system does not tell."""
    return _bytes_of("VmRSS")


def memory_available() -> int:
    """Bytes that programs could still take on this machine without swapping; likewise."""
    return _bytes_of("MemAvailable", file="/proc/meminfo")


def memory_installed() -> int:
    """Bytes of main memory of this machine; likewise."""
    return _bytes_of("MemTotal", file="/proc/meminfo")


def _bytes_of(name: str, *, file: str = "/proc/self/status") -> int:
    for line in Path(file).read_text().splitlines():
        if line.startswith(f"{name}:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"{file} has no {name}; memory is measured on Linux")
