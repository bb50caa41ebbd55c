"""Which packages are installed here."""

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version


def installed(package: str) -> str | None:
    """Return the version that is installed of a package; None where none is, or where it can be no package's name."""
    try:
        return version(package)
    except (PackageNotFoundError, ValueError):
        return None


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    found = {package: installed(package) for package in packages}
    return {package: number for package, number in found.items() if number is not None}
