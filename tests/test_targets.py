"""Where webhooks may go: what is refused, with which words, and what langgraph.json changes."""

import json

import pytest

from clew.runtime import config, errors, targets
from clew.runtime.config import Config
from clew.runtime.targets import Rules


@pytest.mark.parametrize(
    ("rules", "url", "text"),
    [
        (Rules(max_url_length=30), "https://example.com/" + "x" * 20, "Webhook URL too long"),
        (Rules(require_https=True), "http://93.184.215.14/", "Webhook must use https"),
        (Rules(allowed_ports=(443,)), "https://93.184.215.14:844/", "Webhook port 844 not allowed"),
        (Rules(allowed_ports=(443,)), "http://93.184.215.14/", "Webhook port 80 not allowed"),
        (Rules(allowed_domains=("a.com",)), "https://b.a.com/", "Webhook domain not allowed"),
        (Rules(allowed_domains=("*.a.com",)), "https://a.com/", "Webhook domain not allowed"),
        (Rules(allowed_domains=("*.a.com",)), "https://evila.com/", "Webhook domain not allowed"),
        (Rules(), "ftp://example.com/", "Webhook host blocked: scheme 'ftp' not allowed"),
        (Rules(), "javascript:alert(1)", "Webhook host blocked: scheme 'javascript' not allowed"),
        (Rules(), "/hook", "Webhook host blocked: relative URLs not allowed"),
        (Rules(), "//example.com/hook", "Webhook host blocked: scheme '' not allowed"),
        (Rules(), "http://no-such-host.invalid/", "Webhook host blocked: DNS resolution failed"),
        (Rules(), "http://", "Webhook URL is malformed"),
        (Rules(), "http://[::1", "Webhook URL is malformed"),
        (Rules(), "http://a:99999/", "Webhook URL is malformed"),
        (Rules(), "http://93.184.215.14\\@127.0.0.1/", "Webhook URL is malformed"),
        (Rules(), "http://93.184.215.14/\r\nX: y", "Webhook URL is malformed"),
        (Rules(), "http://localhost/", "Webhook host blocked: loopback IP range"),
        (Rules(), "http://127.8.8.8/", "Webhook host blocked: loopback IP range"),
        (Rules(), "http://[::1]/", "Webhook host blocked: loopback IP range"),
        (Rules(), "http://[::ffff:127.0.0.1]/", "Webhook host blocked: loopback IP range"),
        (Rules(), "http://[64:ff9b::7f00:1]/", "Webhook host blocked: loopback IP range"),
        (Rules(), "http://[2002:7f00:1::]/", "Webhook host blocked: loopback IP range"),
        (Rules(), "http://2130706433/", "Webhook host blocked: loopback IP range"),
        (Rules(), "http://0x7f.1/", "Webhook host blocked: loopback IP range"),
        (Rules(), "http://0.0.0.0/", "Webhook host blocked: reserved IP range"),
        (Rules(), "http://224.0.0.1/", "Webhook host blocked: reserved IP range"),
        (Rules(), "http://169.254.169.254/", "Webhook host blocked: link-local IP range"),
        (Rules(), "http://10.0.0.1/", "Webhook host blocked: private IP range"),
        (Rules(), "http://100.64.0.1/", "Webhook host blocked: private IP range"),
        (Rules(), "http://[fd00::1]/", "Webhook host blocked: private IP range"),
        (Rules(private=True), "http://169.254.169.254/", "link-local IP range"),
        (Rules(private=True), "http://[fd00:ec2::254]/", "link-local IP range"),
        (Rules(private=True), "http://127.0.0.1/", "loopback IP range"),
        (Rules(loopback=True), "http://10.0.0.1/", "private IP range"),
    ],
)  # fmt: skip
async def test_a_url_that_may_not_be_called_is_refused_with_the_reason(
    rules: Rules, url: str, text: str
) -> None:
    with pytest.raises(errors.Invalid) as caught:
        await rules.check(url)
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("rules", "url"),
    [
        (Rules(), "http://93.184.215.14/x"),
        (Rules(require_https=True, allowed_ports=(443,)), "https://93.184.215.14/x"),
        (Rules(allowed_domains=("93.184.215.14",)), "https://93.184.215.14/x"),
        (Rules(private=True), "http://10.0.0.1/"),
        (Rules(loopback=True), "http://127.0.0.1:8000/"),
        (Rules(loopback=True), "/hook"),
    ],
)
async def test_a_url_that_may_be_called_passes(rules: Rules, url: str) -> None:
    await rules.check(url)


def test_rules_come_from_langgraph_json() -> None:
    def rules(given: object) -> Rules:
        found = config.Webhooks.model_validate_json(json.dumps(given))
        return targets.of(Config.model_construct(webhooks=found))

    assert targets.of(Config.model_construct(webhooks=None)) == Rules()
    assert rules({}) == Rules()
    assert rules({"url": {}}) == Rules(require_https=True)
    assert rules({"url": {"disable_loopback": False, "disable_private_ips": False}}) == Rules(
        require_https=True, loopback=True, private=True
    )
    assert rules({"url": {"require_https": False, "allowed_ports": [443]}}).allowed_ports == (443,)
