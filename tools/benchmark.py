"""Measure speed and memory, side by side with other libraries: ``videonet benchmark``."""

from videonet.commands.benchmark import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
