"""What processor this is."""

from __future__ import annotations

import platform
import re
from pathlib import Path

INFORMATION = Path("/proc/cpuinfo")


def processor_name() -> str:
    """Its name; of x86 on Linux with family and model, as one name may stand for several generations."""
    try:
        text = INFORMATION.read_text()
    except OSError:
        text = ""
    found = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", text, re.MULTILINE))
    if "model name" not in found:
        return platform.processor() or platform.machine()
    if {"cpu family", "model"} <= found.keys():
        return "{model name}, family {cpu family} model {model}".format(**found)
    return found["model name"]
