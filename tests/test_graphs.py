"""Graphs from langgraph.json: every stock form loads, runs with our saver, and is left cleanly."""

import asyncio
import json
import logging
import sys
import textwrap
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langgraph.cache.memory import InMemoryCache
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.checkpoint.serde import _msgpack
from langgraph.store.memory import InMemoryStore

from clew.runtime import config, errors, graphs, imports
from clew.runtime.graphs import Graphs

EXAMPLE = Path(__file__).parent.parent / "langgraph.json"

PLAIN = """
    from typing import TypedDict
    from langgraph.graph import START, StateGraph

    class State(TypedDict):
        word: str

    def builder(word="hello"):
        builder = StateGraph(State)
        builder.add_node("say", lambda state: {"word": word})
        builder.add_edge(START, "say")
        return builder
"""

Files = dict[str, str]


@pytest.fixture(autouse=True)
def modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Users' modules of one test are gone for the next."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        origin = getattr(sys.modules[name], "__file__", None) or ""
        if "site-packages" not in origin:
            del sys.modules[name]


def write(folder: Path, files: Files) -> None:
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))


def project(
    folder: Path, files: Files, registered: dict[str, Any] | None = None, **more: Any
) -> config.Config:
    write(folder, files)
    path = folder / "langgraph.json"
    path.write_text(json.dumps({"graphs": registered or {"agent": "./agent.py:graph"}, **more}))
    found = config.read(path)
    config.apply(found)
    return found


async def load(folder: Path, code: str, name: str = "graph") -> Graphs:
    text = textwrap.dedent(PLAIN) + textwrap.dedent(code)
    return await graphs.load(project(folder, {"agent.py": text}, {"agent": f"./agent.py:{name}"}))


async def say(loaded: Graphs, **options: Any) -> str:
    saver = options.pop("checkpointer", InMemorySaver())
    async with loaded.open("agent", checkpointer=saver, store=InMemoryStore(), **options) as graph:
        thread = {"configurable": {"thread_id": str(uuid.uuid4())}}
        return (await graph.ainvoke({"word": ""}, thread))["word"]  # pyright: ignore[reportArgumentType]


async def fault(folder: Path, files: Files, registered: dict[str, Any] | None = None) -> str:
    with pytest.raises(errors.GraphError) as caught:
        await graphs.load(project(folder, files, registered))
    return str(caught.value)


# Forms


@pytest.mark.parametrize(
    "code",
    [
        "graph = builder()",
        "graph = builder().compile()",
        "graph = builder().compile().with_config({'recursion_limit': 9})",
        "def graph(): return builder()",
        "def graph(): return builder().compile()",
        "async def graph(): return builder()",
        "graph = lambda: builder()",
        """
        import functools
        graph = functools.partial(builder, "hello")
        """,
        """
        class Maker:
            def __call__(self, config): return builder(config["configurable"].get("x", "hello"))
        graph = Maker()
        """,
        """
        import contextlib
        @contextlib.contextmanager
        def graph(): yield builder()
        """,
        """
        import contextlib
        @contextlib.asynccontextmanager
        async def graph(config): yield builder().compile()
        """,
        "def graph(): yield builder()",
        "async def graph(runtime): yield builder()",
        """
        from langgraph.func import entrypoint
        @entrypoint()
        async def graph(given: dict) -> dict: return {"word": "hello"}
        """,
    ],
)
async def test_every_form_of_a_graph_runs(tmp_path: Path, code: str) -> None:
    assert await say(await load(tmp_path, code)) == "hello"


