"""Write a trained model for use outside of this project: ``videonet export``."""

from videonet.commands.export import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
