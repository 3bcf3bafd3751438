"""The stock `langgraph.json`. Every key that LangGraph's own tools know is known here: used,
ignored because it only concerns building images, or refused by name; any other key is a mistake.
`load` reports all faults of the file together and then makes its environment the process's own.
"""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from clew.runtime import errors, settings
from clew.runtime.entries import (
    AllowedModules,
    Dependency,
    Embedding,
    Env,
    Environment,
    Minutes,
    Modules,
    Prefix,
    Reference,
    Texts,
    refused,
    spec,
    unreadable,
)

# Names that `env` put into the environment, for a child process to tell them from its parent's own.
INHERITED = "CLEW_INHERITED_ENV"
TEMPLATE = re.compile(r"\$\{\{\s*env\.(\w+)\s*\}\}")


def key(about: str, default: object = None, **more: Any) -> Any:
    return Field(default, description=about, **more)


def ignored(why: str = "Ignored: it only concerns building an image.", **more: Any) -> Any:
    return Field(None, description=why, **more)


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class GraphSpec(Part):
    path: Reference = key("A graph, or a function that makes one.", ...)
    description: str | None = key("Shown with the assistant that the graph is served as.")


class ThreadTTL(Part):
    strategy: Literal["delete", "keep_latest"] = key(
        "What happens to a thread at the end of its life.", "delete"
    )
    default_ttl: Minutes | None = key("The life of a thread, in minutes.")
    sweep_interval_minutes: Minutes | None = key("How often the sweeper looks.")
    sweep_limit: Annotated[int, Field(ge=1)] | None = key("How many threads one sweep handles.")


class Serde(Part):
    allowed_json_modules: Modules | None = key(
        "Classes that old JSON checkpoints may bring back, as lists of module and name."
    )
    allowed_msgpack_modules: AllowedModules = key(
        "Further classes that checkpoints may bring back, as lists of module and name. "
        "`true` is refused: any class at all could be made from stored bytes."
    )
    pickle_fallback: Annotated[
        bool, refused("is refused: whoever can write to the database could run code through pickle")
    ] = key("Refused when true: unpickling runs whatever the stored bytes say.", default=False)


class Checkpointer(Part):
    path: Annotated[
        Any, refused("is refused: sessions need Clew's own saver to fork, restore and isolate")
    ] = key("Refused: forks, restores and isolation rest on Clew's own saver.")
    ttl: ThreadTTL | None = key("When threads end that do not say so themselves.")
    serde: Serde | None = key("What checkpoints may hold.")


class Index(Part):
    dims: Annotated[int, Field(ge=1)] = key("The length of the vectors.", ...)
    embed: Embedding = key(
        "What makes vectors: `provider:model`, or `./file.py:name` of a function.", ...
    )
    fields: Texts | None = key("Which fields of an item are embedded; without it the whole item.")


class ItemTTL(Part):
    default_ttl: Minutes | None = key("The life of an item, in minutes.")
    refresh_on_read: bool = key("Whether reading an item starts its life anew.", default=True)
    sweep_interval_minutes: Minutes | None = key("How often the sweeper looks.")


class Store(Part):
    index: Index | None = key("Search by meaning over the long-term memory.")
    ttl: ItemTTL | None = key("When items of the long-term memory end.")


class OpenAPI(Part):
    security_schemes: dict[str, Any] = key(
        "Added to the served OpenAPI document.", {}, alias="securitySchemes"
    )
    security: tuple[dict[str, Texts], ...] = key("Added to the served OpenAPI document.", ())
    paths: dict[str, Any] = key("Added to the served OpenAPI document.", {})


class AuthCache(Part):
    cache_keys: Texts = key("Headers that make one caller, for whom the answer is kept.", ...)
    ttl_seconds: Annotated[int, Field(ge=1)] = key("How long an answer is kept.", 300)
    max_size: Annotated[int, Field(ge=1)] = key("How many answers are kept.", 1000)


class Auth(Part):
    path: Reference = key("A `langgraph_sdk.Auth` object: who calls, and what they may.", ...)
    disable_studio_auth: bool | None = ignored(
        "Ignored: requests from Studio always go through your own handlers."
    )
    openapi: OpenAPI | None = key("Security definitions for the served OpenAPI document.")
    cache: AuthCache | None = key("Keep what the authenticate handler answered for a while.")


class Cors(Part):
    """Given at all, it replaces the defaults entirely, as it does on the stock server."""

    allow_origins: Texts = key("Origins that browsers may call from.", ())
    allow_methods: Texts = key("Methods that they may use.", ("GET",))
    allow_headers: Texts = key("Headers that they may send.", ())
    allow_credentials: bool = key("Whether they may send cookies.", default=False)
    allow_origin_regex: str | None = key("A pattern for further origins.")
    expose_headers: Texts = key("Headers of the answer that they may read.", ())
    max_age: Annotated[int, Field(ge=0)] = key("Seconds to remember a preflight.", 600)


