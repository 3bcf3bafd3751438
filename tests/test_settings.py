"""Settings: every fault at once, each with a way out, and never a secret."""

import base64
import os
import re
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ByteSize, SecretStr, ValidationError

from clew.runtime import errors, exposure, settings, values
from clew.runtime.settings import Settings

DOCS = Path(__file__).parent.parent / "docs" / "settings.md"
PASSWORD = "hunter2-swordfish"


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name for field in Settings.model_fields for name in settings.names(field)}
    for name in list(os.environ):
        if name.startswith(settings.PREFIX) or name in known:
            monkeypatch.delenv(name)


def faults(**options: object) -> tuple[str, ...]:
    with pytest.raises(errors.ConfigError) as caught:
        settings.load(**options)
    # Neither the message nor a traceback that shows causes may carry what was set.
    assert caught.value.__suppress_context__ or caught.value.__context__ is None
    return caught.value.faults


def test_defaults_serve_a_laptop() -> None:
    default = settings.load()
    assert (default.host, default.port, default.role) == ("127.0.0.1", 2024, "all")
    assert default.database_url is None
    assert not default.authenticates
    assert default.run_timeout == timedelta(days=1)


def test_stock_names_work_and_our_own_win(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POSTGRES_URI", "postgres://stock@db/one")
    monkeypatch.setenv("N_JOBS_PER_WORKER", "3")
    monkeypatch.setenv("PORT", "8000")
    monkeypatch.setenv("CLEW_PORT", "9000")
    monkeypatch.setenv("BG_JOB_TIMEOUT_SECS", "90")
    monkeypatch.setenv("HTTP_MAX_REQUEST_BODY_BYTES", "1048576")
    found = settings.load()
    assert found.database_url == SecretStr("postgres://stock@db/one")
    assert (found.concurrency, found.port) == (3, 9000)
    assert found.run_timeout == timedelta(seconds=90)
    assert found.max_body == ByteSize(1024**2)


def test_options_of_the_command_line_win_and_none_means_not_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CLEW_PORT", "9000")
    assert settings.load(port=7000).port == 7000
    assert settings.load(port=None).port == 9000


def test_an_empty_variable_is_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "")
    assert settings.load().database_url is None


def test_lists_are_comma_separated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORS_ALLOW_ORIGINS", "https://a.example, https://b.example,")
    assert settings.load().cors_allow_origins == ("https://a.example", "https://b.example")


def test_settings_cannot_change() -> None:
    with pytest.raises(ValidationError):
        settings.load().port = 1  # pyright: ignore[reportAttributeAccessIssue]


