#!/usr/bin/env bash
# Checks the report in a real browser: no errors on the console, and all figures are there. Writes screenshots (light, dark,
# a phone's width) and a PDF below target/report, to be looked at.
#
#     scripts/check_report.sh [RUN…]    # run folders; without one, smoke is run
set -euo pipefail
cd "$(dirname "$0")/.."
advcl=target/release/advcl
[ -x "$advcl" ] || cargo build --release
if ! command -v chromium >/dev/null; then
    # Debian's package, without its recommendations.
    as_root=$([ "$(id -u)" = 0 ] || echo sudo)
    $as_root apt-get update -q
    $as_root apt-get install -qy --no-install-recommends chromium fonts-dejavu-core
fi
out=target/report
mkdir -p "$out"
runs=("$@")
if [ ${#runs[@]} = 0 ]; then
    rm -rf "$out/run"
    "$advcl" run smoke --run "$out/run" --quiet >/dev/null
    runs=("$out/run")
fi
"$advcl" report "${runs[@]}" -o "$out/report.html"

page="file://$PWD/$out/report.html"
browse() {
    local profile
    profile=$(mktemp -d)
    timeout 120 chromium --headless --no-sandbox --disable-gpu --disable-quic --no-first-run \
        --disable-background-networking --disable-component-update --disable-sync \
        --hide-scrollbars --user-data-dir="$profile" --enable-logging=stderr --v=0 "$@" 2>"$out/log"
    rm -rf "$profile"
    # Messages of the page's console; the browser's own are ignored.
    if grep -E 'CONSOLE' "$out/log"; then
        echo "the page has errors" >&2
        exit 1
    fi
}
browse --dump-dom "$page" >"$out/dom.html"
for needed in '<svg viewBox=' 'id="map"' 'id="surface"' 'id="examples"' 'id="training"' 'data:image/png'; do
    grep -q "$needed" "$out/dom.html" || { echo "no $needed in the page" >&2; exit 1; }
done
size=$(stat -c %s "$out/report.html")
[ "$size" -lt 5000000 ] || { echo "$size bytes" >&2; exit 1; }
browse --window-size=1280,6000 --screenshot="$out/light.png" "$page"
browse --window-size=1280,6000 --blink-settings=preferredColorScheme=0 --screenshot="$out/dark.png" "$page"
# Chromium's window is at least 500 pixels wide, so a page of a phone's width is put inside a frame.
cat >"$out/phone.html" <<HTML
<!DOCTYPE html><html lang="en"><title>phone</title><body style="margin:0"><iframe src="report.html" style="border:0;width:390px;height:6000px"></iframe>
HTML
browse --window-size=500,6000 --screenshot="$out/phone.png" "file://$PWD/$out/phone.html"
browse --no-pdf-header-footer --print-to-pdf="$out/report.pdf" "$page"
figures=$(grep -o '<figure' "$out/dom.html" | wc -l)
echo "ok: $figures figures, $size bytes; look at $out/light.png, dark.png, phone.png, report.pdf"
