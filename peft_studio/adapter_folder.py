"""An adapter's folder in the store: which of its files are handed out, and which are the studio's alone."""

from pathlib import Path

from peft_studio.effect import PROBES

RECORD = "adapter.json"  # the studio's own record of an uploaded adapter
PUBLICATIONS = "publications.json"  # where else the adapter is, or is to be
OWN = (RECORD, PUBLICATIONS, PROBES)  # of no use to others, and PROBES holds rows of the data set


def files_of(adapter: Path) -> dict[str, Path]:
    """Return the files of an adapter by name, as PEFT would load them: plain files of its folder, nothing hidden."""
    return {
        path.name: path
        for path in sorted(adapter.iterdir())
        if path.is_file() and not path.is_symlink() and path.name not in OWN and not path.name.startswith(".")
    }
