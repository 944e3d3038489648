"""How much memory there is to plan with."""

from __future__ import annotations

from pathlib import Path

import torch

_FALLBACK = 4 * 2**30


def available_bytes(device: torch.device) -> int:
    """Free memory of a device, in bytes; of a container, what its limit leaves."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free)
    found = [n for n in (_meminfo(), _cgroup()) if n is not None]
    return min(found, default=_FALLBACK)


def _meminfo() -> int | None:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return None


def _cgroup() -> int | None:
    try:
        root = Path("/sys/fs/cgroup")
        limit = (root / "memory.max").read_text().strip()
        return None if limit == "max" else int(limit) - int((root / "memory.current").read_text())
    except (OSError, ValueError):
        return None