class Headers(Part):
    includes: Texts | None = key("Names to take; `*` stands for anything.")
    excludes: Texts | None = key("Names to leave out; they win over `includes`.")


class Http(Part):
    app: Reference | None = key("A Starlette or FastAPI app whose routes come before Clew's.")
    disable_assistants: bool = key("Do not serve `/assistants`.", default=False)
    disable_threads: bool = key("Do not serve `/threads`.", default=False)
    disable_runs: bool = key("Do not serve `/runs`.", default=False)
    disable_store: bool = key("Do not serve `/store`.", default=False)
    disable_mcp: bool = key("Do not serve `/mcp`.", default=False)
    disable_a2a: bool = key("Do not serve `/a2a`.", default=False)
    disable_meta: bool = key("Serve only `/ok` of the routes about the server.", default=False)
    disable_ui: bool | None = ignored("Ignored: Clew serves no `/ui`.")
    disable_webhooks: bool = key("Send no webhooks.", default=False)
    cors: Cors | None = key("Which browsers may call. It replaces all defaults.")
    configurable_headers: Headers | None = key("Request headers that graphs see in their config.")
    logging_headers: Headers | None = ignored("Ignored: Clew never logs headers.")
    middleware_order: Literal["auth_first", "middleware_first"] = key(
        "Whether your app's middleware runs before or after authentication.", "middleware_first"
    )
    enable_custom_route_auth: bool = key("Authenticate your app's routes too.", default=False)
    mount_prefix: Prefix | None = key(
        "A path that all routes are served under; `CLEW_MOUNT_PREFIX` wins."
    )


class WebhookUrl(Part):
    require_https: bool = key("Refuse URLs without TLS.", default=True)
    allowed_domains: Texts | None = key("Hosts that may be called; `*.` stands for subdomains.")
    allowed_ports: tuple[int, ...] | None = key("Ports that may be called.")
    max_url_length: Annotated[int, Field(ge=1)] = key("The longest URL.", 4096)
    disable_loopback: bool = key("Refuse URLs of this server itself.", default=True)
    disable_private_ips: bool | None = key("Refuse addresses of private networks.")


class Webhooks(Part):
    env_prefix: str = key("How variables in `headers` begin.", "LG_WEBHOOK_", min_length=1)
    url: WebhookUrl | None = key("Which URLs may be called.")
    headers: dict[str, str] = key(
        "Sent with each webhook; `${{ env.LG_WEBHOOK_X }}` stands for a variable.",
        {},
    )
    allowed_fields: Texts | None = key("Which fields of the run are sent; without it all.")


class Config(Part):
    graphs: dict[str, Annotated[GraphSpec, BeforeValidator(spec)]] = key(
        "Names and graphs: `./file.py:name`, `package.module:name`, or an object with `path`.",
        ...,
        min_length=1,
    )
    dependencies: tuple[Dependency, ...] = key(
        "Folders that graphs import from. Packages are not installed, only checked.", ()
    )
    env: Environment = key(
        "Variables, or the path of a `.env` file. What is set already wins.", Env()
    )
    store: Store | None = key("The long-term memory.")
    checkpointer: Checkpointer | None = key("How threads are kept.")
    auth: Auth | None = key("Who calls, and what they may.")
    http: Http | None = key("The server.")
    webhooks: Webhooks | None = key("Calls to others when a run ends.")
    ui: Annotated[Any, refused("is refused: Clew does not bundle or serve UI components")] = key(
        "Refused: Clew does not bundle or serve UI components."
    )
    ui_config: Annotated[Any, refused("is refused: Clew does not serve UI components")] = key(
        "Refused, as `ui`."
    )
    encryption: Annotated[
        Any, refused("is refused: set CLEW_ENCRYPTION_KEYS, which encrypts without custom code")
    ] = key("Refused: `CLEW_ENCRYPTION_KEYS` encrypts without custom code.")
    priority: Annotated[Any, refused("is refused: runs of a session start in their order")] = key(
        "Refused: runs start in their order."
    )
    schema_url: Any = ignored("Ignored: it is for editors.", alias="$schema")
    python_version: Any = ignored()
    node_version: Any = ignored()
    api_version: Any = ignored()
    base_image: Any = ignored()
    image_distro: Any = ignored()
    pip_config_file: Any = ignored()
    pip_installer: Any = ignored()
    dockerfile_lines: Any = ignored()
    keep_pkg_tools: Any = ignored()
    source: Any = ignored()
    docker_tag: Any = ignored(alias="_INTERNAL_docker_tag")

    _path: Path = PrivateAttr(default=Path("langgraph.json"))

    def model_post_init(self, context: Any, /) -> None:
        if context:
            self._path = context["path"]

    @property
    def path(self) -> Path:
        return self._path

    @property
    def root(self) -> Path:
        return self._path.parent

    @property
    def folders(self) -> tuple[Path, ...]:
        """Where graphs import from, the first one first."""
        found = [self.root]
        for name in self.dependencies:
            if name.startswith((".", "/")):
                folder = (self.root / name).resolve()
                packaged = (folder / "pyproject.toml").is_file() or (folder / "setup.py").is_file()
                found += [folder / "src"] if packaged and (folder / "src").is_dir() else []
                found.append(folder)
        return tuple(dict.fromkeys(found))


