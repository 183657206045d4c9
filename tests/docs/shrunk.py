"""What is smaller when tests execute the commands of the pages, and what they do not execute."""

from __future__ import annotations

BEHIND = {
    "train": "--set epochs=1",
    "train zoo:digits": "--set data=npz:digits.npz",
    "train zoo:cifar10_resnet": "--set data=npz:images.npz",
    "learn": "--samples 20 --limit 20",
    "run": "--limit 4",
    "evaluate": "--limit 4",
    "compare": "--limit 2",
    "view": "--limit 2",
    "examples/nir_readers.py": "--limit 4",
    "examples/stories.py": "--data-root data --samples 20 --points 1 --test 20 --held-out 10 "
    "--rate 0.02",
    "examples/paper/depth_ablation.py": "--depths 3 --epochs 1 --seeds 1",
    "targets.crossbar.study": "--seeds 1",
    "targets.crossbar.device_study": "--seeds 1 --samples 20 --only states",
    "targets.experiments.onchip.learning_choices": "--seeds 1 --samples 10 --only rule",
}
"""What is put behind a command that begins so; of an option that is there twice the last counts."""

INSTEAD = {
    "epochs=5": "epochs=1",
    "Workers(jobs=3)": "Workers(jobs=1)",
    "    digits.test,": "    digits.test.head(40),",
}
"""What stands in a block of Python for what the page says."""

MEANT = {
    "CONFIG": "zoo:digits_dense",
    "MODEL": "hub:digits_resnet",
    "RUN": "runs/five",
    "MODEL|PROGRAM": "hub:digits_resnet",
    "PROGRAM": "program",
    "NETWORK": "digits_resnet",
    "FILE": "published.pt",
    "FILE.nir": "net.nir",
    "npz:FILE": "npz:images.npz",
    "npz:FILE:test": "npz:images.npz:test",
    "data=npz:FILE": "data=npz:images.npz",
    "DIR": "written",
    "T": "reference",
    "COMMAND": "train",
    "seed=N": "seed=1",
}
"""Words in capitals; the fixture `scratch` makes what they and `BEHIND` name, and a small MNIST."""

SLOW = (
    "ep-neuro demo",
    "ep-neuro compile zoo:hopfield_resnet13",
    "ep-neuro learn runs/differences",
    "ep-neuro check runs/mnist-conv-learnt",
    "ep-neuro check runs/cifar-chip-learnt",
    "ep-neuro compare zoo:digits_residual --with nest",
    "ep-neuro train zoo:digits_residual # runs",
    "ep-neuro compare runs/digits_residual-0",
    "ep-neuro train zoo:cifar10_resnet",
    "ep-neuro compare runs/cifar10_resnet-0",
    "ep-neuro compile runs/cifar10_resnet-0",
    "python -m ep_neuro train zoo:cifar10_resnet",
    "python examples/",
    "ep-neuro compare hub:digits_resnet --sweep bits=8,6,4,3,2 --jobs",
    "python -m targets.crossbar.study",
    "python -m targets.crossbar.device_study",
    "ep-neuro check runs/rotated/program",
    "python -m targets.experiments.idea",
)
"""Commands of over a second or two, which only ``pytest -m slow`` executes."""

ELSEWHERE = {
    "make ": "it builds or tests the whole clone; every target is looked up in the Makefile",
    "sh tools/machines.sh": "it tests the whole clone",
    ".ci/run": "it tests the whole clone",
    ".venv/bin/python -m pytest": "it is this suite",
    ".venv/bin/python -m tests.": "tests/fuzz and tests/crash hold a small share of it",
    ".venv/bin/pre-commit": "it changes the clone",
    "pytest": "it is this suite",
    "pip ": "it installs packages",
    "uv ": "it asks a package registry",
    "python3.10 ": "it installs packages",
    "export ": "it is of the shell alone",
    "ep-neuro --install-completion": "it writes into the user's shell",
    "ep-neuro compile hub:cifar10_resnet --target nest": "7 GB of memory; conformance has nest",
    "ep-neuro run runs/nest": "the same",
    "ep-neuro compare hub:digits_resnet --sweep bits=8,6,4,3,2 --dask": "it takes a cluster; "
    "tests/unit/experiments/test_jobs.py has one of two workers",
    "import signal\n\nfrom dask_jobqueue": "it takes a Slurm cluster",
    "torchrun": "it takes several GPUs; tests/unit/training/test_distributed.py has two ranks",
    "python -m ep_neuro train examples/paper/": "hours of a GPU; tests/examples/test_paper.py",
    "sh examples/paper/gpu.sh": "tests/examples/test_paper.py executes it on the CPU",
    "python examples/NAME.py": "tests/examples/test_examples.py executes each",
    "python examples/stories.py rotated runs/": "networks of another page; the same executes one",
}
"""What is not executed, by how it begins, and why."""
