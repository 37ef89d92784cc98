"""How much memory this process has held. Imports nothing heavy: it is used where that would be counted.

In: nothing. Out: bytes.
"""

from pathlib import Path


def resident_peak() -> int:
    """The high-water mark of this program; `getrusage` would count that of the process it was forked from too.

    Raises RuntimeError where the system does not tell.
    """
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError("/proc/self/status has no VmHWM; memory is measured on Linux")
