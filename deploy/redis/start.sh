#!/bin/sh
# Starts Redis with the users of users.acl. Redis knows no variables in that
# file, so each @name@ becomes the SHA-256 of the password in the secret of that
# name: the users' file then holds nothing that could be used, and no password
# is seen in a list of processes. @prefix@ becomes SLUICE_KEY_PREFIX, the first
# part of every key: gateways and authsvc have to be told the same.
#
#   default   the operator: everything
#   gateway   counts, tells that it lives, hears events; it cannot publish a
#             revocation nor read a token, a user's mark or a key (design: redis-keys)
#   authsvc   its own keys and the gateways', nothing that harms a server
#   monitor   figures for Prometheus, no key at all
set -eu

prefix=${SLUICE_KEY_PREFIX:-sluice}
LC_ALL=C
case "$prefix" in
*[!A-Za-z0-9._-]*) wrong=1 ;;
*) wrong= ;;
esac
if [ -n "$wrong" ] || [ "${#prefix}" -gt 32 ]; then
  echo "SLUICE_KEY_PREFIX: \"$prefix\" cannot be a key prefix; write 1 to 32 of A-Z a-z 0-9 . _ -" >&2
  exit 1
fi

sha256() { tr -d '\n' <"/run/secrets/$1" | sha256sum | cut -d ' ' -f 1; }

script=";s/@prefix@/$prefix/g"
for user in default gateway authsvc monitor; do
  script="$script;s/@redis-$user@/$(sha256 "redis-$user")/"
done
umask 077
sed "${script#;}" /etc/redis/users.acl >/run/redis/users.acl
exec redis-server /etc/redis/redis.conf
