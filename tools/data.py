"""Check, prepare and look at a data set, or at one file: ``videonet data``."""

from videonet.commands.data import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
