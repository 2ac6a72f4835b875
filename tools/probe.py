"""How good are features? ``videonet probe``."""

from videonet.commands.probe import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
