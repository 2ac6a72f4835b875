"""Rewrite a checkpoint in the names of another project: ``videonet convert``."""

from videonet.commands.convert import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
