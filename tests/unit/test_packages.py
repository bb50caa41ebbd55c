"""Which packages are installed here."""

from importlib.metadata import version

from peft_studio.packages import versions


def test_packages_that_are_not_installed_have_no_version_and_break_nothing() -> None:
    assert versions(("torch", "no-such-package-of-anybody")) == {"torch": version("torch")}
