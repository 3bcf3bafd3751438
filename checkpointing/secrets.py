"""What looks like a secret never reaches a row: one rule for metadata, config and logs.

A key tells first (`api_key`, `x-auth-token`, `dbPassword`, at any depth), then the value itself
(a bearer header, a private key, a provider's key, a password inside a URL). What is found is
replaced by `REDACTED`, so that a reader sees that something was there.
"""

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, cast

REDACTED = "[redacted]"

# A word that makes a key secret wherever it stands, and one that does so as the last one:
# `token_count` and `max_tokens` are no secrets, `access_token` is.
_ANYWHERE = frozenset(
    {
        *("password", "passwords", "passwd", "passphrase", "secret", "secrets"),
        *("authorization", "credential", "credentials", "apikey", "privatekey"),
    }
)
_LAST = frozenset(
    {
        *("token", "jwt", "pwd", "bearer", "cookie", "cookies", "auth"),
        *("apitoken", "accesstoken", "authtoken"),
    }
)
_LAST_TWO = frozenset(
    {
        *(("api", "key"), ("api", "keys"), ("private", "key"), ("access", "key")),
        *(("signing", "key"), ("encryption", "key"), ("encryption", "keys"), ("auth", "key")),
        *(("subscription", "key"), ("account", "key"), ("connection", "string")),
    }
)
_CHINESE = ("密码", "口令", "密钥", "令牌")
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|\d+")

_WHOLE = re.compile(
    r"""
    \s*(bearer|basic)\s+\S{8,}\s*                           # an Authorization header
    | (sk|pk|rk|gsk|lsv2|ghp|gho|ghs|github_pat|glpat|xox[abprs]|hf)[-_][\w.-]{12,}
    | A(KIA|SIA)[A-Z0-9]{16} | AIza[\w-]{30,}
    | eyJ[\w-]{8,}\.eyJ[\w-]{8,}\.[\w-]*                    # a JSON Web Token
    """,
    re.VERBOSE | re.IGNORECASE,
)
_PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")
_USER_INFO = re.compile(r"(?<=://)([^/\s:@]*):([^/\s@]+)(?=@)")


@lru_cache(4096)
def is_secret(key: str) -> bool:
    """Whether a value under this key is to be kept out of what is written."""
    words = [word.lower() for word in _WORD.findall(key)]
    return bool(
        not _ANYWHERE.isdisjoint(words)
        or (words and words[-1] in _LAST)
        or tuple(words[-2:]) in _LAST_TWO
        or any(word in key for word in _CHINESE)
    )


def scrub(value: Any) -> Any:
    """A copy of a JSON-like value without its secrets; the value itself if it has none."""
    if isinstance(value, str):
        return _scrub_text(value)
    if isinstance(value, Mapping):
        return _scrub_mapping(cast("Mapping[Any, Any]", value))
    if isinstance(value, list | tuple):
        items = cast("Sequence[Any]", value)
        clean = [scrub(item) for item in items]
        if all(new is old for new, old in zip(clean, items, strict=True)):
            return items
        return clean
    return value


def _scrub_mapping(value: Mapping[Any, Any]) -> Mapping[Any, Any]:
    # A list of headers or variables has its key beside the value: {"name": ..., "value": ...}.
    label = value.get("name", value.get("key"))
    labelled = "value" in value and isinstance(label, str) and is_secret(label)
    clean: dict[Any, Any] = {}
    changed = False
    for key, old in value.items():
        hidden = (isinstance(key, str) and is_secret(key)) or (labelled and key == "value")
        # None and booleans say whether there is a secret, not which.
        new = REDACTED if hidden and not isinstance(old, bool | None) else scrub(old)
        changed = changed or new is not old
        clean[key] = new
    return clean if changed else value


def _scrub_text(value: str) -> str:
    if _WHOLE.fullmatch(value) or _PRIVATE_KEY.search(value):
        return REDACTED
    return _USER_INFO.sub(rf"\1:{REDACTED}", value) if "://" in value else value
