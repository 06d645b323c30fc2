#!/bin/sh
# Stands in for the relay: shows what it was given, and ends in an orderly way when asked to.
echo "args: $1 $2 $4"
cat "$3"
env | grep WALRELAY_
[ "$4" = --broken ] && exit 1
trap 'echo bye; exit 0' TERM
while :; do sleep 0.05; done
