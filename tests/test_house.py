"""The laws of the house, read off the source with `ast`: layers, doors of vendors, sizes, and who may make what."""

import ast
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / "formalgr"
FILES = sorted(ROOT.rglob("*.py"))

# a package imports only from packages of a smaller rank, and from itself; equal rank: blind to each other
RANKS = {
    "core": 0,
    "operators": 1,
    "graph": 2,
    "spec": 3,
    "bounds": 4,
    "attacks": 4,
    "solvers": 4,
    "search": 5,
    "verify": 6,
    "runs": 7,
    "global_robustness": 8,
    "experiments": 9,
    "report": 9,
    "cli": 10,
    "": 11,  # formalgr/*.py: the public API and `python -m formalgr`
}

DOORS = {
    "pulp": ["solvers/pulp_backend.py"],
    "highspy": ["solvers/highs_backend.py"],
    "z3": ["solvers/z3_backend.py"],
    "maraboupy": ["solvers/marabou_backend.py"],
    "onnx": ["graph/onnx_", "verify/checker/"],
    "onnxruntime": ["graph/runtime.py"],
    "flint": ["core/exact.py", "verify/checker/"],
    "time": ["core/budget.py"],
    "multiprocessing": ["runs/workers.py"],
    # to own processes; never a file
    "pickle": ["core/pickles.py", "runs/workers.py", "runs/cluster.py", "solvers/child.py"],
    "ray": ["runs/cluster.py"],
}

HEAVY = {"torch", "matplotlib", "scipy", "onnx", "onnxruntime", "pulp", "highspy", "z3"}
"""Imported inside functions, so that `formalgr --version` and tiny instances start at once."""

MODULES = [pytest.param(path, id=str(path.relative_to(ROOT))) for path in FILES]


def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def _imports(tree: ast.AST):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            yield node.module


def _package(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else ""


@pytest.mark.parametrize("path", MODULES)
def test_imports_go_down_the_layers(path):
    mine = _package(path)
    for name in _imports(_tree(path)):
        parts = name.split(".")
        if parts[0] != "formalgr" or len(parts) < 2 or parts[1] not in RANKS:
            continue
        other = parts[1]
        assert other == mine or RANKS[other] < RANKS[mine], f"{mine or 'formalgr'} imports {name}"


@pytest.mark.parametrize("path", sorted((ROOT / "verify" / "checker").glob("*.py")), ids=lambda path: path.name)
def test_the_checker_shares_nothing_with_what_it_checks(path):
    for name in _imports(_tree(path)):
        assert not name.startswith("formalgr") or name.startswith("formalgr.verify.checker"), f"imports {name}"
        assert name.split(".")[0] in {*sys.stdlib_module_names, "formalgr", "numpy", "onnx", "flint"}


def test_the_checker_can_be_read_in_an_afternoon():
    files = (ROOT / "verify" / "checker").rglob("*.py")
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files) < 900


def test_every_package_has_a_rank():
    assert {_package(path) for path in FILES} <= set(RANKS)


@pytest.mark.parametrize("path", MODULES)
def test_vendors_have_one_door(path):
    here = path.relative_to(ROOT).as_posix()
    for name in _imports(_tree(path)):
        doors = DOORS.get(name.split(".")[0])
        assert doors is None or any(here.startswith(door) for door in doors), f"{here} imports {name}"


@pytest.mark.parametrize("path", MODULES)
def test_heavy_packages_are_imported_where_used(path):
    top = ast.Module([node for node in _tree(path).body if not isinstance(node, (ast.FunctionDef, ast.ClassDef))], [])
    assert not {name.split(".")[0] for name in _imports(top)} & HEAVY


@pytest.mark.parametrize("path", MODULES)
def test_files_functions_and_signatures_stay_small(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    for node in ast.walk(_tree(path)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            assert node.end_lineno - node.lineno < 60, f"{node.name} is too long"
            count = len(node.args.posonlyargs) + len(node.args.args) + len(node.args.kwonlyargs)
            count -= bool(node.args.args) and node.args.args[0].arg in ("self", "cls")
            assert count <= 7, f"{node.name} has {count} parameters"


@pytest.mark.parametrize("path", MODULES)
def test_modules_say_what_flows_and_what_to_trust(path):
    text = ast.get_docstring(_tree(path)) or ""
    if path.name != "__init__.py":
        assert "In:" in text and "Out:" in text and "Trust:" in text


@pytest.mark.parametrize("path", MODULES)
def test_only_replay_makes_counterexamples(path):
    calls = [node for node in ast.walk(_tree(path)) if isinstance(node, ast.Call)]
    made = any(isinstance(call.func, ast.Name) and call.func.id == "Counterexample" for call in calls)
    assert not made or path.relative_to(ROOT).as_posix() == "attacks/replay.py"


@pytest.mark.parametrize("path", MODULES)
def test_print_and_environment_belong_to_the_rim(path):
    package = _package(path)
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print":
            assert package in ("cli", "report"), "print outside cli and report"
        if isinstance(node, ast.Attribute) and node.attr in ("environ", "getenv"):
            here = path.relative_to(ROOT).as_posix()
            assert package == "cli" or here == "runs/workers.py", "environment read outside cli"


@pytest.mark.parametrize("path", MODULES)
def test_nothing_that_is_read_is_run(path):
    """Arrays are read without pickle; no text is evaluated."""
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Call):
            name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
            assert name not in ("eval", "exec", "compile") or ast.unparse(node.func) in ("re.compile", "model.eval")
            if name in ("read_array", "open_memmap") or ast.unparse(node.func) == "np.load":
                given = {word.arg: ast.unparse(word.value) for word in node.keywords}
                assert given.get("allow_pickle") == "False", f"{ast.unparse(node)} may read a pickle"


@pytest.mark.parametrize("path", MODULES)
def test_verdict_words_belong_to_report(path):
    if _package(path) in ("report", "cli"):
        return
    words = {"sat", "unsat", "timeout"}
    if path.name == "instances.py":
        words = words - {"timeout"}  # there it is the name of a column
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and "solvers" not in path.parts:
            assert node.value not in words, f"the word {node.value!r} belongs to report/words.py"


@pytest.mark.parametrize("path", MODULES)
def test_public_names_have_docstrings(path):
    for node in _tree(path).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_"):
            assert ast.get_docstring(node), f"{node.name} has no docstring"
