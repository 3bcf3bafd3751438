"""langgraph.json: every stock key is known, every fault is told at once, nothing is guessed."""

import json
import os
import re
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from clew.runtime import config, errors
from clew.runtime.config import Config

DOCS = Path(__file__).parent.parent / "docs" / "config.md"
ROUTES = ("assistants", "threads", "runs", "store", "mcp", "a2a", "meta", "ui", "webhooks")
EXAMPLE = Path(__file__).parent.parent / "langgraph.json"


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """`apply` changes the process: every test gets it back as it was."""
    before = dict(os.environ)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    os.environ.clear()
    os.environ.update(before)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "agent.py").write_text("graph = app = auth = None\n")
    return tmp_path


def write(project: Path, **content: object) -> Path:
    path = project / "langgraph.json"
    path.write_text(json.dumps({"graphs": {"agent": "./agent.py:graph"}, **content}))
    return path


def faults(project: Path, **content: object) -> dict[str, str]:
    with pytest.raises(errors.ConfigError) as caught:
        config.load(write(project, **content))
    assert str(project / "langgraph.json") in str(caught.value)
    return dict(fault.split(": ", 1) for fault in caught.value.faults)


def test_the_smallest_file(project: Path) -> None:
    found = config.load(write(project))
    assert found.graphs["agent"].path == "./agent.py:graph"
    assert (found.path, found.root) == (project / "langgraph.json", project)
    assert found.auth is found.http is found.store is found.checkpointer is None


def test_a_folder_stands_for_the_file_in_it(project: Path) -> None:
    write(project)
    assert config.load(project).path == project / "langgraph.json"


def test_a_full_file_as_other_tools_write_it(project: Path) -> None:
    (project / "lib").mkdir()
    found = config.load(
        write(
            project,
            **{"$schema": "https://langgra.ph/schema.json", "_INTERNAL_docker_tag": "x"},
            python_version="3.13",
            node_version=None,
            api_version="0.16",
            base_image="x",
            image_distro="wolfi",
            pip_config_file="pip.conf",
            pip_installer="uv",
            dockerfile_lines=["RUN true"],
            keep_pkg_tools=["pip"],
            source={"kind": "uv", "root": ".", "package": "x"},
            dependencies=[".", "./lib", "langgraph>=1", "git+https://example.com/x.git"],
            graphs={
                "agent": "./agent.py:graph",
                "other": {"path": "package.module:make", "description": "Eine Graphin 图"},
            },
            env={"OPENAI_BASE_URL": "http://127.0.0.1:1"},
            store={
                "index": {"dims": 3, "embed": "./agent.py:graph", "fields": ["text"]},
                "ttl": {"default_ttl": 60, "refresh_on_read": False, "sweep_interval_minutes": 5},
            },
            checkpointer={
                "ttl": {
                    "strategy": "keep_latest",
                    "default_ttl": 43200,
                    "sweep_interval_minutes": 10,
                    "sweep_limit": 100,
                },
                "serde": {
                    "allowed_json_modules": [["a", "B"]],
                    "allowed_msgpack_modules": [["a.b", "C"]],
                    "pickle_fallback": False,
                },
            },
            auth={
                "path": "./agent.py:auth",
                "disable_studio_auth": True,
                "openapi": {
                    "securitySchemes": {"key": {"type": "apiKey"}},
                    "security": [{"key": []}],
                    "paths": {"/x": {"GET": []}},
                },
                "cache": {"cache_keys": ["authorization"], "ttl_seconds": 60, "max_size": 9},
            },
            http={
                "app": "./agent.py:app",
                **dict.fromkeys((f"disable_{name}" for name in ROUTES), True),
                "cors": {
                    "allow_origins": ["https://a.example"],
                    "allow_methods": ["GET"],
                    "allow_headers": ["*"],
                    "allow_credentials": True,
                    "allow_origin_regex": ".*",
                    "expose_headers": ["location"],
                    "max_age": 5,
                },
                "configurable_headers": {"includes": ["x-*"], "excludes": ["x-secret"]},
                "logging_headers": {"includes": None, "excludes": []},
                "middleware_order": "auth_first",
                "enable_custom_route_auth": True,
                "mount_prefix": "/agents/",
            },
            webhooks={
                "env_prefix": "LG_WEBHOOK_",
                "url": {
                    "require_https": False,
                    "allowed_domains": ["*.example.com"],
                    "allowed_ports": [443],
                    "max_url_length": 100,
                    "disable_loopback": True,
                    "disable_private_ips": True,
                },
                "headers": {"x-from": "clew"},
                "allowed_fields": ["run_id"],
            },
            ui={},
            ui_config=None,
            encryption=None,
            priority=None,
        )
    )
    assert found.graphs["other"].description == "Eine Graphin 图"
    assert found.checkpointer is not None
    assert found.checkpointer.ttl is not None
    assert found.checkpointer.ttl.default_ttl == timedelta(days=30)
    assert found.checkpointer.serde is not None
    assert found.checkpointer.serde.allowed_msgpack_modules == (("a.b", "C"),)
    assert found.http is not None
    assert found.http.mount_prefix == "/agents"
    assert found.auth is not None
    assert found.auth.openapi is not None
    assert found.auth.openapi.security_schemes == {"key": {"type": "apiKey"}}


