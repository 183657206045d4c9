"""A few sweeps, run again and again: on a GPU recorded once as a CUDA graph, replayed after.

A sweep of a small network is a hundred short kernels, and to launch them takes longer than to run
them. A graph launches all of them at once. It reads and writes fixed memory, into which states are
copied at the end of each replay. Recording takes as long as a few plain sweeps, so it serves
schedules with a fixed number of sweeps, as published ones and deep networks have.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from ep_neuro.network.network import State

TRUSTED = 1e-3
"""Largest difference between a replay and the same sweeps run plainly, relative to the states."""


class GraphWarning(UserWarning):
    """Sweeps cannot be recorded here, so they are launched one kernel at a time."""


Steps = tuple[float, ...]
"""Relaxations of successive sweeps."""

Replay = Callable[[], None]
"""Runs what was recorded again, on the same memory."""

Recorder = Callable[[Callable[[], None]], Replay]


class Sweeps:
    """Runs `sweeps` on `states`; what comes again is recorded and replayed.

    The first recording of a process is checked against a plain run, and if it differs or fails, a
    `GraphWarning` says so once and all sweeps run plainly from then on.

    Parameters
    ----------
    sweeps : callable
        One sweep for each of the relaxations that it is given. Moves the tensors of `states`, by
        putting others in their place, and returns the residual of each sample, (N,). What else it
        reads must stay where it is in memory.
    states : sequence of State
        Dictionaries that `sweeps` reads and changes.
    recorder : callable, optional
        Turns a function into what can be replayed; None: there is none, and all runs are plain.
    """

    def __init__(
        self, sweeps: Callable[[Steps], Tensor], states: Sequence[State], recorder: Recorder | None
    ) -> None:
        self._sweeps, self._states, self._recorder = sweeps, states, recorder
        self._replays: dict[Steps, Replay | None] = {}
        self._held: list[State] = []
        self._residual = torch.empty(0)

    def __call__(self, steps: Steps) -> Tensor:
        """A sweep for each of `steps`; the residual of each sample, (N,), until the next call."""
        if self._recorder is not None and steps in self._replays:
            replay = self._replays[steps] or self._record(steps, self._recorder)
            if replay is not None:
                replay()
                self._show(self._held)
                return self._residual
        # Once plainly: that prepares weights and libraries.
        self._replays[steps] = None
        return self._sweeps(steps)

    def _record(self, steps: Steps, recorder: Recorder) -> Replay | None:
        start = [dict(state) for state in self._states]
        if not self._held:
            self._held = [{p: v.clone() for p, v in state.items()} for state in start]
            first = next(iter(start[0].values()))
            self._residual = first.new_zeros(len(first))
        self._hold(start)
        try:
            replay = recorder(lambda: self._body(steps))
            if not _checked:
                self._check(steps, replay, start)
        except RuntimeError as error:
            self._show(start)
            self._recorder = None
            _give_up(error)
            return None
        self._replays[steps] = replay
        return replay

    def _body(self, steps: Steps) -> None:
        """The sweeps on fixed memory."""
        self._show(self._held)
        self._residual.copy_(self._sweeps(steps))
        self._hold(self._states)

    def _check(self, steps: Steps, replay: Replay, start: Sequence[State]) -> None:
        """Refuse a replay that differs from the sweeps; what is held is `start` afterwards."""
        replay()
        found = [{p: v.clone() for p, v in held.items()} for held in self._held]
        self._show(start)
        self._sweeps(steps)
        for state, values in zip(self._states, found, strict=True):
            for p, v in values.items():
                if not torch.allclose(v, state[p], rtol=0, atol=TRUSTED * float(v.abs().max())):
                    raise RuntimeError(f"a replay leaves other states of '{p}' than the sweeps")
        self._hold(start)
        _checked.append(True)

    def _hold(self, values: Sequence[State]) -> None:
        for held, value in zip(self._held, values, strict=True):
            for p, v in held.items():
                v.copy_(value[p])

    def _show(self, values: Sequence[State]) -> None:
        """Give the states `values`, under new names: what is known of a tensor may be outdated."""
        for state, value in zip(self._states, values, strict=True):
            state.update({p: v.detach() for p, v in value.items()})


def recorder_of(tolerance: float, device: torch.device) -> Recorder | None:
    """Recorder of the sweeps of a schedule on `device`; None where they are better run plainly.

    That is on a CPU, where recording has failed, and under a `tolerance`: samples leave as they
    settle then, and a recording serves one number of samples.
    """
    return CudaGraph if device.type == "cuda" and tolerance == 0 and not _failed else None


class CudaGraph:
    """`function` as a CUDA graph."""

    def __init__(self, function: Callable[[], None]) -> None:
        self._graph = torch.cuda.CUDAGraph()
        here, aside = torch.cuda.current_stream(), torch.cuda.Stream()
        aside.wait_stream(here)
        with torch.cuda.stream(aside):
            # What other threads do with the GPU, loading data for instance, is not recorded.
            self._graph.capture_begin(capture_error_mode="thread_local")
            try:
                function()
            finally:
                self._graph.capture_end()
        here.wait_stream(aside)

    def __call__(self) -> None:
        """Launch it."""
        self._graph.replay()


_failed: list[str] = []
"""Why recording was given up, if it was."""

_checked: list[bool] = []
"""Not empty once a recording has been found to do what its sweeps do."""


def _give_up(error: RuntimeError) -> None:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    _failed.append(reason)
    warnings.warn(
        f"CUDA graph: sweeps could not be recorded ({reason[:120]}), so they are launched one "
        "kernel at a time from now on, which is slower and otherwise the same",
        GraphWarning,
        stacklevel=5,
    )
