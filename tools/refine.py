"""Sharper boundaries for masks of any source. ``videonet refine``."""

from videonet.commands.refine import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
