"""Train and test a model as a configuration says: ``videonet run``."""

from videonet.commands.run import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
