"""What all tests share: one thread each, no window, no download, hypothesis without a deadline."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator

# Before numpy and torch start their thread pools: tests run side by side, one thread each.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MPLBACKEND", "Agg")

import hypothesis
import pytest

# What collection makes stays to the end, and looking for garbage takes a quarter of its time.
gc.disable()

collect_ignore = ["lava"]  # It runs on Lava's own Python: tests/unit/lava/test_environment.py.

# A deadline measures the machine's load, not the code. CI repeats the same examples every time.
hypothesis.settings.register_profile("default", deadline=None, max_examples=25, print_blob=True)
hypothesis.settings.register_profile(
    "ci", hypothesis.settings.get_profile("default"), derandomize=True
)
# More of each law: pytest --hypothesis-profile thorough.
hypothesis.settings.register_profile("thorough", deadline=None, max_examples=200, print_blob=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Keep a file on one worker, as its tests share fixtures.

    Examples are long and share nothing; cases of the conformance suite are groups of their own, and
    those of Brian2 with its other tests one group.
    Folders come in the order of their names but for training, whose files are long: short ones
    fill what is left at the end.
    """
    items.sort(key=lambda item: item.path.parent.name != "training")
    for item in items:
        room = item.path.parent.name
        if room != "examples" and not item.get_closest_marker("xdist_group"):
            group = room if room == "brian2" else f"{room}/{item.path.stem}"
            item.add_marker(pytest.mark.xdist_group(group))


def pytest_collection_finish() -> None:
    """From here on garbage is looked for, among what the tests make."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)  # Seldom: it is a twentieth of all time otherwise.
    gc.enable()


@pytest.fixture(scope="session", autouse=True)
def _process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Hold torch to one thread, and keep tests out of the user's data and caches.

    The process that only hands out tests starts without torch.
    """
    import torch

    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        data = tmp_path_factory.getbasetemp() / "data-root"
        patch.setattr("ep_neuro.data.datasets.DEFAULT_ROOT", data)
        yield
