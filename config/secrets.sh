#!/usr/bin/env bash
# Write the secrets that docker-compose.yml mounts, each only if it is missing: `make secrets CALLBACK_URL=<url>`.
#
# A file is mounted with the owner and the mode it has here, and the containers' users are nobody on this machine: so
# the files can be read by all, and the directory they are in by its owner alone.
set -euo pipefail
directory=${SECRETS_DIRECTORY:-secrets}
url=${1:-}

say() { printf 'secrets: %s\n' "$*" >&2; }

# As VOD wants it: 32 characters at most, with capital and small letters and digits.
auth_key() { printf "Vp0%.29s" "$(random_hex)"; }

random_hex() { od -An -tx1 -N16 /dev/urandom | tr -d ' \n'; }

# Put standard input into a file that did not exist; a half-written one never has the name.
write() {
    cat >"$directory/$1.unfinished"
    chmod 444 "$directory/$1.unfinished"
    mv "$directory/$1.unfinished" "$directory/$1"
    say "wrote $directory/$1"
}

mkdir -p -m 700 "$directory"
if [[ ! -e $directory/callbacks.json ]]; then
    if ! [[ $url =~ ^https?://[^\"\\[:space:]]+$ ]]; then
        say "type: make secrets CALLBACK_URL=https://example.com/vod/callback (exactly as it will be configured in VOD)"
        exit 2
    fi
    printf '[{"url": "%s", "auth_keys": ["%s"]}]\n' "$url" "$(auth_key)" | write callbacks.json
    say "configure the URL and the key in it in VOD, too"
fi
[[ -e $directory/grafana-admin-password ]] || random_hex | write grafana-admin-password
