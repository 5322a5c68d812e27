#!/bin/sh
# Starts a gateway. The routes read the password of Redis from the environment,
# where `docker inspect` would show it to everyone who may ask Docker; so it
# comes from a file and is known to this process alone.
set -eu
SLUICE_REDIS_PASSWORD=$(cat "$SLUICE_REDIS_PASSWORD_FILE")
export SLUICE_REDIS_PASSWORD
exec traefik "$@"
