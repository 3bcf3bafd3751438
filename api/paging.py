"""Paging by offset, as the protocol's searches do it."""


def uncounted(offset: int, found: int, *, more: bool) -> bool:
    """Whether a page leaves open how many there are in all."""
    return more or (offset > 0 and not found)


def headers(offset: int, found: int, *, more: bool, total: int | None = None) -> dict[str, str]:
    """`Next` only where there is a next page. The total is a true one, and left out where it would
    take more than the search itself to know it."""
    end = offset + found
    page: dict[str, str] = {}
    if total is None and not uncounted(offset, found, more=more):
        total = end
    if total is not None:
        page["X-Pagination-Total"] = str(total)
    if more:
        page["X-Pagination-Next"] = str(end)
    return page
