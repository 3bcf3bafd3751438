"""What an operator can set, read once from the environment into one frozen object.

Every setting is `CLEW_<NAME>`; some also answer to the name other LangGraph servers use, `CLEW_`
winning. `load` reports everything that is wrong in one go, each fault with a way out of it, and
never shows a secret.
"""

import os
import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict
from pydantic import (
    AliasChoices,
    AliasGenerator,
    ByteSize,
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from clew.checkpointing.policy import DEFAULT as DEFAULT_RETENTION
from clew.runtime import errors
from clew.runtime.exposure import loopback
from clew.runtime.values import (
    Duration,
    DurationOrNever,
    EncryptionKeys,
    Lower,
    Pause,
    Retention,
    Words,
)

PREFIX = "CLEW_"
# No settings: what the test suite reads, and what a process hands down to its child.
OTHERS = ("CLEW_TEST_", "CLEW_INHERITED_")

# Names that users of other LangGraph servers already have in their environment.
STOCK: Mapping[str, tuple[str, ...]] = {
    "database_url": ("DATABASE_URL", "POSTGRES_URI"),
    "pool_size": ("LANGGRAPH_POSTGRES_POOL_MAX_SIZE",),
    "host": ("HOST",),
    "port": ("PORT",),
    "mount_prefix": ("MOUNT_PREFIX",),
    "cors_allow_origins": ("CORS_ALLOW_ORIGINS",),
    "max_body": ("HTTP_MAX_REQUEST_BODY_BYTES",),
    "log_level": ("LOG_LEVEL",),
    "concurrency": ("N_JOBS_PER_WORKER",),
    "run_timeout": ("BG_JOB_TIMEOUT_SECS",),
    "max_attempts": ("BG_JOB_MAX_RETRIES",),
    "drain_grace": ("BG_JOB_SHUTDOWN_GRACE_PERIOD_SECS",),
    "crons": ("FF_CRONS_ENABLED",),
    "cron_interval": ("CRON_SCHEDULER_SLEEP_TIME",),
}

SIGNED_BY_SECRET = ("HS256", "HS384", "HS512")
SIGNED_BY_KEY_PAIR = (
    *("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"),
    *("ES256", "ES384", "ES512", "EdDSA"),
)


def names(field: str) -> tuple[str, ...]:
    """The environment variables that set `field`, the one that wins first."""
    return (PREFIX + field.upper(), *STOCK.get(field, ()))


def setting(default: object, about: str, example: str, **limits: Any) -> Any:
    return Field(default, description=about, examples=[example], **limits)


class Settings(BaseSettings):
    """A validator may look only at fields above its own: those are checked by then, or faulty."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        case_sensitive=True,
        env_ignore_empty=True,
        enable_decoding=False,
        populate_by_name=True,
        validate_default=True,
        hide_input_in_errors=True,
        alias_generator=AliasGenerator(
            validation_alias=lambda field: AliasChoices(*names(field)),
        ),
    )

    # Where things are
    config: Path = setting(
        Path("langgraph.json"), "The file that registers graphs.", "langgraph.json"
    )
    role: Literal["all", "api", "worker"] = setting(
        "all",
        "What this process does: serve requests (`api`), run queued runs (`worker`), or `all`.",
        "all",
    )

    # Database
    database_url: SecretStr | None = setting(
        None,
        "The Postgres to use. Without it an embedded one is started.",
        "postgresql://user:password@db:5432/clew",
    )
    direct_url: SecretStr | None = setting(
        None,
        "The same database past any pooler, for LISTEN. Without it the database URL is used.",
        "postgresql://user:password@db:5432/clew",
    )
    pool_size: int = setting(
        20, "How many connections this process opens at most.", "20", ge=2, le=1000
    )
    redis_url: SecretStr | None = setting(
        None,
        "Fan events out over Redis Streams instead of Postgres, for fleets.",
        "redis://cache:6379/0",
    )

    # Serving
    host: str = setting("127.0.0.1", "The address to listen on.", "127.0.0.1", min_length=1)
    port: int = setting(2024, "The port to listen on.", "2024", ge=0, le=65535)
    allow_insecure: bool = setting(
        False, "Serve beyond this machine with no authentication at all.", "true"
    )
    mount_prefix: str = setting("", "A path that all routes are served under.", "/agents")
    cors_allow_origins: Words = setting(
        ("*",), "Origins that browsers may call from, comma-separated.", "https://app.example.com"
    )
    max_body: ByteSize = setting(
        ByteSize(64 * 1024**2), "The largest request body.", "64MiB", ge=1024
    )
    max_requests: int = setting(
        1000,
        "How many requests this process works on at once, those that only wait not counted.",
        "1000",
        ge=1,
    )
    metrics: bool = setting(True, "Serve Prometheus metrics on `/metrics`.", "false")
    log_level: Annotated[Literal["debug", "info", "warning", "error"], Lower] = setting(
        "info", "The least severe log line to write.", "info"
    )
    log_format: Annotated[Literal["auto", "text", "json"], Lower] = setting(
        "auto", "How log lines look; `auto` is text on a terminal and JSON elsewhere.", "json"
    )

    # Authentication
    api_keys: bool = setting(
        False,
        "Accept the API keys in the database, which `clew keys create` makes.",
        "true",
    )
    jwt_secret: SecretStr | None = setting(
        None, "Accept JSON Web Tokens signed with this secret.", "a-random-text-of-32-bytes-or-more"
    )
    jwt_jwks_url: str | None = setting(
        None,
        "Accept JSON Web Tokens signed by a key that this URL publishes.",
        "https://id.example.com/.well-known/jwks.json",
    )
    jwt_algorithms: Words = setting(
        (),
        "Signature algorithms to accept. Without it `HS256` for a secret, "
        "`RS256` and `ES256` for published keys.",
        "RS256",
    )
    jwt_audience: str | None = setting(None, "The audience a token must name.", "clew")
    jwt_issuer: str | None = setting(
        None, "The issuer a token must name.", "https://id.example.com/"
    )
    jwt_leeway: Pause = setting(
        timedelta(seconds=30), "How far the clocks of issuer and server may differ.", "30s"
    )

    # Runs
    concurrency: int = setting(
        10, "How many runs this process has in progress at once.", "10", ge=1
    )
    max_runs: int | None = setting(
        None, "How many runs one owner may have in progress or waiting.", "50", ge=1
    )
    run_timeout: Duration = setting(timedelta(days=1), "How long one run may take.", "1h")
    max_attempts: int = setting(
        3, "How often a run is started before it counts as failed.", "3", ge=1, le=100
    )
    heartbeat: Duration = setting(
        timedelta(seconds=2), "How often a worker renews the leases of its runs.", "2s"
    )
    lease: Duration = setting(
        timedelta(seconds=10),
        "How long a silent worker keeps a run before another takes it.",
        "10s",
    )
    drain_grace: Pause = setting(
        timedelta(minutes=3), "How long a process that is told to stop waits for its runs.", "30s"
    )
    crons: bool = setting(True, "Start the runs of crons from this process.", "false")
    cron_interval: Duration = setting(
        timedelta(seconds=5), "How often to look for crons that are due.", "5s"
    )
    webhook_secret: SecretStr | None = setting(
        None, "Sign webhooks with this secret.", "a-random-text-of-32-bytes-or-more"
    )

    # Sessions
    session_ttl: DurationOrNever = setting(
        None, "The life of a session that does not set its own.", "30d"
    )
    session_expiry: Literal["sliding", "fixed"] = setting(
        "sliding", "Count a session's life from its last activity, or from its creation.", "fixed"
    )
    idle_after: Duration = setting(
        timedelta(minutes=30), "How long after its last activity a session counts as idle.", "30m"
    )
    undo_window: Pause = setting(
        timedelta(days=7), "How long a deleted session can be brought back.", "24h"
    )
    max_sessions: int | None = setting(
        None, "How many living sessions one owner may have.", "100", ge=1
    )
    max_sessions_policy: Literal["reject", "archive_oldest", "delete_oldest"] = setting(
        "reject",
        "What happens when an owner is at the limit and asks for one more.",
        "archive_oldest",
    )
    titles: Literal["off", "words", "model"] = setting(
        "words",
        "Title a session after its first turn: with the first words said, or by a model.",
        "model",
    )
    title_model: str = setting(
        "gpt-4o-mini",
        "The model that writes titles, at the OpenAI-compatible endpoint of `OPENAI_BASE_URL`.",
        "qwen-turbo",
        min_length=1,
    )
    event_retention: Duration = setting(
        timedelta(days=7), "How long the events of a run can be replayed.", "7d"
    )
    token_retention: Duration = setting(
        timedelta(days=7), "How long the single tokens of a reply can be replayed.", "24h"
    )
    retention: Retention = setting(
        DEFAULT_RETENTION,
        "What sessions without a policy of their own keep of their checkpoints.",
        "keep_last 20 after 7d",
    )
    sweep_interval: Duration = setting(
        timedelta(minutes=1), "How often what has expired is looked for and purged.", "1m"
    )
    encryption_keys: EncryptionKeys = setting(
        (),
        "Encrypt what sessions hold at rest: `id:base64` of 32 bytes, comma-separated, "
        "the first one for new data.",
        "k1:<openssl rand -base64 32>",
    )

    @property
    def authenticates(self) -> bool:
        """Whether these settings alone can tell callers apart; `auth` in langgraph.json may too."""
        return self.api_keys or self.jwt_secret is not None or self.jwt_jwks_url is not None

    @field_validator("database_url", "direct_url")
    @classmethod
    def _is_postgres(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is None:
            return None
        dsn = value.get_secret_value()
        scheme = re.match(r"postgres(ql)?\+\w+://", dsn)
        if scheme:
            raise ValueError(f"must start with postgresql://, not {scheme[0]}")
        try:
            conninfo_to_dict(dsn)
        except psycopg.ProgrammingError:
            # What libpq says would quote the text, and with it the password.
            raise ValueError("must be a Postgres URL or connection string") from None
        if info.field_name == "direct_url" and info.data.get("database_url", value) is None:
            raise ValueError("needs CLEW_DATABASE_URL beside it")
        return value

    @field_validator("redis_url")
    @classmethod
    def _is_redis(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not value.get_secret_value().startswith(("redis://", "rediss://", "unix://")):
            raise ValueError("must start with redis://, rediss:// or unix://")
        return value

    @field_validator("mount_prefix")
    @classmethod
    def _is_path(cls, value: str) -> str:
        if value and not re.fullmatch(r"(/[^/?#\s]+)+/?", value):
            raise ValueError("must be a path that starts with /")
        return value.rstrip("/")

    @field_validator("jwt_jwks_url")
    @classmethod
    def _is_safe_to_trust(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme != "https" and not (parts.scheme == "http" and loopback(parts.hostname)):
            raise ValueError("must be an https:// URL")
        if info.data.get("jwt_secret") is not None:
            raise ValueError("cannot be set together with CLEW_JWT_SECRET")
        return value

    @field_validator("jwt_algorithms")
    @classmethod
    def _fit_the_key(cls, value: tuple[str, ...], info: ValidationInfo) -> tuple[str, ...]:
        """Tokens signed with a *public* key taken for a secret are the classic forgery."""
        if "jwt_secret" not in info.data or "jwt_jwks_url" not in info.data:
            return value
        if info.data["jwt_secret"] is not None:
            allowed, default = SIGNED_BY_SECRET, ("HS256",)
        elif info.data["jwt_jwks_url"] is not None:
            allowed, default = SIGNED_BY_KEY_PAIR, ("RS256", "ES256")
        elif value:
            raise ValueError("needs CLEW_JWT_SECRET or CLEW_JWT_JWKS_URL beside it")
        else:
            return ()
        if not set(value) <= set(allowed):
            raise ValueError(f"must be some of {', '.join(allowed)}")
        return value or default

    @field_validator("jwt_audience", "jwt_issuer")
    @classmethod
    def _have_a_key(cls, value: str | None, info: ValidationInfo) -> str | None:
        keys = [info.data.get(name, ...) for name in ("jwt_secret", "jwt_jwks_url")]
        if value is not None and keys == [None, None]:
            raise ValueError("needs CLEW_JWT_SECRET or CLEW_JWT_JWKS_URL beside it")
        return value

    @field_validator("lease")
    @classmethod
    def _outlives_heartbeats(cls, value: timedelta, info: ValidationInfo) -> timedelta:
        if value < 3 * info.data.get("heartbeat", timedelta()):
            raise ValueError("must be at least three times CLEW_HEARTBEAT")
        return value


KNOWN = frozenset(name for field in Settings.model_fields for name in names(field))


def load(**given: object) -> Settings:
    """Read the environment. `given` are command-line options by field name; they win."""
    faults = list(_unknown())
    settings: Settings | None = None
    try:
        asked: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        settings = Settings(**asked)
    except ValidationError as error:
        faults += [_fault(detail, given) for detail in error.errors(include_url=False)]
    if faults or settings is None:
        count = "A setting is" if len(faults) == 1 else f"{len(faults)} settings are"
        raise errors.ConfigError(f"{count} wrong:", faults)
    return settings


def redact(dsn: str) -> str:
    """`dsn` without its passwords, for logs. In doubt it hides more: the text may be malformed."""
    text = re.sub(r"(?<=://)([^:/@?#]*):.*@", r"\1:***@", dsn, flags=re.DOTALL)
    value = r"[^&]*" if "://" in text else r"(?:'(?:\\.|[^'\\])*'?|(?:\\.|\S)*)"
    return re.sub(rf"(?is)(\w*pass\w*\s*=\s*){value}", r"\1***", text)


def _unknown() -> Iterator[str]:
    for name in sorted(os.environ):
        if name.startswith(PREFIX) and not name.startswith(OTHERS) and name not in KNOWN:
            hint = errors.suggest(name, KNOWN) or " See docs/settings.md."
            yield f"{name} is not a setting.{hint}"


def _fault(detail: ErrorDetails, given: Mapping[str, object]) -> str:
    place = str(detail["loc"][0])
    field = place.removeprefix(PREFIX).lower()
    info = Settings.model_fields.get(field)
    if info is None:
        return f"{place} is not a setting.{errors.suggest(place, Settings.model_fields)}"
    reason = detail["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    name = next((name for name in names(field) if os.environ.get(name)), names(field)[0])
    value = os.environ.get(name)
    if given.get(field) is not None:
        name, value = f"--{field.replace('_', '-')}", str(given[field])
    shown = "" if value is None or secret(field) else f"={value}"
    return f"{name}{shown} {reason}. For example: {name}={(info.examples or [''])[0]}"


def secret(field: str) -> bool:
    kind = str(Settings.model_fields[field].annotation)
    return "Secret" in kind or "EncryptionKey" in kind
