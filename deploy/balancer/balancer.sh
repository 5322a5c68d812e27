#!/bin/sh
# Starts the balancer in front of SLUICE_GATEWAYS gateways, whose names are
# SLUICE_GATEWAY_NAME and a number. One that is not there fails its health
# check, and is asked again until it comes.
set -eu

gateways() { # the port of one entry point, on every gateway
  i=1 list=
  while [ "$i" -le "$SLUICE_GATEWAYS" ]; do
    list="$list${list:+,}$SLUICE_GATEWAY_NAME-$i:$1"
    i=$((i + 1))
  done
  echo "$list"
}

SLUICE_GATEWAYS_HTTP=$(gateways 8000)
SLUICE_GATEWAYS_HTTPS=$(gateways 8443)
SLUICE_GATEWAYS_PING=$(gateways 8082)
export SLUICE_GATEWAYS_HTTP SLUICE_GATEWAYS_HTTPS SLUICE_GATEWAYS_PING
exec traefik --configFile=/etc/traefik/balancer.yml
