#!/usr/bin/env bash
# Installs what the tests need on Debian and Ubuntu: redis-server, mariadb-server, postgresql,
# rabbitmq-server, Java and Maven from the distribution, and the jars of Apache RocketMQ and
# Apache Kafka from Maven Central.
#
#   scripts/install-tools.sh
#
# Jars go to ${SEMEL_TOOLS:-$HOME/.cache/semel/tools}. What is there already is left alone, so
# that running this again takes no time.
set -euo pipefail

readonly rocketmq_version=5.5.0
readonly kafka_version=4.3.1
# What Kafka logs with; the version that its own distribution has.
readonly log4j_version=2.25.4
readonly tools=${SEMEL_TOOLS:-$HOME/.cache/semel/tools}
readonly rocketmq=$tools/rocketmq-$rocketmq_version
readonly kafka=$tools/kafka-$kafka_version
readonly parts=(namesrv broker tools)

say() {
    printf 'install-tools: %s\n' "$*"
}

fail() {
    printf 'install-tools: %s\n' "$@" >&2
    exit 1
}

# A server's program may be where only administrators look.
has() {
    PATH=$PATH:/usr/local/sbin:/usr/sbin command -v "$1" >/dev/null 2>&1
}

as_root() {
    if [[ $EUID -eq 0 ]]; then
        "$@"
    elif has sudo; then
        sudo "$@"
    else
        fail "'$*' needs root, and sudo is not installed" \
            "run it as root, then run this script again"
    fi
}

has_postgres() {
    has initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}

rocketmq_is_complete() {
    local part
    for part in "${parts[@]}"; do
        [[ -s $rocketmq/lib/rocketmq-$part-$rocketmq_version.jar ]] || return 1
    done
    [[ -e $rocketmq/complete ]]
}

kafka_is_complete() {
    [[ -s $kafka/lib/kafka_2.13-$kafka_version.jar && -e $kafka/complete ]]
}

install_packages() {
    local packages=()
    has redis-server || packages+=(redis-server)
    has mariadb-install-db || packages+=(mariadb-server)
    has_postgres || packages+=(postgresql)
    # Not on every PATH.
    has rabbitmq-server || [[ -x /usr/sbin/rabbitmq-server ]] || packages+=(rabbitmq-server)
    has java || packages+=(default-jre-headless)
    has setpriv || packages+=(util-linux)
    # Maven is only needed to fetch the jars.
    { rocketmq_is_complete && kafka_is_complete; } || has mvn || packages+=(maven)
    if [[ ${#packages[@]} -eq 0 ]]; then
        return
    fi
    has apt-get || fail "missing: ${packages[*]}" \
        "this script installs them with apt-get, which is not here: install them by hand"
    say "installing ${packages[*]} with apt-get"
    as_root apt-get update -qq
    # Debian starts servers on installation; the tests start their own. Servers that are there
    # already are left alone.
    local policy=/usr/sbin/policy-rc.d made_policy=
    if [[ ! -e $policy ]]; then
        made_policy=yes
        printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
        as_root chmod 755 "$policy"
    fi
    local status=0
    as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 \
        apt-get install -y -qq --no-install-recommends "${packages[@]}" || status=$?
    [[ -z $made_policy ]] || as_root rm -f "$policy"
    [[ $status -eq 0 ]] || fail "apt-get could not install ${packages[*]}" \
        "see its output above, and run this again"
}

check_java() {
    local version
    version=$(java -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p')
    if [[ -z $version || $version -lt 17 ]]; then
        fail "java is too old for Kafka or can't be run: $(java -version 2>&1 | head -n 1)" \
            "install Java 17 or newer, such as default-jre-headless"
    fi
}

# Fetches jars with all that they need into a directory: fetch NAME DIRECTORY GROUP:ARTIFACT:VERSION…
fetch() {
    local name=$1 directory=$2 work
    shift 2
    say "fetching $name from Maven Central (about a minute)"
    work=$(mktemp -d)
    # shellcheck disable=SC2064 # the directory of now is meant
    trap "rm -rf '$work'" EXIT
    {
        cat <<'POM'
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>semel</groupId>
  <artifactId>tools</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
POM
        local group artifact version
        while IFS=: read -r group artifact version; do
            printf '    <dependency><groupId>%s</groupId>' "$group"
            printf '<artifactId>%s</artifactId>' "$artifact"
            printf '<version>%s</version></dependency>\n' "$version"
        done < <(printf '%s\n' "$@")
        printf '  </dependencies>\n</project>\n'
    } >"$work/pom.xml"
    mkdir -p "$directory"
    if ! mvn --batch-mode --quiet --file "$work/pom.xml" dependency:copy-dependencies \
        "-DoutputDirectory=$directory/lib" >"$work/log" 2>&1; then
        tail -n 20 "$work/log" >&2
        fail "Maven could not fetch $name; the end of its output is above" \
            "check the network, or ~/.m2/settings.xml where a proxy is needed, and run this again"
    fi
    touch "$directory/complete"
    rm -rf "$work"
    trap - EXIT
}

install_rocketmq() {
    if rocketmq_is_complete; then
        return
    fi
    local artifacts=() part
    for part in "${parts[@]}"; do
        artifacts+=("org.apache.rocketmq:rocketmq-$part:$rocketmq_version")
    done
    fetch "Apache RocketMQ $rocketmq_version" "$rocketmq" "${artifacts[@]}"
    rocketmq_is_complete || fail "Maven fetched RocketMQ, but jars are missing in $rocketmq/lib" \
        "remove $rocketmq and run this again"
}

install_kafka() {
    if kafka_is_complete; then
        return
    fi
    fetch "Apache Kafka $kafka_version" "$kafka" \
        "org.apache.kafka:kafka_2.13:$kafka_version" \
        "org.apache.logging.log4j:log4j-slf4j-impl:$log4j_version"
    kafka_is_complete || fail "Maven fetched Kafka, but jars are missing in $kafka/lib" \
        "remove $kafka and run this again"
}

install_packages
check_java
install_rocketmq
install_kafka
say "redis-server, mariadb-server, postgresql, rabbitmq-server, java, RocketMQ $rocketmq_version" \
    "and Kafka $kafka_version are there"