@pytest.mark.parametrize(
    "signature",
    [
        "config: RunnableConfig, runtime: ServerRuntime",
        "runtime: ServerRuntime[Ctx], config: RunnableConfig",
        "a: 'ServerRuntime[Ctx]', b: 'RunnableConfig', *rest, c=None, **more",
        "b: RunnableConfig | None, /, *, a: ServerRuntime",
        "runtime, config",
        "a: 'ServerRuntime[Missing]', b: 'RunnableConfig'",
    ],
)
async def test_a_factory_gets_what_its_signature_asks_for(tmp_path: Path, signature: str) -> None:
    code = f"""
        from typing import Any
        from langchain_core.runnables import RunnableConfig
        from langgraph_sdk.runtime import ServerRuntime
        Ctx = Any
        def graph({signature}):
            given = list(locals().values())
            runtime = next(x for x in given if hasattr(x, "access_context"))
            config = next(x for x in given if isinstance(x, dict) and "configurable" in x)
            return builder(f"{{config['configurable']['who']}} {{runtime.access_context}}")
    """
    loaded = await load(tmp_path, code)
    told = {"configurable": {"who": "ann"}}
    assert await say(loaded, config=told) == "ann threads.create_run"
    assert await say(loaded, config=told, access_context="threads.read") == "ann threads.read"


async def test_a_sole_parameter_of_any_name_is_the_config(tmp_path: Path) -> None:
    loaded = await load(tmp_path, "def graph(c): return builder(c['configurable']['who'])")
    assert await say(loaded, config={"configurable": {"who": "bob"}}) == "bob"


async def test_the_runtime_tells_user_store_and_typed_context(tmp_path: Path) -> None:
    code = """
        from dataclasses import dataclass
        from langgraph_sdk.runtime import ServerRuntime

        @dataclass
        class Ctx:
            tone: str

        def graph(runtime: ServerRuntime[Ctx]):
            running = runtime.execution_runtime
            tone = running.context.tone if running else "none"
            store = type(runtime.store).__name__
            return builder(f"{runtime.user} {store} {tone}")
    """
    loaded = await load(tmp_path, code)
    user: Any = "ann"
    context = {"tone": "kind", "not in the schema": 1}
    assert await say(loaded, user=user, context=context) == "ann InMemoryStore kind"
    reading = await say(loaded, context=context, access_context="assistants.read")
    assert reading == "None InMemoryStore none"
    with pytest.raises(errors.Invalid, match="tone"):
        await say(loaded, context={})


async def test_a_factory_is_called_for_every_use(tmp_path: Path) -> None:
    loaded = await load(
        tmp_path,
        """
        calls = []
        def graph():
            calls.append(1)
            return builder(str(len(calls)))
        """,
    )
    assert [await say(loaded), await say(loaded)] == ["1", "2"]


LIVING = """
    import contextlib
    log = []

    @contextlib.asynccontextmanager
    async def graph():
        log.append("open")
        try:
            yield builder()
        except BaseException as error:
            log.append(type(error).__name__)  # and swallows it
        finally:
            log.append("closed")

    def stream_transformers():
        return log
"""


async def test_a_context_manager_is_left_after_use(tmp_path: Path) -> None:
    loaded = await load(tmp_path, LIVING)
    log = loaded.transformers("agent")
    assert log is not None
    async with loaded.open("agent", checkpointer=None, store=None):
        assert log() == ["open"]
    assert log() == ["open", "closed"]


async def test_a_context_manager_cannot_swallow_what_ended_the_run(tmp_path: Path) -> None:
    loaded = await load(tmp_path, LIVING)
    with pytest.raises(KeyError):
        async with loaded.open("agent", checkpointer=None, store=None):
            raise KeyError
    entered = asyncio.Event()

    async def run() -> None:
        async with loaded.open("agent", checkpointer=None, store=None):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(run())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_what_a_factory_raises_is_the_error_of_its_use(tmp_path: Path) -> None:
    loaded = await load(tmp_path, "def graph(): raise RuntimeError('no model')")
    with pytest.raises(RuntimeError, match="no model"):
        await say(loaded)
    loaded = await load(tmp_path / "other", "def graph(): return 7")
    with pytest.raises(errors.GraphError, match="Graph agent: It made no graph but int"):
        await say(loaded)


# Binding


async def test_uses_at_the_same_time_have_savers_of_their_own(tmp_path: Path) -> None:
    loaded = await load(tmp_path, "graph = builder().compile()")
    savers = [InMemorySaver() for _ in range(8)]
    all_open = asyncio.Barrier(len(savers))

    async def use(saver: InMemorySaver) -> None:
        async with loaded.open("agent", checkpointer=saver, store=None) as graph:
            await all_open.wait()
            await graph.ainvoke({"word": ""}, {"configurable": {"thread_id": "1"}})  # pyright: ignore[reportArgumentType]

    await asyncio.gather(*map(use, savers))
    assert [len(saver.storage) for saver in savers] == [1] * len(savers)


