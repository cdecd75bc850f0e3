#!/usr/bin/env bash
# Write the secrets that docker-compose.yml mounts, each only if it is missing or empty: `make secrets CALLBACK_URL=<url>`.
#
# A file is mounted with the owner and the mode it has here, and the containers' users are unknown to this machine: so
# the files can be read by all, and the directory they are in by its owner alone.
set -euo pipefail
directory=${SECRETS_DIRECTORY:-secrets}
url=${1:-}

note() { printf 'secrets: %s\n' "$*" >&2; }

random_hex() { od -An -tx1 -N16 /dev/urandom | tr -d ' \n'; }

# Put text into a file; a half-written one never has the name.
write() {
    rm -f "$directory/$1.unfinished"
    printf '%s' "$2" >"$directory/$1.unfinished"
    chmod 444 "$directory/$1.unfinished"
    mv -f "$directory/$1.unfinished" "$directory/$1"
    note "wrote $directory/$1"
}

mkdir -p -m 700 "$directory"
if [[ ! -s $directory/callbacks.json ]]; then
    LC_ALL=C # Ranges are of ASCII.
    is_url='^https?://[]!$-[^-~]+$' # What a request can have, and JSON as it is: no blanks, no " # \.
    if ! [[ $url =~ $is_url ]]; then
        note "type: make secrets CALLBACK_URL=https://example.com/vod/callback (exactly as it will be configured in VOD)"
        exit 2
    fi
    random=$(random_hex) # A statement of its own: elsewhere bash goes on without it when it fails.
    # As VOD wants a key: 32 characters at most, with capital and small letters and digits.
    printf -v callbacks '[{"url": "%s", "auth_keys": ["Vp0%.29s"]}]\n' "$url" "$random"
    write callbacks.json "$callbacks"
    note "configure the URL and the key in it in VOD, too"
fi
if [[ ! -s $directory/grafana-admin-password ]]; then
    random=$(random_hex)
    write grafana-admin-password "$random"
fi
