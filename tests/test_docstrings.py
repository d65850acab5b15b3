"""What other rooms call is documented: functions that two or more rooms import describe each of their parameters."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

MIN_ROOMS, MIN_PARAMETERS = 2, 2


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """The room of a module: segpipe.data.formats.source -> data."""
    parts = module.split(".")
    return parts[1] if parts[0] == "segpipe" and len(parts) > 1 else parts[0]


def imports_of(tree: ast.Module) -> list[tuple[str, str]]:
    """The (module, name) pairs that a file imports from segpipe, also inside functions."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return [(n.module, a.name) for n in nodes if n.module and n.module.startswith("segpipe") for a in n.names]


def shared_functions(root: Path) -> dict[tuple[str, str], ast.FunctionDef]:
    """The functions that modules of at least `MIN_ROOMS` other rooms import, by module and name."""
    files = [*(root / "segpipe").rglob("*.py"), *(root / "flows").rglob("*.py")]
    trees = {module_name(path.relative_to(root)): ast.parse(path.read_text()) for path in files}
    defined = {(m, n.name): n for m, t in trees.items() for n in t.body if isinstance(n, ast.FunctionDef)}
    re_exports = {
        (module, alias.asname or alias.name): (node.module, alias.name)
        for module, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module
        for alias in node.names
    }
    rooms: dict[tuple[str, str], set[str]] = defaultdict(set)
    for module, tree in trees.items():
        for key in imports_of(tree):
            while key not in defined and key in re_exports:
                key = re_exports[key]
            if key in defined and room(module) != room(key[0]):
                rooms[key].add(room(module))
    return {key: defined[key] for key, users in rooms.items() if len(users) >= MIN_ROOMS}


def test_shared_functions_document_their_parameters(repo_root: Path) -> None:
    shared = shared_functions(repo_root)
    assert len(shared) > 40, "the search itself works"
    missing = []
    for (module, name), function in shared.items():
        names = [argument.arg for argument in [*function.args.args, *function.args.kwonlyargs]]
        described = (ast.get_docstring(function) or "").partition("Args:")[2]
        if len(names) >= MIN_PARAMETERS:
            missing += [f"{module}.{name}: {argument}" for argument in names if f"{argument}:" not in described]
    assert not missing, "\n".join(missing)
