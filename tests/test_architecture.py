"""The house rules that a reader relies on, read out of the source: who imports whom, and what explains itself."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("tools", "engine", "kernels")
FILES = {
    path.relative_to(ROOT).as_posix(): ast.parse(path.read_text("utf-8"))
    for package in PACKAGES
    for path in sorted((ROOT / package).rglob("*.py"))
}
DOCUMENTED = [name for name in FILES if name.startswith(("engine/", "kernels/"))]

# What each package may import of the project.
ALLOWED = {
    "tools": {"tools", "engine", "kernels"},
    "engine": {"engine", "kernels"},
    "kernels": {"kernels"},
}
# The ONNX operators, engine/onnx_ops, are not among them: they work on arrays.
ONNX_FILES = {f"engine/onnx_{name}.py" for name in ("reader", "writer", "graph", "backend")}
# One knows picture files, the other draws text on pictures; it reads and writes none.
PILLOW_FILES = {"tools/images.py", "tools/sheet.py"}
OPTIONAL = {"torch", "matplotlib", "dask", "distributed", "cupy"}


def imported(tree):
    """Return the names of all modules that a file imports, wherever in it."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute, so that these checks see them"
            names.add(node.module)
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(("import_module", "__import__")):
            names.update(part.value for part in node.args if isinstance(part, ast.Constant))
    return names


def reached(name):
    """Return the project's files that loading one of them loads, itself included; packages' own files are left out."""
    found, waiting = set(), {name}
    while waiting:
        one = waiting.pop()
        found.add(one)
        waiting |= {f"{module.replace('.', '/')}.py" for module in imported(FILES[one])} & set(FILES) - found
    return found


def tops(tree):
    return {name.partition(".")[0] for name in imported(tree)}


def at_load_time(tree):
    """Return the tree without the bodies of its functions: what is imported when they are called is left out."""
    tree = ast.parse(ast.unparse(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [ast.Pass()]
    return tree


def test_the_files_are_found():
    assert {"tools/images.py", "engine/losses.py", "engine/onnx_reader.py", "kernels/cpu/conv.py"} <= set(FILES)


@pytest.mark.parametrize("name", FILES)
def test_imports_run_downwards_only(name):
    package = name.partition("/")[0]
    of_the_project = tops(FILES[name]) & {*PACKAGES, "tests"}
    assert of_the_project <= ALLOWED[package]


def test_engine_and_kernels_are_used():
    """The check above sees something: each package does import the next."""
    for package, lower in (("tools", "engine"), ("engine", "kernels")):
        assert any(lower in tops(tree) for name, tree in FILES.items() if name.startswith(f"{package}/"))


@pytest.mark.parametrize(
    ("library", "allowed"),
    [
        ("onnx", lambda name: name in ONNX_FILES),
        ("google", lambda name: name in ONNX_FILES),
        ("PIL", lambda name: name in PILLOW_FILES),
        ("cupy", lambda name: name.startswith("kernels/cuda/")),
    ],
)
def test_a_library_is_imported_where_it_belongs_and_nowhere_else(library, allowed):
    assert [name for name, tree in FILES.items() if library in tops(tree) and not allowed(name)] == []
    if library == "onnx":
        assert {name for name, tree in FILES.items() if library in tops(tree)} == ONNX_FILES
    if library in ("onnx", "PIL"):
        assert any(library in tops(tree) for tree in FILES.values())


@pytest.mark.parametrize("name", ["graph", "fuse", "plan", "scaling", "vgg", "onnx_ops/conv"])
def test_what_works_on_a_graph_knows_no_file_format(name):
    """A node is made, merged, planned and named without what reads it from a file."""
    assert reached(f"engine/{name}.py") & ONNX_FILES == set()
    assert reached("engine/load.py") & ONNX_FILES == {"engine/onnx_reader.py", "engine/onnx_graph.py"}


def test_the_definition_shares_nothing_with_the_kernels():
    """A gradient's last judge: what it took from a kernel would be wrong there and here alike."""
    names = imported(FILES["engine/gradcheck/definition.py"])
    assert {name for name in names if name.startswith("kernels")} == {"kernels.geometry", "kernels.geometry.Window"}
    assert not any(name.startswith(("engine.losses", "engine.objective")) for name in names)


@pytest.mark.parametrize("name", FILES)
def test_optional_libraries_are_imported_where_they_are_used(name):
    """Loading a module needs none of them; kernels/cuda is loaded only where cupy is there."""
    needed = tops(at_load_time(FILES[name])) & OPTIONAL
    allowed = {"cupy"} if name.startswith("kernels/cuda/") else set()
    assert needed <= allowed


def test_the_command_line_and_the_engine_load_without_the_kernels_for_cuda():
    for name, tree in FILES.items():
        if not name.startswith("kernels/cuda/"):
            assert not any(module.startswith("kernels.cuda") for module in imported(at_load_time(tree))), name


def environment_variables(tree):
    """Return the environment variables that a file asks for, "?" where they are not written out."""
    found = set()
    calls = {"environ.get", "environ.pop", "environ.setdefault", "getenv"}
    for node in ast.walk(tree):
        name = ast.unparse(node).removeprefix("os.") if isinstance(node, ast.Attribute | ast.Name) else ""
        if name in ("environ", "getenv", "environb", "getenvb"):
            found.add("?")
    for node in ast.walk(tree):
        key = None
        if isinstance(node, ast.Call) and ast.unparse(node.func).removeprefix("os.") in calls:
            key = node.args[0]
        elif isinstance(node, ast.Subscript) and ast.unparse(node.value).removeprefix("os.") == "environ":
            key = node.slice
        if isinstance(key, ast.Constant):
            found.add(key.value)
    return found


@pytest.mark.parametrize("name", FILES)
def test_nothing_is_steered_by_environment_variables(name):
    """What steers a run is an argument, so that it is in the help text and in the picture's settings.

    Where the system and other programs keep caches, where a child process finds this project, and what pip is told by
    its user, is not for an argument to say.
    """
    expected = {
        "tools/cache.py": {"?", "XDG_CACHE_HOME", "LOCALAPPDATA"},
        "tools/weights/places.py": {"?"},
        "tools/wheel.py": {"?"},
        "tools/benching/memory.py": {"?", "PYTHONPATH"},
    }
    assert environment_variables(FILES[name]) <= expected.get(name, set())


def public(node, prefix=""):
    """Yield the public functions and classes of a module, and the classes' public methods."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield f"{prefix}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{child.name}.")


@pytest.mark.parametrize("name", DOCUMENTED)
def test_everything_public_of_engine_and_kernels_has_a_docstring(name):
    tree = FILES[name]
    assert ast.get_docstring(tree), "the module itself"
    assert [label for label, node in public(tree) if not ast.get_docstring(node)] == []


@pytest.mark.parametrize("name", FILES)
def test_all_lists_names_that_exist(name):
    tree = FILES[name]
    listed = [
        ast.literal_eval(node.value)
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
    ]
    defined = set()
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            defined.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            defined.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            defined.update(ast.unparse(target) for target in targets)
    for names in listed:
        assert sorted(set(names)) == sorted(names)
        assert set(names) <= defined
