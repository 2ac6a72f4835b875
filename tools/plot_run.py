"""Draw the learning curves of one run, or of several over one another: ``videonet plot``."""

from videonet.commands.plot import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
