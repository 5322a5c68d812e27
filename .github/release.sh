#!/usr/bin/env bash
# Makes the files of a release in dist/: the Helm chart, for each platform an archive
# with sluice, authsvc and the Traefik that has the plugin compiled in, a bill of
# materials of each program, and one list of checksums.
#
#   .github/release.sh        with TAG a release; without, a rehearsal named
#                             after the commit. PLATFORMS are the four, or yours.
#   .github/release.sh chart  makes the chart alone
#   .github/release.sh notes  prints what CHANGELOG.md says of TAG
#   .github/release.sh try    unpacks this machine's archive into an empty folder
#                             and does there what a new user would, without Go
set -euo pipefail
cd "$(dirname "$0")/.."

sbom=github.com/CycloneDX/cyclonedx-gomod/cmd/cyclonedx-gomod@v1.10.0
variables=github.com/sluice-gateway/sluice/internal/version

version=${TAG:-}
version=${version#v}
: "${version:=0.0.0-g$(git rev-parse --short HEAD)}" # the g, because SemVer, and so Helm, has no 0.0.0-0123456

notes() {
  awk -v head="## [$version]" '/^## / {on = index($0, head) == 1; next} /^\[/ {on = 0} on' CHANGELOG.md
}

# A tag that the sources do not name would make programs that call themselves
# something else.
consistent() {
  grep -qFx "const Version = \"$version\"" plugin/report.go || { echo "TAG=$TAG: Version in plugin/report.go is another" >&2; exit 1; }
  test -n "$(notes)" || { echo "TAG=$TAG: CHANGELOG.md has no section ## [$version]" >&2; exit 1; }
}

chart() {
  mkdir -p dist
  (cd test && go run ./rendering/chart -version="$version" -time="$(git log -1 --format=%ct)" ../deploy/helm/sluice ../dist)
}

files() {
  local commit time platform os arch name traefik program
  commit=$(git rev-parse HEAD) time=$(git log -1 --format=%ct)
  rm -rf dist && chart
  for platform in ${PLATFORMS:-linux/amd64 linux/arm64 darwin/amd64 darwin/arm64}; do
    os=${platform%/*} arch=${platform#*/}
    name=sluice_${version}_${os}_${arch}
    mkdir "dist/$name"
    GOOS=$os GOARCH=$arch CGO_ENABLED=0 go build -trimpath -buildvcs=false \
      -ldflags="-s -w -X $variables.tag=v$version -X $variables.commit=$commit" -o "dist/$name/" ./cmd/sluice ./cmd/authsvc
    traefik=$(go run ./cmd/sluice traefik build --platform="$platform")
    program=$(basename "$traefik")
    cp "$traefik" "dist/$name/${program%-"$os-$arch"}"
    for program in "dist/$name"/*; do
      go run $sbom bin -json -output "dist/$name.$(basename "$program").cdx.json" "$program"
    done
    cp LICENSE README.md CHANGELOG.md "dist/$name/"
    tar --sort=name --owner=0 --group=0 --numeric-owner --mtime="@$time" -C dist -cf - "$name" | gzip -9n >"dist/$name.tar.gz"
    rm -r "dist/$name"
  done
  (cd dist && sha256sum -- * >"sluice_${version}_checksums.txt" && ls -l)
}

try() {
  local folder up
  folder=$(mktemp -d)
  trap "rm -rf '$folder'" EXIT
  (cd dist && sha256sum --check --quiet "sluice_${version}_checksums.txt")
  tar -xzOf "dist/sluice-$version.tgz" sluice/Chart.yaml | grep -Fx "appVersion: v$version"
  tar -xzf "dist/sluice_${version}_$(go env GOOS)_$(go env GOARCH).tar.gz" --strip-components=1 -C "$folder"
  cd "$folder"
  # No other program is on this PATH. /usr/bin has a go on GitHub's runners.
  local new=(env -i HOME="$folder/home" PATH="$folder/empty")
  "${new[@]}" ./sluice version
  "${new[@]}" ./authsvc version
  test "$("${new[@]}" ./sluice version | sed -n 's/^sluice *//p')" = "v$version"
  "${new[@]}" ./sluice traefik build
  # The tour's first lines, and an orderly end.
  "${new[@]}" ./sluice up --listen=127.0.0.1:0 --listenTLS=127.0.0.1:0 --readyFile=ready.json >tour 2>log &
  up=$!
  for _ in $(seq 600); do
    if test -s tour || ! kill -0 "$up" 2>/dev/null; then break; fi
    sleep 0.1
  done
  { kill -TERM "$up" && wait "$up" && test -s tour && test -s ready.json; } || { cat log >&2; exit 1; }
  head -20 tour
  "${new[@]}" ./sluice demo
}

if test -n "${TAG:-}"; then consistent; fi
case ${1:-files} in
  files | chart | notes | try) "${1:-files}" ;;
  *) echo "$0 $1: write nothing, chart, notes or try" >&2; exit 1 ;;
esac
