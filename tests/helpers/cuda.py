"""Tests on a GPU: where they run, and in which arithmetic."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA GPU")


@pytest.fixture
def full_precision() -> Iterator[None]:
    """float32 in all its digits: by default convolutions on a GPU keep ten bits of them (TF32)."""
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [backend.allow_tf32 for backend in backends]
    for backend in backends:
        backend.allow_tf32 = False
    yield
    for backend, value in zip(backends, before, strict=True):
        backend.allow_tf32 = value
