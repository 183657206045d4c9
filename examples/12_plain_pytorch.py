"""Train a network in a plain PyTorch loop, with AdamW, then compile it and run it.

    python examples/12_plain_pytorch.py [DIRECTORY]

`ep.loss` is the mean cost at the free equilibrium, and its `backward` fills in the gradients that
equilibrium propagation estimates: whatever works on gradients works as ever. Writes the program to
DIRECTORY/digits.program (runs/examples by default).
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch.utils.data import DataLoader

import compilers
import ep_neuro as ep
import targets

OUT = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/examples")
EPOCHS = 6


def main() -> None:
    digits = ep.data.load("digits")
    order = torch.Generator().manual_seed(0)
    batches = DataLoader(digits.train, batch_size=32, shuffle=True, generator=order)
    net = ep.Network(ep.zoo("digits_dense"), seed=0)
    estimator = ep.FrozenMean(free=ep.Schedule(sweeps=30, tolerance=1e-3))
    optimiser = torch.optim.AdamW(net.parameters(), lr=0.003)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS)
    for epoch in range(EPOCHS):
        for x, y in batches:
            loss = ep.loss(net, x, y, estimator=estimator)
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            optimiser.step()
        scheduler.step()
        x, y = digits.val[:]
        hits = (net(x).argmax(1) == y).float().mean()
        print(f"epoch {epoch + 1}: loss {loss.item():.3f}, validation {hits:.1%}")
    program = compilers.compile(net, target="reference", code="sigma-delta", bits=8)
    compilers.save_program(program, OUT / "digits.program")
    x, y = digits.test[:]
    print(f"test accuracy {(net(x).argmax(1) == y).float().mean():.1%}")
    with targets.open(program) as session:
        result = session.settle(digits.test.x)
    print(f"on the reference {(result.predictions == digits.test.y).mean():.1%}")
    print(f"{result.events_per_sample:.0f} events a sample, {OUT / 'digits.program'}")


if __name__ == "__main__":
    main()
