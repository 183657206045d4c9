"""Old import paths: modules that moved to a room keep answering to their former name."""

from __future__ import annotations

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

MOVED = {
    "_homeless": "storage.cache_folders",
    "_shadow": "cli.package_guard",
    "activations": "energy.activations",
    "arguments": "cli.options",
    "augment": "data.augmentation",
    "autograd": "estimators.autograd",
    "baselines": "estimators.baselines",
    "checkpoint": "network.checkpoint",
    "config": "training.config",
    "console": "cli.console",
    "costs": "energy.costs",
    "couplings": "energy.coupling_spec",
    "deployed": "deployment.dynamics",
    "deployment.spectrum": "compilers.passes.spectrum",
    "deployment.thresholds": "compilers.passes.thresholds",
    "deployment.weight_grid": "compilers.ir.weight_grid",
    "distributed": "training.distributed",
    "estimators.frozen": "estimators.frozen_mean",
    "estimators.phases": "estimators.two_phase",
    "evaluation": "training.evaluation",
    "files": "storage.atomic",
    "graphs": "network.cuda_graphs",
    "grid": "compilers.ir.weight_grid",
    "health": "network.stability",
    "image_folder": "data.image_folder",
    "initialisation": "network.initialization",
    "lowering": "deployment.lowering",
    "npz_file": "data.npz_file",
    "nudgeable": "deployment.nudgeable",
    "operators": "energy.operators",
    "optimisers": "training.optimizer",
    "packed_images": "data.packed_images",
    "pooling": "energy.pooling",
    "public_files": "data.torchvision_datasets",
    "report.axes": "report.plots.axes",
    "report.data": "report.plots.records",
    "report.deployment": "report.plots.deployment",
    "report.figures": "report.plots.curves",
    "report.learning": "report.plots.learning",
    "report.palette": "report.plots.palette",
    "report.raster": "report.plots.spike_raster",
    "report.rows": "report.plots.tables",
    "report.truth": "report.plots.gradient",
    "report.words": "report.plots.formatting",
    "run_log": "training.metrics",
    "run_place": "training.run_directory",
    "settle": "network.settling",
    "spec": "energy.spec",
    "spectrum": "compilers.passes.spectrum",
    "standardisation": "energy.weight_standardization",
    "step": "training.train_step",
    "thresholds": "compilers.passes.thresholds",
    "truth": "training.gradient_monitor",
    "values": "storage.value_checks",
    "verify": "estimators.gradient_check",
    "whitening": "network.whitening",
    "yaml_io": "storage.yaml_io",
    "zoo": "network.architectures",
}
"""New path of each module by its old one below ``ep_neuro``, where the new one is, too, if it does
not name another package of ours."""


def home_of(old: str) -> str:
    """The full path of the module that `old`, below ``ep_neuro``, leads to."""
    new = MOVED[old]
    return new if new.startswith("compilers.") else f"{__package__}.{new}"


class _Moved(MetaPathFinder, Loader):
    """Finds a module of `MOVED` by its old name: it is the one at the new path, loaded once."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """The spec of the old `name`; None if no module was ever called so."""
        package, _, rest = name.partition(".")
        known = package == __package__ and rest in MOVED
        return ModuleSpec(name, self) if known else None

    def exec_module(self, module: ModuleType) -> None:
        """Put the module at the new path in the place of the empty `module`."""
        old = module.__name__
        sys.modules[old] = importlib.import_module(home_of(old.partition(".")[2]))


def lead_on() -> None:
    """Let imports by an old path find the module where it is now."""
    if not any(isinstance(finder, _Moved) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Moved())