def test_the_file_of_this_repository_is_right() -> None:
    assert config.read(EXAMPLE).graphs.keys() >= {"echo", "assistant"}


def test_a_config_cannot_change(project: Path) -> None:
    with pytest.raises(ValidationError):
        config.load(write(project)).graphs = {}  # pyright: ignore[reportAttributeAccessIssue]


# Faults


def test_all_faults_are_told_at_once(project: Path) -> None:
    found = faults(
        project,
        graphs={"a": "./nope.py:g", "b": "agent", "c": {"path": "./agent.py:x", "descripton": ""}},
        grphs={},
        http={"cors": {"allow_orgins": []}, "disable_mcp": "yes", "mount_prefix": "agents"},
        store={"index": {"embed": "x:y"}, "ttl": {"default_ttl": 0}},
        auth={},
        checkpointer={"ttl": {"strategy": "burn"}},
    )
    assert set(found) == {
        "graphs.a.path",
        "graphs.b.path",
        "graphs.c.descripton",
        "grphs",
        "http.cors.allow_orgins",
        "http.disable_mcp",
        "http.mount_prefix",
        "store.index.dims",
        "store.ttl.default_ttl",
        "auth.path",
        "checkpointer.ttl.strategy",
    }
    assert str(project / "nope.py") in found["graphs.a.path"]
    assert found["graphs.c.descripton"] == "is not a known key. Did you mean description?"
    assert found["grphs"] == "is not a known key. Did you mean graphs?"
    assert found["http.cors.allow_orgins"].endswith("Did you mean allow_origins?")
    assert found["auth.path"] == found["store.index.dims"] == "is missing"


@pytest.mark.parametrize(
    ("content", "where", "why"),
    [
        ({"ui": {"card": "./ui.tsx"}}, "ui", "UI components"),
        ({"ui_config": {"shared": []}}, "ui_config", "UI components"),
        ({"encryption": {"path": "./e.py:e"}}, "encryption", "CLEW_ENCRYPTION_KEYS"),
        ({"priority": {"path": "./p.py:p"}}, "priority", "order"),
        ({"checkpointer": {"path": "./s.py:s"}}, "checkpointer.path", "own saver"),
        (
            {"checkpointer": {"serde": {"pickle_fallback": True}}},
            "checkpointer.serde.pickle_fallback",
            "pickle",
        ),
        (
            {"checkpointer": {"serde": {"allowed_msgpack_modules": True}}},
            "checkpointer.serde.allowed_msgpack_modules",
            "name the classes",
        ),
        ({"graphs": {"js": "./agent.ts:graph"}}, "graphs.js.path", "JavaScript"),
        ({"graphs": {}}, "graphs", "at least 1"),
    ],
)
def test_what_is_not_supported_is_refused_by_name(
    project: Path, content: dict[str, Any], where: str, why: str
) -> None:
    found = faults(project, **content)
    assert set(found) == {where}
    assert why in found[where]


@pytest.mark.parametrize(
    "path", ["agent.py", "./agent.py:", ":graph", "./agent.py:1x", "a b:graph", "./agent.py:a.b"]
)
def test_a_graph_is_named_by_file_or_module_and_name(project: Path, path: str) -> None:
    assert "./file.py:name" in faults(project, graphs={"a": path})["graphs.a.path"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ('{"graphs": {\n  "a": "b",\n}}', "line 3 column 1 is not JSON"),
        ("", "line 1 column 1 is not JSON"),
        ("[]", "the file: must be"),
        ('{"graphs": {"a": "./agent.py:graph", "a": "./agent.py:graph"}}', "a: is given twice"),
        ("[" * 100_000, "nested too deeply"),
        ('{"graphs": {"a": "\\ud800"}}', "is wrong"),
    ],
)
def test_a_broken_file_is_told_by_line_and_reason(project: Path, text: str, reason: str) -> None:
    path = project / "langgraph.json"
    path.write_text(text)
    with pytest.raises(errors.ConfigError, match=re.escape(reason)) as caught:
        config.load(path)
    assert str(path) in str(caught.value)


def test_a_missing_file_is_told_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(errors.ConfigError, match="clew new"):
        config.load(tmp_path / "langgraph.json")


def test_a_file_that_is_not_utf8_is_told(project: Path) -> None:
    (project / "langgraph.json").write_bytes(b'{"graphs": "\xff"}')
    with pytest.raises(errors.ConfigError, match="not UTF-8"):
        config.load(project)


def test_a_byte_order_mark_does_no_harm(project: Path) -> None:
    path = write(project)
    path.write_text(path.read_text(), encoding="utf-8-sig")
    config.load(path)


# Dependencies


