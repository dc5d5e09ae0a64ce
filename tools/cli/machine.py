"""What the figures depend on: the processor and the versions of the libraries."""

from __future__ import annotations

import platform
from pathlib import Path

from threadpoolctl import threadpool_info

from tools.media.record import versions


def cpu_name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the processor's model name."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine() or "unknown"


def measured_versions(with_torch: bool) -> dict[str, str]:
    """Return the versions of what the numbers depend on, NumPy's BLAS among them."""
    found = versions(("scipy", "torch") if with_torch else ("scipy",))
    for library in threadpool_info():
        # NumPy's: scipy may bring a copy of its own.
        if library["user_api"] == "blas" and "scipy.libs" not in library["filepath"]:
            found[library["internal_api"]] = f"{library['version']} {library.get('architecture') or ''}".strip()
    return found
