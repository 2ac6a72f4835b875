"""Does a model look at the order of frames? ``videonet reversed``."""

from videonet.commands.reversed import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
