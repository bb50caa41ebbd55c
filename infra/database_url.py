"""A PostgreSQL database's address, as users write it, as Prefect wants it, and as its driver alone wants it."""


def for_prefect(url: str) -> str:
    """Name the driver in a usual address, and say ``ssl`` for ``sslmode``."""
    for scheme in ("postgresql://", "postgres://"):
        if url.startswith(scheme):
            url = "postgresql+asyncpg://" + url.removeprefix(scheme)
    return url.replace("?sslmode=", "?ssl=").replace("&sslmode=", "&ssl=")


def for_asyncpg(url: str) -> str:
    """Return the usual address for one in either form."""
    return for_prefect(url).replace("+asyncpg", "", 1).replace("?ssl=", "?sslmode=").replace("&ssl=", "&sslmode=")
