"""The house rules that a reader relies on, read out of the source: who imports whom, and what explains itself."""

import ast
from pathlib import Path

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
# The ONNX operators, engine/onnx/operators, are not among them: they work on arrays.
ONNX_FILES = {
    f"engine/onnx/{name}.py" for name in ("file", "constants", "image", "scope", "reader", "writer", "graph", "backend")
} | {f"engine/onnx/translate/{name}.py" for name in ("arithmetic", "layers", "layout", "quantized")}
# These know picture files; the last draws text on pictures, and reads and writes none.
PILLOW_FILES = {
    f"tools/media/{name}.py"
    for name in ("picture", "images", "pixels", "color_spaces", "saving", "animation", "tiff", "sheet")
}
OPTIONAL = {"torch", "matplotlib", "dask", "distributed", "cupy", "pillow_heif", "pillow_jxl", "bottle"}


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


def imported_files(tree):
    """Return the project's files that a file imports; of ``from engine import losses`` that is engine/losses.py."""
    files = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            files.update(file_of(alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            files.update(file_of(f"{node.module}.{alias.name}") or file_of(node.module) for alias in node.names)
    return files - {None}


def file_of(module):
    """Return the project's file that a module is, or None."""
    path = module.replace(".", "/")
    return next((file for file in (f"{path}.py", f"{path}/__init__.py") if file in FILES), None)


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
    assert {"tools/media/images.py", "engine/losses.py", "engine/onnx/reader.py", "kernels/cpu/conv.py"} <= set(FILES)


def test_imports_run_downwards_only():
    upwards = {
        name: wrong
        for name, tree in FILES.items()
        if (wrong := (tops(tree) & {*PACKAGES, "tests"}) - ALLOWED[name.partition("/")[0]])
    }
    assert upwards == {}
    # The check sees something: each package does import the next.
    for package, lower in (("tools", "engine"), ("engine", "kernels")):
        assert any(lower in tops(tree) for name, tree in FILES.items() if name.startswith(f"{package}/"))


def test_no_files_import_each_other_in_a_circle():
    """A file can be read after those that it imports."""
    imports = {name: imported_files(tree) for name, tree in FILES.items()}
    left = set(FILES)
    while free := {name for name in left if not imports[name] & (left - {name})}:
        left -= free
    circles = {name: sorted(imports[name] & left) for name in left}
    assert circles == {}


def test_tools_share_rooms_and_not_each_other_s_parts():
    """What two tools need stands in a shared room, or is a network that tools.models loads."""
    shared = {"cli", "media", "models"}
    for name, tree in FILES.items():
        room = name.split("/")[1]
        if not name.startswith("tools/") or room.endswith(".py"):
            continue
        others = {file.split("/")[1] for file in imported_files(tree) if file.startswith("tools/")} - {room}
        assert {other for other in others if not other.endswith(".py")} <= shared, name
        if room in shared:
            assert others <= {"cli": {"media"}, "media": set(), "models": {"cli", "media"}}[room], name
        assert room == "models" or "tools/models/__main__.py" not in imported_files(tree), name


def test_every_tool_is_a_package_that_runs_and_whose_parts_do_not_repeat_its_name():
    for tool in {name.split("/")[1] for name in FILES if name.startswith("tools/") and name.count("/") > 1}:
        assert (f"tools/{tool}/__main__.py" in FILES) == (tool not in ("cli", "media")), tool
        parts = [Path(name).stem for name in FILES if name.startswith(f"tools/{tool}/")]
        assert not [part for part in parts if part.startswith(tool.removesuffix("s"))], tool


def test_a_library_is_imported_where_it_belongs_and_nowhere_else():
    belongs = {
        "onnx": lambda name: name in ONNX_FILES,
        "google": lambda name: name in ONNX_FILES,
        "PIL": lambda name: name in PILLOW_FILES,
        "cupy": lambda name: name == "kernels/cuda/cupy_backend.py",
    }
    users = {library: {name for name, tree in FILES.items() if library in tops(tree)} for library in belongs}
    for library, allowed in belongs.items():
        assert {name for name in users[library] if not allowed(name)} == set(), library
    assert users["onnx"] == ONNX_FILES
    assert users["PIL"]


def test_what_works_on_a_graph_knows_no_file_format():
    """A node is made, merged, planned and named without what reads it from a file."""
    for name in ("graph", "fuse", "plan", "scaling", "vgg", "onnx/operators/conv"):
        assert reached(f"engine/{name}.py") & ONNX_FILES == set(), name
    others = {f"engine/onnx/{name}.py" for name in ("writer", "backend")}
    assert reached("engine/load.py") & ONNX_FILES == ONNX_FILES - others


def test_the_definition_shares_nothing_with_the_kernels():
    """A gradient's last judge: what it took from a kernel would be wrong there and here alike."""
    names = imported(FILES["engine/gradcheck/definition.py"])
    assert {name for name in names if name.startswith("kernels")} == {"kernels.geometry", "kernels.geometry.Window"}
    assert not any(name.startswith(("engine.losses", "engine.objective")) for name in names)


def test_optional_libraries_are_imported_where_they_are_used():
    """Loading a module needs none of them; the one file that is made of cupy is loaded when a GPU is opened."""
    backend = "kernels/cuda/cupy_backend.py"
    for name, tree in FILES.items():
        loaded = at_load_time(tree)
        assert tops(loaded) & OPTIONAL <= ({"cupy"} if name == backend else set()), name
        assert backend not in imported_files(loaded), name


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


def test_nothing_is_steered_by_environment_variables():
    """What steers a run is an argument, so that it is in the help text and in the picture's settings.

    Where the system and other programs keep caches, where a child process finds this project, and what pip is told by
    its user, is not for an argument to say.
    """
    expected = {
        "tools/models/folder.py": {"?", "XDG_CACHE_HOME", "LOCALAPPDATA"},
        "tools/models/weights/places.py": {"?"},
        "tools/models/wheel.py": {"?"},
        "tools/bench/memory.py": {"?", "PYTHONPATH"},
    }
    for name, tree in FILES.items():
        assert environment_variables(tree) <= expected.get(name, set()), name


def public(node, prefix=""):
    """Yield the public functions and classes of a module, and the classes' public methods."""
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield f"{prefix}{child.name}", child
            if isinstance(child, ast.ClassDef):
                yield from public(child, f"{child.name}.")


def test_everything_public_of_engine_and_kernels_has_a_docstring():
    for name in DOCUMENTED:
        assert ast.get_docstring(FILES[name]), f"{name} itself"
        assert [label for label, node in public(FILES[name]) if not ast.get_docstring(node)] == [], name


def test_all_lists_names_that_exist():
    for name, tree in FILES.items():
        assert_all_is_right(name, tree)


def assert_all_is_right(name, tree):
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
        assert sorted(set(names)) == sorted(names), name
        assert set(names) <= defined, name
