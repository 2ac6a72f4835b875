"""The table of tasks, whose modules are imported when a task is asked for."""

import importlib

import pytest

from videonet.tasks import TASKS, Task


@pytest.mark.parametrize("name", TASKS)
def test_every_task_is_where_the_table_says(name):
    module, kind = TASKS[name]
    task = getattr(importlib.import_module(module), kind)
    assert issubclass(task, Task) and getattr(task, "name", name) == name
