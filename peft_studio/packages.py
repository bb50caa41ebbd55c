"""Which packages are installed here."""

from importlib.metadata import PackageNotFoundError, version


def installed(package: str) -> str | None:
    """Return the version that is installed of a package; None where none is, or where it can be no package's name."""
    try:
        return version(package)
    except (PackageNotFoundError, ValueError):
        return None
