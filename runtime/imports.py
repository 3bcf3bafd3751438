"""Users' own code, named in langgraph.json as `./file.py:name` or `package.module:name`.

A file is imported under the name that other code would import it by, where it has one: then its
classes exist once, relative imports work, and checkpoints that name a class find it again.
"""

import hashlib
import importlib
import importlib.util
import os
import re
import sys
import traceback
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

from clew.runtime import errors


def load(reference: str, folders: Sequence[Path]) -> tuple[ModuleType, object]:
    """The module and the object. `folders` are the import path; files are relative to the first.

    This runs users' code: call it in a thread, where it may even run an event loop of its own.
    """
    place, _, name = reference.rpartition(":")
    with blamed(folders):
        importlib.invalidate_caches()
        is_file = place.endswith(".py") or "/" in place
        module = file(folders[0] / place, folders) if is_file else importlib.import_module(place)
    try:
        return module, getattr(module, name)
    except AttributeError:
        hint = errors.suggest(name, vars(module))
        raise errors.LoadError(f"{module.__file__} has no {name}.{hint}") from None


def file(path: Path, folders: Sequence[Path]) -> ModuleType:
    path = path.resolve()
    for name in names(path, [folder.resolve() for folder in folders]):
        if leads(name, path):
            return importlib.import_module(name)
    # The same name at every start and on every machine: checkpoints may hold it.
    inner = os.path.relpath(path, folders[0].resolve())
    digest = hashlib.sha256(inner.encode()).hexdigest()[:8]
    name = f"clew_file_{re.sub(r'[^0-9A-Za-z_]', '_', path.stem)}_{digest}"
    while known := sys.modules.get(name):
        if known.__file__ == str(path):
            return known
        name += "_"  # another project in this process has such a file too
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise errors.LoadError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def names(path: Path, folders: Sequence[Path]) -> Iterator[str]:
    """The names `path` may have, the likeliest first: in its package, then in the inmost folder."""
    package = path.parent
    while (package / "__init__.py").is_file() and package != folders[0]:
        package = package.parent
    inmost = sorted(folders, key=lambda folder: len(folder.parts), reverse=True)
    for folder in [package, *inmost] if package != path.parent else inmost:
        if path.is_relative_to(folder):
            inner = path.relative_to(folder).with_suffix("").parts
            if all(part.isidentifier() for part in inner):
                yield ".".join(inner)


def leads(name: str, path: Path) -> bool:
    """Whether importing `name` would give `path`. Parents are imported only where they are ours."""
    steps = name.split(".")
    for depth in range(1, len(steps)):
        folder = path.parents[len(steps) - depth - 1]
        spec = find(".".join(steps[:depth]))
        places = spec.submodule_search_locations if spec else None
        if folder not in [Path(place).resolve() for place in places or ()]:
            return False
    spec = find(name)
    return spec is not None and spec.origin is not None and Path(spec.origin).resolve() == path


def find(name: str) -> ModuleSpec | None:
    try:
        return importlib.util.find_spec(name)
    except ValueError:  # a module without a spec, such as __main__
        return None


@contextmanager
def blamed(folders: Sequence[Path]) -> Generator[None]:
    """Turn whatever users' code raises into one sentence with its file and line."""
    try:
        yield
    except errors.LoadError:
        raise
    except (Exception, SystemExit) as error:  # the boundary to code that is not ours
        raise errors.LoadError(describe(error, folders)) from error


def describe(error: BaseException, folders: Sequence[Path]) -> str:
    if isinstance(error, SyntaxError):
        return f"{error.filename} line {error.lineno}: {type(error).__name__}: {error.msg}"
    reason = f"{type(error).__name__}: {error}".strip()
    if isinstance(error, ModuleNotFoundError):
        reason += ". Install it, or add the folder that has it to `dependencies`."
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename
        and any(Path(frame.filename).is_relative_to(folder) for folder in folders)
    ]
    return f"{frames[-1].filename} line {frames[-1].lineno}: {reason}" if frames else reason
