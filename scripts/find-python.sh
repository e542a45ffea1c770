# Sourced by the commands beside it: sets $python to an interpreter that is new enough, or exits.
# TIERGATE_PYTHON, where it is set, is the only candidate.
python=
find_python() {
    for name in "$@"; do
        if "$name" -c 'import sys; sys.exit(sys.version_info < (3, 10))' 2>/dev/null; then
            python=$name
            break
        fi
    done
}
if [ -n "${TIERGATE_PYTHON:-}" ]; then
    find_python "$TIERGATE_PYTHON"
else
    find_python python3 python3.13 python3.12 python3.11 python3.10
fi
if [ -z "$python" ]; then
    found=$("${TIERGATE_PYTHON:-python3}" --version 2>&1 || true)
    echo "tiergate: Python 3.10 or newer is needed; found: ${found:-none}." >&2
    echo "tiergate: install one (on Debian: apt install python3 python3-venv) or name it:" >&2
    echo "tiergate:     TIERGATE_PYTHON=/path/to/python3.10 $0" >&2
    exit 3
fi
