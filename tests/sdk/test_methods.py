"""No public method of either official client is without a test that shows it at work."""

import pytest

from tests.sdk import official
from tests.sdk.official import KINDS, Kind


@pytest.mark.parametrize("kind", KINDS)
def test_every_method_of_the_official_clients_is_shown(kind: Kind) -> None:
    shown = {claim.method for _module, _test, claim in official.claims()}
    assert official.methods(kind) - shown == set()


def test_what_is_shown_are_methods_that_exist() -> None:
    existing = official.methods("async") | official.methods("sync")
    assert {claim.method for _module, _test, claim in official.claims()} - existing == set()