def load(path: Path) -> Config:
    """Read `path`, then put its variables into the environment and its folders on `sys.path`."""
    config = read(path)
    apply(config)
    webhook_headers(config)
    return config


def read(path: Path) -> Config:
    path = (path / "langgraph.json" if path.is_dir() else path).absolute()
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise errors.ConfigError(
            f"There is no {path}. Name the file with --config, or make a project with `clew new`."
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise errors.ConfigError(f"{path} cannot be read: {unreadable(error)}.") from None
    doubles: list[str] = []
    try:
        data: object = json.loads(text, object_pairs_hook=lambda pairs: once(pairs, doubles))
    except json.JSONDecodeError as error:
        raise errors.ConfigError(
            f"{path} line {error.lineno} column {error.colno} is not JSON: {error.msg}."
        ) from None
    except RecursionError:
        raise errors.ConfigError(f"{path} is nested too deeply.") from None
    faults = [f"{name}: is given twice" for name in doubles]
    try:
        config = Config.model_validate_json(json.dumps(data), context={"path": path})
    except ValidationError as error:
        faults += [fault(detail) for detail in error.errors(include_url=False)]
        config = None
    if config is None or faults:
        raise errors.ConfigError(f"{path} is wrong:", faults)
    return config


def apply(config: Config) -> None:
    """What the process was started with wins over the file. Variables that a parent process took
    from the file do not count as that: the file may have changed since. Nor does a setting that is
    empty, which is one that is not set."""
    handed = set(os.environ.pop(INHERITED, "").split(",")) - {""}
    for name in handed - set(config.env.values):
        os.environ.pop(name, None)
    unset = {name for name in settings.KNOWN if not os.environ.get(name)}
    taken = {
        name
        for name in config.env.values
        if name in handed or name in unset or name not in os.environ
    }
    os.environ.update({name: config.env.values[name] for name in taken})
    if taken:
        os.environ[INHERITED] = ",".join(sorted(taken))
    for folder in reversed(config.folders):
        if str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def webhook_headers(config: Config) -> Mapping[str, str]:
    """The headers with their variables filled in. They may be secrets: not for logs."""
    if config.webhooks is None:
        return {}
    allowed = config.webhooks.env_prefix
    used = [name for text in config.webhooks.headers.values() for name in TEMPLATE.findall(text)]
    faults = [
        f"webhooks.headers: {name} is not set"
        if name.startswith(allowed)
        else f"webhooks.headers: {name} does not begin with {allowed}"
        for name in used
        if not name.startswith(allowed) or name not in os.environ
    ]
    if faults:
        raise errors.ConfigError(f"{config.path} is wrong:", faults)
    return {
        header: TEMPLATE.sub(lambda match: os.environ[match[1]], text)
        for header, text in config.webhooks.headers.items()
    }


def once(pairs: list[tuple[str, object]], doubles: list[str]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        doubles.extend(name for name in found if names.count(name) > 1)
    return found


def fault(detail: ErrorDetails) -> str:
    place = detail["loc"]
    where = ".".join(str(part) for part in place) or "the file"
    if detail["type"] == "extra_forbidden":
        hint = errors.suggest(str(place[-1]), keys(place[:-1])) or " See docs/config.md."
        return f"{where}: is not a known key.{hint}"
    reason = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{where}: {'is missing' if detail['type'] == 'missing' else reason}"


def keys(place: tuple[int | str, ...]) -> Iterator[str]:
    """The keys that may stand at `place`."""
    part: type[BaseModel] | None = Config
    for step in place:
        if part is None:
            return
        info = part.model_fields.get(str(step))
        # A name that is no field is a key of a mapping, whose parts are those of its values.
        part = next(parts(info.annotation), None) if info else part
    if part is not None:
        yield from (info.alias or name for name, info in part.model_fields.items())


def parts(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from parts(inner)
