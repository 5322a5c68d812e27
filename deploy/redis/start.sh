#!/bin/sh
# Starts Redis with the users of users.acl. Redis knows no variables in that
# file, so each @name@ becomes the SHA-256 of the password in the secret of that
# name: the users' file then holds nothing that could be used, and no password
# is seen in a list of processes.
#
#   default   the operator: everything
#   gateway   counts, tells that it lives, hears events; it cannot publish a
#             revocation nor read a token, a user's mark or a key (RULES 23)
#   authsvc   its own keys and the gateways', nothing that harms a server
#   monitor   figures for Prometheus, no key at all
set -eu

sha256() { tr -d '\n' <"/run/secrets/$1" | sha256sum | cut -d ' ' -f 1; }

script=
for user in default gateway authsvc monitor; do
  script="$script;s/@redis-$user@/$(sha256 "redis-$user")/"
done
umask 077
sed "${script#;}" /etc/redis/users.acl >/run/redis/users.acl
exec redis-server /etc/redis/redis.conf
