"""A page and an HTTP API over trained models: ``videonet serve``."""

from videonet.commands.serve import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