async def test_a_graphs_own_saver_and_store_are_replaced_with_one_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    code = """
        from langgraph.checkpoint.memory import InMemorySaver
        from langgraph.store.memory import InMemoryStore
        own = InMemorySaver()
        graph = builder().compile(checkpointer=own, store=InMemoryStore())
        def stream_transformers(): return own
    """
    loaded = await load(tmp_path, code)
    ours, store = InMemorySaver(), InMemoryStore()
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert await say(loaded, checkpointer=ours) == "hello"
    assert [record.getMessage().split(":")[0] for record in caplog.records] == [
        "graph agent sets a checkpointer",
        "graph agent sets a store",
    ]
    own = loaded.transformers("agent")
    assert own is not None
    assert not own().storage
    assert len(ours.storage) == 2
    async with loaded.open("agent", checkpointer=ours, store=store) as graph:
        assert graph.store is store


@pytest.mark.parametrize(("own", "kept"), [("False", False), ("True", True), ("None", None)])
async def test_subgraphs_keep_what_they_say_about_saving(
    tmp_path: Path, own: str, kept: bool | None
) -> None:
    code = f"""
        outer = StateGraph(State)
        outer.add_node("inner", builder().compile(checkpointer={own}))
        outer.add_edge(START, "inner")
        graph = outer.compile(checkpointer=False)
    """
    loaded = await load(tmp_path, code)
    saver = InMemorySaver()
    async with loaded.open("agent", checkpointer=saver, store=None) as graph:
        inner: Any = graph.nodes["inner"].bound
        assert inner.checkpointer is kept
        thread: Any = {"configurable": {"thread_id": "1"}}
        await graph.ainvoke({"word": ""}, thread)
        assert (await graph.aget_state(thread)).values == {"word": "hello"}


async def test_an_unnamed_graph_is_called_by_its_id(tmp_path: Path) -> None:
    code = "graph = builder().compile()\nnamed = builder().compile(name='poet')"
    registered = {"agent": "./agent.py:graph", "other": "./agent.py:named"}
    text = textwrap.dedent(PLAIN) + code
    loaded = await graphs.load(project(tmp_path, {"agent.py": text}, registered))
    for graph_id, name in (("agent", "agent"), ("other", "poet")):
        async with loaded.open(graph_id, checkpointer=None, store=None) as graph:
            assert graph.name == name


async def test_a_cache_is_lent_where_a_graph_has_none(tmp_path: Path) -> None:
    code = """
        from langgraph.cache.memory import InMemoryCache
        graph = builder().compile()
        own = builder().compile(cache=InMemoryCache())
    """
    lent = InMemoryCache[Any]()
    for name, ours in (("graph", True), ("own", False)):
        loaded = await load(tmp_path, code, name)
        async with loaded.open("agent", checkpointer=None, store=None, cache=lent) as graph:
            assert (graph.cache is lent) is ours


@pytest.mark.parametrize("wrapped", ["", ".with_config({'recursion_limit': 9})"])
@pytest.mark.parametrize("form", ["graph = made", "def graph(): return made", "graph = outer"])
async def test_types_of_the_state_come_back_as_themselves(
    tmp_path: Path, wrapped: str, form: str
) -> None:
    """Under strict msgpack only declared types do, and copies of graphs forget the declaration."""
    assert _msgpack.STRICT_MSGPACK_ENABLED
    code = f"""
        from pydantic import BaseModel

        class Note(BaseModel):
            text: str = "declared"

        class Inner(TypedDict):
            word: str
            note: Note

        made = StateGraph(Inner)
        made.add_node("take", lambda state: {{"note": Note(text="declared")}})
        made.add_node("look", lambda state: {{"word": type(state["note"]).__name__}})
        made.add_edge(START, "take")
        made.add_edge("take", "look")
        made = made.compile(interrupt_before=["look"]){wrapped}
        outer = StateGraph(State)
        outer.add_node("inner", made)
        outer.add_edge(START, "inner")
        outer = outer.compile()
        {form}
    """
    loaded = await load(tmp_path, code)
    saver = InMemorySaver()
    thread: Any = {"configurable": {"thread_id": "1"}}
    for given in ({"word": ""}, None):
        async with loaded.open("agent", checkpointer=saver, store=None) as graph:
            result = await graph.ainvoke(given, thread)
    assert result["word"] == "Note"  # pyright: ignore[reportPossiblyUnboundVariable]


