"""Claims about several processes: they train as one would, and one alone writes."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
import torch

from ep_neuro.errors import ConfigError
from ep_neuro.network.checkpoint import load_model
from ep_neuro.network.network import Network, parameter_names
from ep_neuro.training.distributed import Ranks, choose_device, join, weighted_mean
from ep_neuro.training.loop import TrainResult, train
from ep_neuro.training.train_step import Stepper
from tests.helpers.forked import fork
from tests.unit.training.test_loop import clusters, learned
from tests.unit.training.test_training_options import on_images, squares

CPU = torch.device("cpu")


def gradients(ranks: Ranks) -> list[dict[str, torch.Tensor]]:
    """What two global batches, one of a single sample, leave in ``.grad``."""
    chosen, found = on_images(), []
    for batch in (torch.arange(11), torch.tensor([4])):
        network = Network(chosen.spec(), 3)
        Stepper(chosen, squares().train, network, 10, ranks)(batch, seed=7, where="here")
        found.append({k: p.grad.clone() for k, p in parameter_names(network).items()})  # type: ignore[union-attr]
    return found


def trained(place: Path | None) -> TrainResult:
    """A short training with augmentation; on disk, once more as a resumed run that is done."""
    result = train(on_images(epochs=2), place, dataset=squares())
    if place is None:
        return result
    return train(on_images(epochs=2), place, dataset=squares(), resume=True)


def watched() -> TrainResult:
    """A short training in which the truth of the gradient chooses the sweeps."""
    truth = {"cosine": 0.999, "every": 2}
    chosen = on_images(epochs=2, estimator={"kind": "frozen-mean"}, truth=truth, batch=8)
    return train(chosen, dataset=squares())


def work(place: Path) -> None:
    """What each of several processes does, and writes to `place`."""
    rank = os.environ["RANK"]
    with join("cpu") as ranks:
        found = [{k: g.tolist() for k, g in batch.items()} for batch in gradients(ranks)]
        (place / f"gradients-{rank}.json").write_text(json.dumps(found))
        result = trained(place / "run")
        assert result.test.outputs.shape == (9, 3)
        (place / f"history-{rank}.json").write_text(json.dumps(result.history))
        (place / f"watched-{rank}.json").write_text(json.dumps(learned(watched())))


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes on this machine leave behind."""
    place = tmp_path_factory.mktemp("ranks")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    meet = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    processes = [fork(work, place, **meet, RANK=str(r), LOCAL_RANK=str(r)) for r in range(2)]
    try:
        for process in processes:
            process.join(100)
        assert [process.exitcode for process in processes] == [0, 0]
    finally:
        for process in processes:
            process.kill()
    return place


def test_two_ranks_give_the_gradient_of_one_process(two_ranks: Path) -> None:
    alone = gradients(Ranks(CPU))
    for rank in range(2):
        together = json.loads((two_ranks / f"gradients-{rank}.json").read_text())
        for mine, theirs in zip(alone, together, strict=True):
            scale = max(float(value.abs().max()) for value in mine.values())
            assert scale > 1e-3
            for name, value in mine.items():
                torch.testing.assert_close(
                    torch.tensor(theirs[name]), value, rtol=0, atol=1e-5 * scale
                )


def test_two_ranks_train_the_network_of_one_process(two_ranks: Path) -> None:
    alone = trained(None)
    best = load_model(two_ranks / "run" / "best").network
    for name, value in parameter_names(alone.model.network).items():
        torch.testing.assert_close(parameter_names(best)[name], value, rtol=1e-4, atol=1e-5)


def test_all_ranks_tell_the_same_story(two_ranks: Path) -> None:
    first, second = ((two_ranks / f"history-{r}.json").read_text() for r in range(2))
    clock = {"seconds", "images_per_second"}
    stories = [
        [{k: v for k, v in record.items() if k not in clock} for record in json.loads(text)]
        for text in (first, second)
    ]
    assert stories[0] == stories[1]
    # Each part of a batch stops settling when it has settled, so the sweeps may differ.
    free = {"sweeps_free", "sweeps_nudged"}
    for mine, theirs in zip(learned(trained(None)), stories[0], strict=True):
        for key in mine.keys() - free:
            assert mine[key] == pytest.approx(theirs[key], rel=1e-3, abs=1e-4), key


def test_all_ranks_take_the_sweeps_of_the_least_true_gradient(two_ranks: Path) -> None:
    first, second = (json.loads((two_ranks / f"watched-{r}.json").read_text()) for r in range(2))
    assert first == second
    for record in first:
        assert record["gradient_cosine"] > 0.99
        assert record["sweeps_free"] < 30


# --- one process -------------------------------------------------------------------------------


def test_shares_are_disjoint_and_whole_even_of_a_small_batch() -> None:
    for size in (1, 2, 5, 12):
        batch = torch.arange(size)
        shares = [Ranks(CPU, rank, 5).share(batch) for rank in range(5)]
        assert torch.equal(torch.cat(shares), batch)


def test_a_mean_of_metrics_weighs_by_samples_and_skips_empty_parts() -> None:
    parts = [({"a": 1.0}, 3), ({}, 0), ({"a": 5.0}, 1)]
    assert weighted_mean(parts) == {"a": 2.0}


def test_alone_there_is_nothing_to_exchange() -> None:
    with join("cpu") as ranks:
        assert (ranks.rank, ranks.world, ranks.leads) == (0, 1, True)
        assert ranks.gather(3) == [3]
        assert ranks.from_leader(lambda: 4) == 4
        assert ranks.in_turn(lambda: 5) == 5
        assert float(ranks.mean({"a": torch.tensor(2.0)}, 7)["a"]) == 2


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_gpu_that_is_not_there_is_refused_and_auto_does_without() -> None:
    assert choose_device("auto") == CPU
    with pytest.raises(ConfigError, match="torch sees no CUDA GPU"):
        train(on_images(device="cuda"), dataset=squares())


def test_states_cannot_be_carried_over_several_processes() -> None:
    chosen = on_images(carry_states=True)
    with pytest.raises(ConfigError, match="carry_states: true: the states of 2 processes"):
        Stepper(chosen, clusters().train, Network(chosen.spec()), 10, Ranks(CPU, 0, 2))
