"""``python -m ep_neuro`` is the command line."""

from ep_neuro.cli import main

if __name__ == "__main__":
    main()
