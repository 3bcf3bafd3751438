"""When a cron fires: five fields, read in a time zone, over the days on which clocks change.

A time that a clock skips is made up for as the clock goes on; one that it shows twice counts once.
What repeats every so many minutes or every hour keeps its pace through both.
"""

from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from clew.runtime import errors

LONGEST = 256


def check(schedule: str, timezone: str | None) -> None:
    """Raises Invalid with the official server's words."""
    after(schedule, timezone, datetime.now(UTC))


def after(schedule: str, timezone: str | None, moment: datetime) -> datetime | None:
    """The first fire time after a moment; None if there is none in the next fifty years."""
    place = zone(timezone)
    if len(schedule) > LONGEST:
        raise _bad(schedule[:40], f"longer than {LONGEST} characters")
    # The library also reads seconds, which would be a promise that no poll can keep.
    if (count := len(schedule.split())) != 5:
        raise _bad(schedule, f"expected 5 fields, found {count}")
    try:
        times = CronSim(schedule, moment.astimezone(place))
    except CronSimError as error:
        raise _bad(schedule, str(error)) from None
    for time in times:
        # In the hour that a clock shows again, its first answer can be an hour ago.
        found = time.astimezone(UTC)
        if found > moment:
            return found
    return None


def zone(name: str | None) -> tzinfo:
    if name is None:
        return UTC
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise errors.Invalid(
            f"Invalid timezone: '{name[:64]}'. Must be an IANA name such as 'Europe/Berlin'."
        ) from None


def _bad(schedule: str, reason: str) -> errors.Invalid:
    return errors.Invalid(f"Invalid cron schedule: '{schedule}'. Reason: {reason}")
