# To be sourced: a Python of our own for checks by other people's programs. Sets `venv`, makes it below target/ where it is missing.
venv=target/outside/venv
if [ ! -x "$venv/bin/python" ]; then
    if ! python3 -m venv "$venv" 2>/dev/null; then
        # Debian has Python and its venv in packages of their own.
        apt-get update -q && apt-get install -qy --no-install-recommends python3 python3-venv
        python3 -m venv "$venv"
    fi
fi
