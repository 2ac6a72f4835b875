"""Write the demo data set: ``videonet demo-data``."""

from videonet.commands.demo_data import main
from videonet.errors import run_tool

if __name__ == "__main__":
    run_tool(main)