def test_packages_must_be_installed_already(project: Path) -> None:
    found = faults(
        project,
        dependencies=[
            "clew-no-such-package>=2",
            "langgraph<1",
            "clew-no-such-package; python_version < '3'",
            "langgraph[extra]>=1",
            "./missing",
            "??",
        ],
    )
    assert set(found) == {"dependencies.0", "dependencies.1", "dependencies.4", "dependencies.5"}
    assert found["dependencies.0"].endswith('pip install "clew-no-such-package>=2"')
    assert re.match(r"langgraph<1 is wanted and 1\.\S+ is installed", found["dependencies.1"])


def test_local_folders_come_first_on_the_path(project: Path) -> None:
    (project / "lib" / "src").mkdir(parents=True)
    (project / "lib" / "pyproject.toml").touch()
    found = config.load(write(project, dependencies=["./lib", "."]))
    expected = [str(project), str(project / "lib" / "src"), str(project / "lib")]
    assert [str(folder) for folder in found.folders] == expected
    assert sys.path[:3] == expected
    config.apply(found)
    assert sys.path.count(str(project)) == 1


# Environment


def test_env_as_an_object(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEW_TEST_SET", "outside")
    config.load(write(project, env={"CLEW_TEST_SET": "file", "CLEW_TEST_NEW": "file"}))
    assert os.environ["CLEW_TEST_SET"] == "outside"
    assert os.environ["CLEW_TEST_NEW"] == "file"


def test_an_empty_setting_is_not_set_and_the_file_names_it(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DATABASE_URL", "CLEW_TEST_EMPTY"):
        monkeypatch.setenv(name, "")
    config.load(write(project, env={"DATABASE_URL": "from the file", "CLEW_TEST_EMPTY": "file"}))
    assert os.environ["DATABASE_URL"] == "from the file"
    assert os.environ["CLEW_TEST_EMPTY"] == ""  # what is no setting of ours may be meant so


def test_env_as_a_file(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEW_TEST_HOST", "db")
    (project / ".env").write_text(
        "# comment\nexport CLEW_TEST_A='a # b'\nCLEW_TEST_B=\"x\\ny\"\n"
        "CLEW_TEST_C=on-${CLEW_TEST_HOST}\nCLEW_TEST_D=中文\nCLEW_TEST_EMPTY=\n"
    )
    found = config.load(write(project, env=".env"))
    assert found.env.file == project / ".env"
    values = [os.environ[f"CLEW_TEST_{name}"] for name in ["A", "B", "C", "D", "EMPTY"]]
    assert values == ["a # b", "x\ny", "on-db", "中文", ""]


def test_a_missing_or_broken_env_file_is_told(project: Path) -> None:
    assert str(project / ".env") in faults(project, env=".env")["env"]
    (project / ".env").write_text("A=1\nB='never closed\n")
    assert "line 2" in faults(project, env=".env")["env"]
    assert "quotes around A" in faults(project, env={"A": 1})["env"]


def test_values_of_env_are_never_shown(project: Path) -> None:
    found = config.load(write(project, env={"CLEW_TEST_KEY": "swordfish"}))
    assert "swordfish" not in repr(found) + str(found)


def test_a_reload_sees_a_changed_env(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A parent that reloads hands its environment down, and with it what the file said before."""
    monkeypatch.setenv("CLEW_TEST_MINE", "outside")
    config.load(
        write(project, env={"CLEW_TEST_A": "1", "CLEW_TEST_GONE": "1", "CLEW_TEST_MINE": "1"})
    )
    config.load(write(project, env={"CLEW_TEST_A": "2", "CLEW_TEST_MINE": "2"}))
    assert os.environ["CLEW_TEST_A"] == "2"
    assert "CLEW_TEST_GONE" not in os.environ
    assert os.environ["CLEW_TEST_MINE"] == "outside"


def test_webhook_headers_take_variables_with_the_prefix(project: Path) -> None:
    headers = {"Authorization": "Bearer ${{ env.LG_WEBHOOK_KEY }}", "x-plain": "clew"}
    found = config.load(
        write(project, env={"LG_WEBHOOK_KEY": "swordfish"}, webhooks={"headers": headers})
    )
    assert config.webhook_headers(found) == {
        "Authorization": "Bearer swordfish",
        "x-plain": "clew",
    }
    assert "swordfish" not in repr(found)
    wrong = faults(project, env={}, webhooks={"headers": {"a": "${{ env.HOME }}"}})
    assert wrong == {"webhooks.headers": "HOME does not begin with LG_WEBHOOK_"}
    wrong = faults(project, env={}, webhooks={"headers": {"a": "${{env.LG_WEBHOOK_NONE}}"}})
    assert wrong == {"webhooks.headers": "LG_WEBHOOK_NONE is not set"}


# Docs


def rows(model: type[BaseModel], place: str = "") -> Iterator[str]:
    for name, info in model.model_fields.items():
        where = place + (info.alias or name)
        yield f"| `{where}` | {info.description} |"
        for inner in config.parts(info.annotation):
            step = ".*." if "dict" in str(info.annotation) else "."
            yield from rows(inner, where + step)


def test_the_docs_have_one_row_for_every_key() -> None:
    written = [line for line in DOCS.read_text().splitlines() if line.startswith("| `")]
    assert sorted(written) == sorted(rows(Config))
