"""What the benchmarks of this machine take from the command line, and say of it."""

from __future__ import annotations

import argparse
import platform
from collections.abc import Sequence

import torch


def sizes(about: str | None, arguments: Sequence[str] | None) -> tuple[int, int]:
    """Numbers of images and of repeats; torch keeps to one thread from here on."""
    parser = argparse.ArgumentParser(description=about)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    print(f"{options.images} images, one thread, {platform.machine()}, torch {torch.__version__}")
    return options.images, options.repeats
