"""
What the shell of one's own machine is asked to do; scripts for any POSIX shell on Linux.

A rented machine is a folder there, in which everything about it lies:

    ~/peft-studio/machines/HOST/NAME/    HOST, since several hosts may share one home
        created        seconds of the clock, and for how many the command may run
        environment    of the command, readable by its user alone
        start          runs the command
        alive          locked by the command and all its children for as long as any of them lives
        group          its process group; written once it is about to run
        exit           its exit code
        console.log    what it prints

Scripts answer in lines, a word and what belongs to it each.
"""

from collections.abc import Mapping, Sequence
from shlex import join, quote

GRACE_SECONDS = 10
TOOLS = ("flock", "nohup", "setsid", "timeout")

_COMMON = """
set -u
umask 077
home="$HOME/peft-studio/machines/$(uname -n)"

held() { ! flock -n "$1/alive" true 2>/dev/null; }

shown() {
    state=booting
    if [ -f "$1/exit" ]; then state="ended $(cat "$1/exit")"
    elif [ -f "$1/group" ] && held "$1"; then state=running
    elif [ -f "$1/group" ]; then
        read -r since limit < "$1/created"
        state=lost
        [ "$(date +%s)" -lt "$((since + limit))" ] || state=late
    fi
    echo "machine ${1##*/} $(cut -d' ' -f1 "$1/created" 2>/dev/null || echo 0) $state"
}

is_busy() {
    for other in "$home"/*/; do
        [ -d "$other" ] || continue
        case "$(shown "${other%/}")" in *" running" | *" booting") return 0 ;; esac
    done
    return 1
}

able() {
    case "$python" in "~/"*) python="$HOME/${python#??}" ;; esac
    code='import sys, importlib.util as u; print(sys.executable if all(map(u.find_spec, sys.argv[1:])) else "")'
    "$python" -c "$code" "$@" 2>/dev/null
}
"""

# Read as a whole before anything is done: half a script must not run when the connection breaks.
_RUN = '\n}\nasked "$@" </dev/null\nexit 0\n'

_FACTS = """
    for tool in TOOLS; do command -v "$tool" >/dev/null || echo "lacks $tool"; done
    gpus=$(nvidia-smi --query-gpu=name,memory.total --format=csv,noheader,nounits 2>/dev/null) &&
        printf '%s\\n' "$gpus" | sed 's/^/gpu /'
    echo "cores $(nproc)"
    awk '/^MemTotal/ { print "memory", $2 }' /proc/meminfo
    df -Pk "$HOME" | awk 'NR == 2 { print "disk", $4 }'
    echo "python $(able peft_studio torch)"
    if is_busy; then echo busy; fi
"""

_RENT = """
    mkdir -p "$home"
    exec 9>"$home/.lock"
    flock 9
    machine="$home/$2"
    if [ -d "$machine" ]; then shown "$machine"; return; fi
    if is_busy; then echo busy; return; fi
    if [ -n "$python" ]; then
        python=$(able $modules)
        [ -n "$python" ] || { echo "lacks python"; return; }
    fi
    mkdir "$machine"
    echo "$(date +%s) $limit" > "$machine/created"
    printf %s "$environment" > "$machine/environment"
    printf %s "$start" > "$machine/start"
    : > "$machine/alive"
    setsid nohup timeout -k GRACE "$limit" sh "$machine/start" "$machine" "$python" \
        </dev/null >"$machine/console.log" 2>&1 9>&- &
    shown "$machine"
"""

# The home is the machine's own, so that nothing of it stays behind; what was downloaded or installed is shared.
_START = """
machine=$1
exec 8>"$machine/alive"
flock 8
trap : TERM
export HF_HOME="${{HF_HOME:-${{XDG_CACHE_HOME:-$HOME/.cache}}/huggingface}}"
export PYTHONUSERBASE="${{PYTHONUSERBASE:-$HOME/.local}}"
export HOME="$machine"
. "$machine/environment"
cd "$machine"
echo "$PPID" > group.new && mv group.new group
{command}
echo "$?" > exit.new && mv exit.new exit
"""

_RELEASE = """
    [ -d "$home/$2" ] || return
    setsid nohup sh -c "$ending" peft-studio "$home/$2" </dev/null >/dev/null 2>&1 &
"""

_ENDING = """
held() { ! flock -n "$1/alive" true 2>/dev/null; }
waited() { n=0; while held "$1" && [ "$n" -lt "$2" ]; do sleep 0.1; n=$((n + 1)); done; }
[ -f "$1/group" ] || sleep 1
if [ -f "$1/group" ]; then
    group=$(cat "$1/group")
    # timeout, which leads the group, passes the signal on to all of it, once.
    if held "$1"; then kill -TERM "$group" 2>/dev/null || kill -TERM -- "-$group"; waited "$1" TENTHS; fi
    if held "$1"; then kill -KILL -- "-$group"; waited "$1" TENTHS; fi
fi
held "$1" || rm -rf "$1"
"""


def facts(python: str) -> str:
    """Return a script that tells of the host: GPUs, cores, sizes in KB, the Python that can train, what is lacking."""
    return _script(_FACTS.replace("TOOLS", " ".join(TOOLS)), python=python)


def listing() -> str:
    """Return a script that shows every machine of ours."""
    return _script('    for one in "$home"/*/; do if [ -d "$one" ]; then shown "${one%/}"; fi; done\n')


def look() -> str:
    """Return a script that shows the machine of the name ``$2``, if there is such a one."""
    return _script('    if [ -d "$home/$2" ]; then shown "$home/$2"; fi\n')


def rent(command: Sequence[str], environment: Mapping[str, str], limit: int, python: str) -> str:
    """Return a script that starts a command once under the name ``$2``; a command ``python …`` with this Python."""
    first, *rest = command
    is_python = first in ("python", "python3")
    trains = any(word.startswith("peft_studio") for word in rest)
    line = f'"$2" {join(rest)}' if is_python else join(command)
    return _script(
        _RENT.replace("GRACE", str(GRACE_SECONDS)),
        python=python if is_python else "",
        modules="peft_studio torch" if trains else "",
        limit=str(limit),
        environment="".join(f"export {name}={quote(value)}\n" for name, value in environment.items()),
        start=_START.format(command=line),
    )


def release() -> str:
    """Return a script that has the machine of the name ``$2`` end in the background, and its folder go."""
    return _script(_RELEASE, ending=_ENDING.replace("TENTHS", str(GRACE_SECONDS * 10)))


def _script(body: str, **variables: str) -> str:
    given = "".join(f"{name}={quote(value)}\n" for name, value in variables.items())
    return f"asked() {{\n{given}{_COMMON}{body}{_RUN}"
