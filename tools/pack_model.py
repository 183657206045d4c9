"""Pack a trained model into the hub: weights of 8 bits, and the digests on its card.

    python tools/pack_model.py MODEL NAME

The rest of the card, its figures above all, is what somebody measures and writes there.
"""

from __future__ import annotations

import hashlib
import json
import sys

from safetensors.torch import save

from ep_neuro.network.checkpoint import METADATA, SPEC, WEIGHTS, load_model
from ep_neuro.network.hub.cards import CARD, HUB
from ep_neuro.network.hub.packing import packed
from ep_neuro.network.network import parameter_names
from ep_neuro.storage.yaml_io import dump_yaml, load_yaml


def main(model: str, name: str) -> None:
    trained, folder = load_model(model), HUB / name
    folder.mkdir(exist_ok=True)
    (folder / SPEC).write_text(trained.network.spec.to_yaml(), encoding="utf-8")
    tensors = {k: v.detach().contiguous() for k, v in parameter_names(trained.network).items()}
    (folder / WEIGHTS).write_bytes(save(packed(tensors)))
    # Accuracies and digest are those of other weights, and a path of data means nothing elsewhere.
    dropped = ("sha256", "val_accuracy", "test_accuracy")
    notes = {k: v for k, v in trained.metadata.items() if k not in dropped}
    kind, colon, path = notes["data"].partition(":")
    notes["data"] = kind + colon + path.rpartition("/")[2]
    (folder / METADATA).write_text(json.dumps(notes), encoding="utf-8")
    digest = load_model(folder).digest
    (folder / METADATA).write_text(
        json.dumps({**notes, "sha256": digest}, indent=2) + "\n", encoding="utf-8"
    )
    card = load_yaml(folder / CARD) if (folder / CARD).is_file() else {}
    card["sha256"] = {
        file: hashlib.sha256((folder / file).read_bytes()).hexdigest()
        for file in (SPEC, WEIGHTS, METADATA)
    }
    (folder / CARD).write_text(dump_yaml(card), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