def test_all_faults_are_reported_together_each_with_a_suggestion(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PORT", "eighty")
    monkeypatch.setenv("CLEW_RUN_TIMEOUT", "soon")
    monkeypatch.setenv("CLEW_ROLE", "boss")
    monkeypatch.setenv("CLEW_DATABSE_URL", "x")
    monkeypatch.setenv("CLEW_LEASE", "3s")
    monkeypatch.setenv("MOUNT_PREFIX", "no-slash")
    found = {fault.split()[0]: fault for fault in faults()}
    assert set(found) == {
        "CLEW_DATABSE_URL",
        "PORT=eighty",
        "CLEW_RUN_TIMEOUT=soon",
        "CLEW_ROLE=boss",
        "CLEW_LEASE=3s",
        "MOUNT_PREFIX=no-slash",
    }
    assert found["CLEW_DATABSE_URL"].endswith("Did you mean CLEW_DATABASE_URL?")
    assert "For example: PORT=2024" in found["PORT=eighty"]
    assert "30s, 5m" in found["CLEW_RUN_TIMEOUT=soon"]
    assert "'api'" in found["CLEW_ROLE=boss"]
    assert "three times CLEW_HEARTBEAT" in found["CLEW_LEASE=3s"]


def test_a_wrong_option_is_named_as_an_option() -> None:
    assert faults(port="x")[0].startswith("--port=x must be a valid integer")
    assert faults(prot=1) == ("prot is not a setting. Did you mean port?",)


def test_the_test_suite_has_names_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEW_TEST_ANYTHING", "1")
    settings.load()


def test_every_example_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    needs = {
        "CLEW_DIRECT_URL": {"CLEW_DATABASE_URL": "postgresql://db/clew"},
        "CLEW_JWT_ALGORITHMS": {"CLEW_JWT_JWKS_URL": "https://id.example.com/keys"},
        "CLEW_JWT_AUDIENCE": {"CLEW_JWT_SECRET": "s"},
        "CLEW_JWT_ISSUER": {"CLEW_JWT_SECRET": "s"},
    }
    for field, info in Settings.model_fields.items():
        example = str((info.examples or [""])[0])
        name = settings.names(field)[0]
        if field == "encryption_keys":
            example = example.replace(
                "<openssl rand -base64 32>", base64.b64encode(bytes(32)).decode()
            )
        with monkeypatch.context() as patch:
            for other, value in {**needs.get(name, {}), name: example}.items():
                patch.setenv(other, value)
            settings.load()


# Secrets


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", f"postgresql+asyncpg://clew:{PASSWORD}@db/clew"),
        ("DATABASE_URL", f"mysql {PASSWORD}"),
        ("CLEW_REDIS_URL", f"http://:{PASSWORD}@cache"),
        ("CLEW_ENCRYPTION_KEYS", f"k1:{PASSWORD}"),
        ("CLEW_ENCRYPTION_KEYS", PASSWORD + ":" + PASSWORD * 10),
    ],
)
def test_a_fault_in_a_secret_does_not_show_it(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(errors.ConfigError) as caught:
        settings.load()
    assert name in str(caught.value)
    assert PASSWORD not in str(caught.value)


def test_what_settings_print_has_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    key = base64.b64encode(PASSWORD.encode().ljust(32)).decode()
    monkeypatch.setenv("DATABASE_URL", f"postgresql://clew:{PASSWORD}@db/clew")
    monkeypatch.setenv("CLEW_JWT_SECRET", PASSWORD)
    monkeypatch.setenv("CLEW_WEBHOOK_SECRET", PASSWORD)
    monkeypatch.setenv("CLEW_ENCRYPTION_KEYS", f"k1:{key}")
    found = settings.load()
    shown = repr(found) + str(found) + found.model_dump_json()
    assert PASSWORD not in shown
    assert key not in shown
    assert found.encryption_keys[0].key.get_secret_value() == PASSWORD.encode().ljust(32)


@pytest.mark.parametrize(
    ("dsn", "shown"),
    [
        ("postgresql://clew:pw@db:5432/clew", "postgresql://clew:***@db:5432/clew"),
        ("postgresql://clew:p@w:/x?y@db/clew", "postgresql://clew:***@db/clew"),
        ("postgresql://clew:pw@a:1,b:2/clew?x=1", "postgresql://clew:***@a:1,b:2/clew?x=1"),
        ("postgresql://db/clew", "postgresql://db/clew"),
        ("postgresql:///clew?host=/tmp&password=pw&a=b", "postgresql:///clew?host=/tmp&password=***&a=b"),
        ("postgresql:///clew?sslpassword=pw", "postgresql:///clew?sslpassword=***"),
        ("host=db password=pw user=clew", "host=db password=*** user=clew"),
        ("host=db password='p w\\' x' user=clew", "host=db password=*** user=clew"),
        ("host=db password = p\\ w user=clew", "host=db password = *** user=clew"),
        ("host=db password='never closed", "host=db password=***"),
        ("", ""),
    ],
)  # fmt: skip
def test_redact_hides_passwords_and_nothing_else(dsn: str, shown: str) -> None:
    assert settings.redact(dsn) == shown


@given(st.text())
def test_no_password_in_a_url_survives_redaction(password: str) -> None:
    assert settings.redact(f"postgresql://clew:{password}@db/clew") == (
        "postgresql://clew:***@db/clew"
    )


# Times, keys, tokens


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30", 30),
        ("0.5", 0.5),
        ("250ms", 0.25),
        ("5m", 300),
        ("1h30m", 5400),
        ("1h 30m", 5400),
        ("7d", 604800),
        ("2W", 1209600),
        ("1d12h", 129600),
    ],
)
def test_times_are_written_with_units_or_in_seconds(text: str, seconds: float) -> None:
    assert values.duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "-5s", "5 minutes", "m5", "5mm", "1e400", "9" * 400, "9" * 20 + "d"]
)
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a"):
        values.duration(text)


def test_a_time_that_must_pass_cannot_be_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEW_RUN_TIMEOUT", "0")
    monkeypatch.setenv("CLEW_SESSION_TTL", "0s")
    monkeypatch.setenv("CLEW_DRAIN_GRACE", "0")
    assert {fault.split("=")[0] for fault in faults()} == {"CLEW_RUN_TIMEOUT", "CLEW_SESSION_TTL"}


