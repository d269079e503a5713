#!/bin/sh
# What Distributor calls for an in-place update: dpkg upgrades by installing.
set -eu
exec sh "$(dirname "$0")/install.sh"
