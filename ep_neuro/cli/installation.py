"""Commands about what is here: models, doctor."""

import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Group

from ep_neuro.cli.app import command
from ep_neuro.cli.console import emit, lines, log, records
from ep_neuro.cli.options import Json
from ep_neuro.cli.targets import target_states
from ep_neuro.errors import CheckFailed, EPNeuroError

VARIABLES = (
    "OMP_NUM_THREADS",
    "EP_NEURO_LAVA_PYTHON",
    "CXX",
    "TMPDIR",
    "TORCHINDUCTOR_CACHE_DIR",
    "MPLCONFIGDIR",
)
"""What of the environment a run depends on."""


@command()
def models(json_: Json = False) -> None:
    """Trained models that came along, for wherever a MODEL stands; the cards hold more."""
    from ep_neuro.energy.spec import NetworkSpec
    from ep_neuro.network.checkpoint import SPEC
    from ep_neuro.network.hub.cards import PREFIX, hub_names, place_of, read_card

    found: list[dict[str, Any]] = []
    for name in hub_names():
        card, place = read_card(name), place_of(PREFIX + name)
        found.append(
            {
                "name": PREFIX + name,
                "data": card.data,
                "test_accuracy": card.accuracy("test"),
                "parameters": NetworkSpec.from_yaml(place / SPEC).parameters,
                "bytes": sum(file.stat().st_size for file in place.iterdir()),
                "licence": card.licence,
                "card": card.model_dump(mode="json"),
            }
        )
    shown = [{key: value for key, value in f.items() if key != "card"} for f in found]
    emit({"models": found}, json_, records(shown))


@command()
def doctor(json_: Json = False) -> None:
    """What is installed, what runs, what is missing and how to get it.

    Exit 1 if something is missing that ep-neuro cannot do without.
    """
    import ep_neuro

    packages, targets, hub = _packages(), target_states(), _models()
    shown = [{k: t[k] for k in ("name", "available", "reason")} for t in targets]
    fields: dict[str, Any] = {
        "ep_neuro": ep_neuro.__version__,
        "place": str(Path(ep_neuro.__file__).parent),
        "python": f"{sys.version.split()[0]}, {sys.executable}",
        "settings": _settings(),
    }
    tables = [records(rows) for rows in (packages, shown, hub) if rows]
    text = lines({k: v for k, v in fields.items() if k != "settings"} | fields["settings"])
    emit(
        {**fields, "packages": packages, "targets": targets, "models": hub},
        json_,
        Group(text, *tables),
    )
    if not packages:
        log("warning: ep-neuro is not installed, so its requirements are unknown; `pip install .`")
    lacking = [p for p in packages if p["remedy"] and not p["extra"]]
    damaged = [m for m in hub if m["remedy"]]
    if lacking or damaged:
        names = ", ".join(item["name"] for item in lacking + damaged)
        raise CheckFailed("installation", f"{names} is missing or does not fit", "see the remedies")


def _packages() -> list[dict[str, Any]]:
    """Each requirement that holds for this Python, what there is of it, and how to get it."""
    from packaging.requirements import Requirement

    try:
        wanted = [Requirement(text) for text in metadata.requires("ep-neuro") or ()]
        extras = metadata.metadata("ep-neuro").get_all("Provides-Extra") or ()
    except metadata.PackageNotFoundError:
        return []
    found: list[dict[str, Any]] = []
    for need in wanted:
        holds = [e for e in ("", *extras) if not need.marker or need.marker.evaluate({"extra": e})]
        if not holds:
            continue
        try:
            version = metadata.version(need.name)
        except metadata.PackageNotFoundError:
            version = None
        # Without an extra the marker holds with each as well.
        extra = "" if "" in holds else holds[0]
        fits = version is not None and need.specifier.contains(version, prereleases=True)
        how = f"ep-neuro[{extra}]" if extra else f"{need.name}{need.specifier}"
        remedy = "" if fits else f"pip install '{how}'"
        row = {"name": need.name, "wanted": str(need.specifier), "found": version}
        found.append({**row, "extra": extra, "remedy": remedy})
    return found


def _models() -> list[dict[str, str]]:
    """Each model of the hub, and what to do where a file of it is not as it was."""
    from ep_neuro.network.hub.cards import PREFIX, hub_names, place_of

    def problem(name: str) -> str:
        try:
            place_of(PREFIX + name)
        except EPNeuroError as error:
            return str(error)
        return ""

    return [{"name": PREFIX + name, "remedy": problem(name)} for name in hub_names()]


def _settings() -> dict[str, Any]:
    """Threads, devices, caches, and the variables that are set."""
    import torch

    from ep_neuro.data.datasets import DEFAULT_ROOT

    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    return {
        "cores": len(os.sched_getaffinity(0)),
        "threads": torch.get_num_threads(),
        "gpus": ", ".join(gpus) or None,
        "data": str(DEFAULT_ROOT),
        **{name: os.environ.get(name) for name in VARIABLES},
    }