# Files and modules


async def test_a_file_is_the_module_that_other_code_imports(tmp_path: Path) -> None:
    """Deep in a package, with relative imports, beside a module that imports it by name."""
    files = {
        "team/__init__.py": "",
        "team/agent.py": PLAIN + "    from .words import word\n    graph = builder(word)\n",
        "team/words.py": "word = 'relative'",
        "check.py": """
            from team import agent
            def graph():
                import sys
                return agent.builder(agent.State.__module__)
        """,
    }
    registered = {"agent": "./team/agent.py:graph", "check": "./check.py:graph"}
    loaded = await graphs.load(project(tmp_path, files, registered))
    assert await say(loaded) == "relative"
    async with loaded.open("check", checkpointer=None, store=None) as graph:
        assert (await graph.ainvoke({"word": ""}))["word"] == "team.agent"  # pyright: ignore[reportArgumentType]
    assert sys.modules["team.agent"].graph


async def test_a_dependency_folder_names_its_files(tmp_path: Path) -> None:
    files = {
        "lib/pyproject.toml": "",
        "lib/src/inside.py": PLAIN + "    import beside\n    graph = builder(__name__)\n",
        "lib/src/beside.py": "",
    }
    registered = {"agent": "./lib/src/inside.py:graph"}
    loaded = await graphs.load(project(tmp_path, files, registered, dependencies=["./lib"]))
    assert await say(loaded) == "inside"


async def test_a_module_by_its_dotted_name(tmp_path: Path) -> None:
    files = {"deep/er/agent.py": PLAIN + "    graph = builder()\n"}
    loaded = await graphs.load(project(tmp_path, files, {"agent": "deep.er.agent:graph"}))
    assert await say(loaded) == "hello"


@pytest.mark.parametrize("name", ["types.py", "my-agent.py", "json/agent.py", "agents/echo.py"])
async def test_a_file_whose_name_is_taken_or_odd_loads_all_the_same(
    tmp_path: Path, name: str
) -> None:
    """An installed package `agents` would win over a folder without `__init__.py`."""
    write(tmp_path / "site", {"agents/__init__.py": "raise RuntimeError('not ours')"})
    files = {name: PLAIN + "    graph = builder(__name__)\n"}
    found = project(tmp_path / "project", files, {"agent": f"./{name}:graph"})
    sys.path.append(str(tmp_path / "site"))
    loaded = await graphs.load(found)
    first = await say(loaded)
    assert first.startswith("clew_file_")
    assert await say(await graphs.load(found)) == first


async def test_a_module_may_run_a_loop_of_its_own_while_imported(tmp_path: Path) -> None:
    code = "import asyncio\nasync def ask(): return 'asked'\ngraph = builder(asyncio.run(ask()))"
    assert await say(await load(tmp_path, code)) == "asked"


# Faults


@pytest.mark.parametrize(
    ("text", "line", "reason"),
    [
        ("graph = 1\ndef (", 2, "SyntaxError"),
        ("import os\n\nimport clew_no_such_module", 3, "ModuleNotFoundError: No module named"),
        ("\nraise ValueError('no key')", 2, "ValueError: no key"),
        ("import sys\nsys.exit(3)", 2, "SystemExit: 3"),
        (
            "from langgraph.graph import StateGraph\ngraph = StateGraph(dict).compile()",
            2,
            "ValueError: ",
        ),
    ],
)
async def test_a_graph_that_does_not_import_names_file_line_and_reason(
    tmp_path: Path, text: str, line: int, reason: str
) -> None:
    message = await fault(tmp_path, {"agent.py": text})
    assert f"{tmp_path / 'agent.py'} line {line}: {reason}" in message
    assert "Graph agent (./agent.py:graph)" in message


