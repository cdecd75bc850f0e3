#!/usr/bin/env bash
# Install what `make run` and `make test` need. Called by the Makefile, which decides what is out of date.
#
#   config/setup.sh python    .venv with the pinned dependencies and this package
#   config/setup.sh kafka     Java and Maven where missing, then Kafka's jars into .local/kafka-jars
#   config/setup.sh tools     what only tests need: Prometheus and libfaketime into .local/tools, Chromium where missing
#   config/setup.sh bench     what only benchmarks need: wrk where missing
#   config/setup.sh lock      write config/requirements.txt and requirements-run.txt anew from pyproject.toml
set -euo pipefail
cd "$(dirname "$0")/.."

java_min=17
requirements=config/requirements.txt
requirements_run=config/requirements-run.txt # The part of it that the image needs: what runs, and what builds the wheel.
jars=.local/kafka-jars
tools=.local/tools
log=.local/setup.log # Output of the last long step; shown when it fails.
apt_updated=no

note() { printf 'setup: %s\n' "$*" >&2; }

fail() {
    note "$*"
    exit 1
}

# Run a long step quietly: say what it is, and show what it printed only if it fails.
step() {
    local title=$1 seconds=$SECONDS
    shift
    note "$title ..."
    mkdir -p "$(dirname "$log")"
    if ! "$@" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "failed: $title (the last lines are above, all of it is in $log); run make again once that is fixed"
    fi
    note "$title: done in $((SECONDS - seconds)) s"
}

can_install() { [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; }

# Install Debian packages as root, or name the line to type.
install() {
    local why=$1
    shift
    can_install || fail "$why; type: sudo apt-get install $* (or what your system has instead), then run make again"
    note "$why: installing $* with apt-get"
    if [[ $apt_updated == no ]]; then
        step "apt-get update" apt-get update -q
        apt_updated=yes
    fi
    step "apt-get install $*" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"
}

# Print the first Python that the project supports.
find_python() {
    local python
    for python in "${PYTHON:-python3}" python3.14 python3.13 python3.12 python3.11; do
        if "$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
            printf '%s\n' "$python"
            return
        fi
    done
    return 1
}

setup_python() {
    local python found
    if ! python=$(find_python); then
        found=$(python3 --version 2>/dev/null || echo "no python3")
        fail "Python 3.11 to 3.14 is needed ($found found): install one and run make again, or PYTHON=/path/to/python make setup"
    fi
    if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
        local version
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
        install "$python cannot create virtual environments" "python$version-venv"
    fi
    # A .venv of a Python that is gone, or half created, is made anew.
    if ! .venv/bin/python -c 'import pip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15))' 2>/dev/null; then
        step "creating .venv with $("$python" --version)" "$python" -m venv --clear .venv
    fi
    # Hashes and no dependency resolution: exactly these files, or none. Everything else comes from the machine's pip.
    step "installing the pinned dependencies (135 MB)" \
        .venv/bin/pip install --disable-pip-version-check --no-input --require-hashes --no-deps -r "$requirements"
    step "installing vod-pipeline itself" \
        .venv/bin/pip install --disable-pip-version-check --no-input --no-build-isolation --no-deps --no-index -e .
    touch .venv/.installed
}

# Print the major version of the Java on the path: 17 for 17.0.15, 0 for none, 8 for 1.8.
java_version() {
    local version
    version=$(java -version 2>&1 | sed -n 's/.*version "\(1\.\)\{0,1\}\([0-9]*\).*/\2/p' | head -n 1) || true
    printf '%s\n' "${version:-0}"
}

setup_kafka() {
    local version
    version=$(java_version)
    if ((version < java_min)); then
        install "Java $java_min or newer is needed ($([[ $version == 0 ]] && echo none || echo "$version") found)" default-jre-headless
        version=$(java_version)
        ((version >= java_min)) || fail "\`java\` is still version $version: put Java $java_min or newer first on the PATH"
    fi
    command -v mvn >/dev/null || install "Maven is missing" maven
    rm -rf "$jars" "$jars.unfinished"
    step "fetching Apache Kafka with Maven (44 MB)" \
        mvn -q -B -f config/kafka/pom.xml dependency:copy-dependencies \
        -DincludeScope=runtime -DoutputDirectory="$PWD/$jars.unfinished"
    mv "$jars.unfinished" "$jars"
    touch "$jars/.fetched"
}

# Unpack Debian packages, instead of installing them: a test needs their programs, none needs their services.
unpack() {
    local package
    for package in "$@"; do
        (cd "$tools.unfinished" && apt-get download -q "$package")
        dpkg -x "$tools.unfinished/$package"_*.deb "$tools.unfinished"
    done
    rm "$tools.unfinished"/*.deb
}

setup_tools() {
    command -v chromium >/dev/null || install "Chromium is missing (the tests of the live page need it)" chromium
    rm -rf "$tools" "$tools.unfinished"
    mkdir -p "$tools.unfinished"
    if can_install && [[ $apt_updated == no ]]; then
        step "apt-get update" apt-get update -q
        apt_updated=yes
    fi
    command -v apt-get >/dev/null || fail "the tests take Prometheus and libfaketime from Debian packages; there is no apt-get here"
    step "unpacking Prometheus and libfaketime (25 MB)" unpack prometheus libfaketime
    mv "$tools.unfinished" "$tools"
    touch "$tools/.unpacked"
}

setup_bench() { command -v wrk >/dev/null || install "wrk is missing (it loads the bridge)" wrk; }

# The lock is made by the oldest Python, since packages that only old ones need are harmless on newer ones.
lock() {
    local venv=.local/lock-venv
    [[ -x $venv/bin/pip-compile ]] || {
        step "creating $venv" .venv/bin/python -m venv --clear "$venv"
        step "installing pip-tools" "$venv/bin/pip" install --disable-pip-version-check pip-tools
    }
    step "resolving pyproject.toml (about a minute)" compile --upgrade -o "$requirements" \
        --extra dev --build-deps-for editable
    # The same versions and hashes: what is in the image is what was tested.
    step "resolving what runs" compile -o "$requirements_run" --constraint "$requirements" --build-deps-for wheel
}

compile() {
    CUSTOM_COMPILE_COMMAND="make lock" .local/lock-venv/bin/pip-compile -q --strip-extras --generate-hashes --allow-unsafe \
        --no-emit-index-url --no-emit-find-links --no-emit-trusted-host "$@" pyproject.toml
}

case ${1:-} in
python) setup_python ;;
kafka) setup_kafka ;;
tools) setup_tools ;;
bench) setup_bench ;;
lock) lock ;;
*) fail "usage: config/setup.sh python|kafka|tools|bench|lock" ;;
esac
