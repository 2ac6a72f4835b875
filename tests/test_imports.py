"""Which module imports which: no circles, and only downwards through the rooms of the package."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# The rooms from the bottom to the top; a module imports from its own room and from those below.
ROOMS = (
    *("terminal", "errors", "choices", "files", "figures", "fork_server"),
    *("config", "ops", "data", "checkpoint", "heads", "models", "devices", "tasks"),
    *("engine", "benchmark", "inference", "predict", "serving", "finetuning"),
    *("commands", "environment", "cli", "__main__"),
)
# (room, another one below that it must not import all the same)
FORBIDDEN = {
    *(("ops", "config"), ("heads", "config"), ("models", "config")),  # they take arguments
    ("inference", "engine"),  # inference needs nothing of training
}


def modules() -> dict[str, Path]:
    """All modules of the package by dotted name; a package is its ``__init__``."""
    found = {}
    for path in sorted((ROOT / "videonet").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, known: dict[str, Path]) -> set[str]:
    """The modules of the package that a file imports anywhere in it, also within functions.

    ``from package import name`` is an import of the package, and of the module if it is one.
    """
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute in videonet"
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
    return found & known.keys()


MODULES = modules()
IMPORTS = {name: imports(path, MODULES) - {name} for name, path in MODULES.items()}


def circles(graph: dict[str, set[str]]) -> Iterator[list[str]]:
    """Groups of modules that import each other, directly or through others."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    open_: list[str] = []

    def visit(name: str) -> Iterator[list[str]]:
        numbers[name] = lowest[name] = len(numbers)
        open_.append(name)
        for other in sorted(graph[name]):
            if other not in numbers:
                yield from visit(other)
            if other in open_:
                lowest[name] = min(lowest[name], lowest[other])
        if lowest[name] == numbers[name]:
            group = open_[open_.index(name) :]
            del open_[open_.index(name) :]
            if len(group) > 1:
                yield sorted(group)

    for name in graph:
        if name not in numbers:
            yield from visit(name)


def room(module: str) -> str:
    """The room of a module; empty for the package itself."""
    return (module.split(".") + [""])[1]


def is_upward(module: str, other: str) -> bool:
    """Whether a module must not import another one."""
    here, there = room(module), room(other)
    if not there:  # the package itself, which holds the version
        return ROOMS.index(here) < ROOMS.index("commands")
    return ROOMS.index(there) > ROOMS.index(here) or (here, there) in FORBIDDEN


def test_every_room_has_its_place():
    assert {room(module) for module in MODULES} - {""} == set(ROOMS)


def test_no_circles():
    assert list(circles(IMPORTS)) == []


def test_imports_run_downwards():
    upward = {
        (module, other)
        for module, others in IMPORTS.items()
        if room(module)  # the package itself re-exports
        for other in others
        if is_upward(module, other)
    }
    assert sorted(upward) == []


def test_circles_and_upward_imports_are_found():
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"a"}, "d": {"e"}, "e": {"d"}, "f": {"a"}}
    assert sorted(circles(graph)) == [["a", "b", "c"], ["d", "e"]]
    assert is_upward("videonet.ops.grid", "videonet.models.vit")
    assert is_upward("videonet.inference.sources", "videonet.engine.ema")
    assert is_upward("videonet.models.vit", "videonet.config.keys")
    assert is_upward("videonet.data.loading.build", "videonet")
    assert not is_upward("videonet.models.vit", "videonet.ops.grid")


def test_imports_within_functions_are_seen(tmp_path):
    file = tmp_path / "x.py"
    file.write_text("def f():\n    from videonet.ops import grid\n    import videonet.errors\n")
    found = imports(file, MODULES)
    assert found == {"videonet.ops", "videonet.ops.grid", "videonet.errors"}