async def test_a_fault_in_a_module_that_the_graph_imports_is_named_there(tmp_path: Path) -> None:
    files = {"agent.py": "\n\nimport helper_of_agent", "helper_of_agent.py": "\n1 / 0"}
    message = await fault(tmp_path, files)
    assert f"{tmp_path / 'helper_of_agent.py'} line 2: ZeroDivisionError" in message


async def test_all_graphs_that_do_not_load_are_told_at_once(tmp_path: Path) -> None:
    text = PLAIN + "    graph = builder()\n    number = 7\n    def odd(a, b): ...\n"
    registered = {
        "fine": "./agent.py:graph",
        "typo": "./agent.py:grpah",
        "number": "./agent.py:number",
        "class": "./agent.py:State",
        "odd": "./agent.py:odd",
        "module": "no.such.module:graph",
    }
    lines = (await fault(tmp_path, {"agent.py": text}, registered)).splitlines()
    assert [line.split()[1] for line in lines] == ["typo", "number", "class", "odd", "module"]
    assert lines[0].endswith("has no grpah. Did you mean graph?")
    assert lines[1].endswith("It is no graph but int.")
    assert lines[2].endswith("State is a class, not a graph.")
    assert lines[3].endswith("Its parameter a is neither a RunnableConfig nor a ServerRuntime.")
    assert "No module named 'no'" in lines[4]


async def test_a_module_that_failed_is_tried_anew(tmp_path: Path) -> None:
    await fault(tmp_path, {"my-agent.py": "1 / 0"}, {"agent": "./my-agent.py:graph"})
    files = {"my-agent.py": PLAIN + "    graph = builder()\n"}
    assert await say(await graphs.load(project(tmp_path, files, {"agent": "./my-agent.py:graph"})))


async def test_an_unknown_graph_is_told_with_those_that_exist(tmp_path: Path) -> None:
    loaded = await load(tmp_path, "graph = builder()")
    with pytest.raises(errors.NotFound, match=r"Graph 'x' not found. Expected one of: \['agent'\]"):
        loaded.describe("x")
    with pytest.raises(errors.NotFound):
        async with loaded.open("x", checkpointer=None, store=None):
            pass


# What graphs tell of themselves


async def test_ids_and_descriptions(tmp_path: Path) -> None:
    registered = {"a": {"path": "./agent.py:graph", "description": "说"}, "b": "./agent.py:graph"}
    files = {"agent.py": PLAIN + "    graph = builder()\n"}
    loaded = await graphs.load(project(tmp_path, files, registered))
    assert loaded.ids() == ["a", "b"]
    assert (loaded.describe("a"), loaded.describe("b")) == ("说", None)


def test_a_reload_watches_the_file_its_env_and_its_folders(tmp_path: Path) -> None:
    (tmp_path / "project" / "lib").mkdir(parents=True)
    (tmp_path / "beside").mkdir()
    found = project(
        tmp_path / "project",
        {"agent.py": "", ".env": ""},
        env=".env",
        dependencies=["./lib", "../beside"],
    )
    root = tmp_path / "project"
    assert graphs.watched(found) == [
        root / "langgraph.json",
        root / ".env",
        root,
        tmp_path / "beside",
    ]


async def test_the_graphs_of_this_repository_load() -> None:
    found = config.read(EXAMPLE)
    config.apply(found)
    loaded = await graphs.load(found)
    assert loaded.ids() == list(found.graphs)
    for graph_id in loaded.ids():
        async with loaded.open(graph_id, checkpointer=None, store=InMemoryStore()) as graph:
            assert (await graphs.draw(graph))["nodes"]


def test_two_projects_of_one_process_have_their_own_files(tmp_path: Path) -> None:
    # Both are called the same, and neither under a name that Python would find.
    for name in ("one", "two"):
        folder = tmp_path / name / "my-agent"
        folder.mkdir(parents=True)
        (folder / "graph.py").write_text(f"name = {name!r}\n")
    for _ in range(2):
        for name in ("one", "two"):
            _, found = imports.load("./my-agent/graph.py:name", [tmp_path / name])
            assert found == name
