#!/usr/bin/env bash
# Writes the book's page of keys, docs/book/src/keys.md, from `advcl recipe keys`.
#
#   docs/book/make_keys.sh [--check]
#
# With --check nothing is written: a page that is not what the program says fails. ADVCL names the program; the built one is the default.
set -euo pipefail
cd "$(dirname "$0")/../.."
advcl="${ADVCL:-target/release/advcl}"
page=docs/book/src/keys.md

# A key is a line "KEY: TYPE, required|optional|default VALUE", with an indented line of its meaning below. Keys of one table, or of one
# method or mode, become one section.
make_page() {
    cat <<'HEAD'
# Every key

Made by `docs/book/make_keys.sh` from `advcl recipe keys`. Do not edit it by hand.

`advcl recipe keys KEY` prints a part of this page, such as `advcl recipe keys pretrain.advcl`. Distances are in pixels of [0, 1], as a number or a fraction in
quotes: `"8/255"`. Names with a plus sign are quoted, as in `[pretrain."dynacl++"]`.
HEAD
    "$advcl" recipe keys | awk '
        # A long name may break after a dot, which Markdown has no code for.
        function code(name) { gsub(/\./, ".<wbr>", name); return "<code>" name "</code>" }
        function cell(text) { gsub(/\|/, "\\|", text); gsub(/</, "\\&lt;", text); return text }
        /^[^ ]/ {
            colon = index($0, ": ")
            key = substr($0, 1, colon - 1)
            rest = substr($0, colon + 2)
            match(rest, /, (required|optional|default .*)$/)
            type = substr(rest, 1, RSTART - 1)
            state = substr(rest, RSTART + 2)
            if (sub(/^default /, "", state)) state = "`" state "`"
            parts = split(key, part, ".")
            section = part[1]
            if (part[1] == "pretrain" || part[1] == "finetune") section = parts > 1 ? part[1] "." part[2] : part[1]
            next
        }
        {
            sub(/^ +/, "")
            if (section != last) {
                title = (type == "table") ? "[" section "]" : section
                printf "\n## `%s`\n\n", title
                printf "| key | type | default | meaning |\n|---|---|---|---|\n"
                last = section
            }
            printf "| %s | %s | %s | %s |\n", code(key), cell(type), state, cell($0)
        }'
}

if [ "${1:-}" = --check ]; then
    if ! diff -u "$page" <(make_page); then
        echo "$page is not what $advcl says: run docs/book/make_keys.sh" >&2
        exit 1
    fi
    echo "ok: $page"
else
    make_page >"$page.new"
    mv "$page.new" "$page"
fi
