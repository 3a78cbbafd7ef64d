"""What the benchmarks import is still there: they are run by hand, and a moved name would be seen only then."""

import ast
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BENCHMARKS = ROOT / "benchmarks"


@cache
def file_of(module: str) -> Path | None:
    """The file of a module of ours, or None for others'."""
    ours = module.split(".", maxsplit=1)[0] == "llmopt"
    base = ROOT.joinpath(*module.split(".")) if ours else BENCHMARKS / (module or "-")
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.is_file()), None)


@cache
def names_in(path: Path) -> frozenset[str]:
    """What a module defines or imports at its top, and its submodules where it is a package."""
    found = {child.stem for child in path.parent.iterdir()} if path.name == "__init__.py" else set()
    tops = ast.parse(path.read_text(encoding="utf-8")).body
    for node in (
        inner
        for top in tops
        for inner in (top, *(getattr(top, "body", []) if isinstance(top, ast.If | ast.Try) else []))
    ):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {inner.id for target in targets for inner in ast.walk(target) if isinstance(inner, ast.Name)}
    return frozenset(found)


@pytest.mark.parametrize("script", sorted(path.name for path in BENCHMARKS.glob("*.py")))
def test_every_imported_name_is_there(script):
    tree = ast.parse((BENCHMARKS / script).read_text(encoding="utf-8"))
    wanted = [
        (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module != Path(script).stem and file_of(node.module or "")
        for alias in node.names
    ]
    missing = [f"{module}.{name}" for module, name in wanted if name not in names_in(file_of(module))]
    gone = [
        node.module
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("llmopt") and not file_of(node.module)
    ]
    assert missing + gone == []