def test_a_session_can_live_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEW_SESSION_TTL", "never")
    assert settings.load().session_ttl is None


def test_encryption_keys_have_ids_and_32_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def encoded(length: int) -> str:
        return base64.b64encode(bytes(length)).decode()

    monkeypatch.setenv("CLEW_ENCRYPTION_KEYS", f"new:{encoded(32)},old:{encoded(32)}")
    assert [key.id for key in settings.load().encryption_keys] == ["new", "old"]
    for wrong, reason in {
        f"a:{encoded(16)}": "32 bytes long, not 16",
        f"a:{encoded(32)},a:{encoded(32)}": "an id of its own",
        encoded(32): "id:base64",
    }.items():
        monkeypatch.setenv("CLEW_ENCRYPTION_KEYS", wrong)
        assert reason in faults()[0]


def test_token_algorithms_follow_the_kind_of_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEW_JWT_SECRET", "s")
    assert settings.load().jwt_algorithms == ("HS256",)
    monkeypatch.delenv("CLEW_JWT_SECRET")
    monkeypatch.setenv("CLEW_JWT_JWKS_URL", "https://id.example.com/keys")
    assert settings.load().jwt_algorithms == ("RS256", "ES256")
    for forged in ("HS256", "none", "RS256,HS256"):
        monkeypatch.setenv("CLEW_JWT_ALGORITHMS", forged)
        assert "must be some of RS256" in faults()[0]


def test_token_settings_need_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEW_JWT_AUDIENCE", "clew")
    monkeypatch.setenv("CLEW_JWT_ALGORITHMS", "RS256")
    assert len([fault for fault in faults() if "needs CLEW_JWT_SECRET" in fault]) == 2


def test_published_keys_are_fetched_safely(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLEW_JWT_JWKS_URL", "http://id.example.com/keys")
    assert "must be an https:// URL" in faults()[0]
    monkeypatch.setenv("CLEW_JWT_JWKS_URL", "http://127.0.0.1:9/keys")
    settings.load()
    monkeypatch.setenv("CLEW_JWT_SECRET", "s")
    assert "together with CLEW_JWT_SECRET" in faults()[0]


# Exposure


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "::1", "[::1]"])
def test_a_laptop_needs_no_authentication(host: str) -> None:
    exposure.check(settings.load(host=host), custom_auth=False)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "db.example.com", "127.1.evil"])  # noqa: S104
def test_strangers_are_not_served_without_authentication(
    host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(errors.ConfigError, match="CLEW_ALLOW_INSECURE"):
        exposure.check(settings.load(host=host), custom_auth=False)
    exposure.check(settings.load(host=host), custom_auth=True)
    exposure.check(settings.load(host=host, allow_insecure=True), custom_auth=False)
    monkeypatch.setenv("CLEW_JWT_SECRET", "s")
    exposure.check(settings.load(host=host), custom_auth=False)


# Docs


def default(value: object) -> str:
    match value:
        case None | () | "":
            return ""
        case bool():
            return f"`{str(value).lower()}`"
        case timedelta():
            for unit, length in reversed(list(values.UNITS.items())):
                if unit != "w" and not value % length:
                    return f"`{value // length}{unit}`"
            return f"`{value}`"
        case ByteSize():
            return f"`{value.human_readable(separator='').replace('.0', '')}`"
        case tuple():
            return f"`{','.join(map(str, value))}`"  # pyright: ignore[reportUnknownArgumentType]
        case _:
            return f"`{value}`"


def row(field: str) -> str:
    info = Settings.model_fields[field]
    own, *stock = (f"`{name}`" for name in settings.names(field))
    cells = (" or ".join((own, *stock)), default(info.default), info.description)
    return f"| {' | '.join(str(cell) for cell in cells)} |".replace("|  |", "| |")


def test_the_docs_have_one_row_for_every_setting() -> None:
    written = [line for line in DOCS.read_text().splitlines() if line.startswith("| `CLEW_")]
    assert sorted(written) == sorted(row(field) for field in Settings.model_fields)


def test_every_name_in_the_docs_exists() -> None:
    known = {name for field in Settings.model_fields for name in settings.names(field)}
    named = set(re.findall(r"\bCLEW_[A-Z_]*[A-Z]\b", DOCS.read_text()))
    assert named <= known | {"CLEW_TEST"}
