"""``python -m videonet VERB``, for ``torchrun -m videonet run …`` among others."""

from videonet.cli import entry

if __name__ == "__main__":
    entry()
